"""The mix of before, made by the code of before: what `benchmarks/bench_students.py` compares the mix of today with.

    python benchmarks/old_mix.py old_mix [--workers 2]

The samples of a recipe depend on the seeds and samplers that make them, so the last commit before dynamics got cheap and
crystals were relaxed runs its own recipes/acceptance.yaml: 3,000 samples, 450 teacher calls per frame of dynamics, more than
an hour on two cores; it goes on if it is stopped. Its store has format version 1, which no reader of today knows: its own
exporter writes extended XYZ, and old_mix/old_mix.zarr is made of that, with roots, sources and samplers of the old store.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.io import iread

import mlffstore as ml

if TYPE_CHECKING:
    from ase import Atoms

#: The last commit before teachers kept their state in dynamics, heavy masses, and relaxed crystals.
COMMIT = "d0f6d64^"
TEACHERS = ("gfn2-xtb", "chgnet")


def main() -> None:
    """Run the old code, and bring what it made into a store of today."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    folder = args.folder.absolute()
    code = folder / "code"
    if not code.is_dir():
        code.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "archive", COMMIT], stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1]
        )
        subprocess.run(["tar", "-x", "-C", code], input=archive.stdout, check=True)
    run_old(folder, "run", code / "recipes" / "acceptance.yaml", "--workers", args.workers)
    store = ml.create(folder / "old_mix.zarr", splits={"train": 0.82, "val": 0.09, "test": 0.09})  # those of the recipe
    for teacher in TEACHERS:
        frames = folder / f"frames-{teacher}"
        if not frames.is_dir():
            run_old(folder, "export", "acceptance.zarr", "-f", "extxyz", "-o", frames, "--teacher", teacher)
        store.append(batch([atoms for file in sorted(frames.iterdir()) for atoms in iread(file)], teacher))
    print(f"{store.url}: {len(store)} samples")


def run_old(folder: Path, *command: object) -> None:
    """Run a command of the old code."""
    code = folder / "code"
    paths = [code, *(code / side for side in ("generators", "teachers", "exporters"))]
    subprocess.run(
        [sys.executable, "-m", "mlffstore", *map(str, command)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}, cwd=folder, check=True,
    )  # fmt: skip


def batch(frames: list[Atoms], teacher: str) -> ml.SampleBatch:
    """Return frames with what the old exporter wrote about each."""
    about = defaultdict(list)
    for atoms in frames:
        for name in ("source", "sampler", "root"):
            about[name].append(atoms.info.pop(name))
    root = np.array([int(text[1:], 16) for text in about["root"]], np.uint64)
    return ml.SampleBatch.from_ase(frames, teacher=teacher, source=about["source"], sampler=about["sampler"], root=root)


if __name__ == "__main__":
    main()
