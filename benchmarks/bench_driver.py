"""What `mlffstore run` itself spends on a task: processor time of the driver, worker processes not counted.

    python benchmarks/bench_driver.py [--tasks 2000] [--workers 2]

Tasks are small: four metal crystals, labelled by EMT, one commit. The time holds keys, submission, ends, upkeep
(compaction too) and the account of parts; the first 50 tasks, with the start of the processes, are left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mlffstore.pipeline.recipe import Recipe
from mlffstore.pipeline.run import run


def recipe(folder: str, n_tasks: int) -> Recipe:
    """Return a recipe of so many tasks of four samples."""
    options = {"elements": ["Cu", "Al", "Ni"], "elemental": 1.0, "max_atoms": 16}
    part = {"name": "metals", "generator": "crystals", "options": options, "teacher": "emt", "samples": 4 * n_tasks,
            "samples_per_task": 4}  # fmt: skip
    return Recipe.model_validate({"name": "driver", "store": str(Path(folder) / "d.zarr"), "parts": [part]})


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        marks: list[float] = []
        began = time.perf_counter()
        run(recipe(folder, args.tasks), workers=args.workers, progress=lambda _: marks.append(time.process_time()))
        total, wall = time.process_time(), time.perf_counter() - began
    first = min(50, len(marks) - 1)
    each = (total - marks[first]) / (len(marks) - first)
    print(f"{len(marks):,} tasks, {wall:.0f} s: {1e3 * each:.2f} ms of the driver for each task")


if __name__ == "__main__":
    main()
