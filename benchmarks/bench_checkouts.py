"""Append, read, training and validation of two checkouts, by CPU time, in one run.

    python benchmarks/bench_checkouts.py BASE [NEW] [--samples 10000] [--repeats 5] [--folder DIR] [--memory DIR]

BASE and NEW are folders of checkouts or git revisions of this repository; NEW is this checkout by default. Both run with
the same interpreter and packages. Each repeat starts one process for each checkout in turn, the first of the pair in turn
too, so that a drift of the machine's speed affects both alike. A process compiles and imports first, and then measures
each step once: user and system time of all its threads. The table shows the medians, NEW / BASE of the medians, and the
smallest and largest NEW / BASE of a single repeat, which tell how far the ratio can be trusted.

- "append" is commits of 1,024 samples, in memory (--memory) and on disk (--folder); to wait for the disk is no CPU time;
- "read" is the whole snapshot, five times, and 500 times 32 random samples;
- "training" is three shuffled epochs in batches of 32 from a warm cache;
- "validation" is `mlffstore.validate` with its default policy, without a teacher, in one thread.

The data are generated: rattled crystals of 4 to 64 atoms and molecules on a grid, with energies, forces, and stresses.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT, BATCH = 1024, 32


def make_data(path: Path, n: int) -> None:
    """Write the arrays of n samples, half of them crystals of copper, aluminium or silver."""
    rng = np.random.default_rng(0)
    periodic = rng.random(n) < 0.5
    side = rng.integers(1, 5, (n, 3))  # cells of a crystal along each vector
    n_atoms = np.where(periodic, np.minimum(side.prod(axis=1) * 4, 64), rng.integers(5, 41, n)).astype(np.int32)
    fcc = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    sites = 1.2 * np.stack(np.unravel_index(np.arange(40), (4, 4, 4)), axis=1)
    positions, numbers, cell = [], [], np.zeros((n, 3, 3))
    for i, count in enumerate(n_atoms):
        if periodic[i]:
            images = count // 4
            cell[i] = np.diag([3.7 * images, 3.7, 3.7])
            points = (fcc[None] + np.arange(images)[:, None, None] * [1, 0, 0]).reshape(-1, 3) * 3.7
            kinds = np.full(count, rng.choice([13, 29, 47]))
        else:
            points = sites[:count]
            kinds = rng.choice([1, 6, 7, 8], count, p=[0.5, 0.3, 0.1, 0.1])
        positions.append(points + rng.normal(0, 0.04, (count, 3)))
        numbers.append(kinds)
    total = int(n_atoms.sum())
    stress = rng.normal(0, 0.01, (n, 6))
    stress[~periodic] = np.nan
    np.savez(
        path, n_atoms=n_atoms, numbers=np.concatenate(numbers).astype(np.uint8), cell=cell, stress=stress,
        positions=np.concatenate(positions).astype(np.float32), pbc=np.repeat(periodic[:, None], 3, axis=1),
        energy=rng.normal(-4.0 * n_atoms, 0.1), forces=rng.normal(0, 1, (total, 3)).astype(np.float32),
        root=rng.integers(0, max(n // 10, 1), n).astype(np.uint64),
    )  # fmt: skip


def measure(data: Path, disk: Path, memory: Path) -> dict[str, float]:
    """Return CPU seconds of each step with the library that this process imports."""
    import dask

    import mlffstore as ml

    with np.load(data) as file:
        batch = ml.SampleBatch(teacher="t", **{name: file[name] for name in file.files})
    parts = [batch[low : low + COMMIT] for low in range(0, len(batch), COMMIT)]
    rng = np.random.default_rng(0)

    def append(folder: Path, parts: list[Any]) -> Any:
        store = ml.create(folder)
        for part in parts:
            store.append(part, require=())
        return store

    def read_whole(url: str) -> None:
        for _ in range(5):
            ml.open(url).snapshot().read()

    def read_random(url: str) -> None:
        snapshot = ml.open(url).snapshot()
        for _ in range(500):
            snapshot.read(rng.integers(0, len(snapshot), BATCH))

    def epochs(dataset: Any, n: int) -> None:
        for seed in range(n):
            for one in dataset.loader(BATCH, seed=seed):
                one["energy"]

    def validate(url: str) -> None:
        with dask.config.set(scheduler="synchronous"):
            result = ml.validate(url)
            result.flags, result.acceptance, result.problems  # noqa: B018

    def everything(parts: list[Any], timed: Callable[..., Any]) -> None:
        timed("append, memory", append, memory / "m.zarr", parts)
        url = timed("append, disk", append, disk / "d.zarr", parts).url
        timed("read, whole", read_whole, url)
        timed("read, random", read_random, url)
        dataset = ml.TorchDataset(url, split=None)
        epochs(dataset, 1)  # fills the cache
        timed("training", epochs, dataset, 3)
        timed("validation", validate, url)
        shutil.rmtree(memory / "m.zarr")
        shutil.rmtree(disk / "d.zarr")

    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[..., Any], *args: Any) -> Any:
        gc.collect()
        began = time.process_time()
        result = step(*args)
        seconds[name] = time.process_time() - began
        return result

    everything([batch[:200]], timed)  # imports and compiles
    everything(parts, timed)
    return seconds


def checkout(name: str, folder: Path) -> Path:
    """Return the folder of a checkout; a git revision is written into `folder`."""
    if Path(name).is_dir():
        return Path(name).resolve()
    here = Path(__file__).resolve().parents[1]
    archive = subprocess.run(["git", "-C", str(here), "archive", name], capture_output=True)
    if archive.returncode:
        sys.exit(
            f"expected the folder of a checkout or a git revision, got {name!r}: {archive.stderr.decode().strip()}"
        )
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def run(where: Path, cache: Path, *arguments: Path) -> dict[str, float]:
    """Measure in a process that imports the library from a checkout."""
    paths = (where, where / "generators", where / "teachers", where / "exporters")
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1",
        "MLFFSTORE_CACHE": str(cache),
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", __file__, "--measure", *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=where, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(cache, ignore_errors=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="folder of a checkout, or a git revision")
    parser.add_argument("new", nargs="?", default=str(Path(__file__).parents[1]))
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a folder in memory")
    parser.add_argument("--folder", type=Path, help="a folder on disk; the temporary folder by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as disk, tempfile.TemporaryDirectory(dir=args.memory) as memory:
        data = Path(disk) / "data.npz"
        make_data(data, args.samples)
        both = {which: checkout(name, Path(disk) / which) for which, name in (("BASE", args.base), ("NEW", args.new))}
        taken: dict[str, list[dict[str, float]]] = {which: [] for which in both}
        for k in range(args.repeats):
            for which in list(both)[:: 1 if k % 2 else -1]:
                taken[which].append(run(both[which], Path(memory) / "cache", data, Path(disk), Path(memory)))
    print(f"CPU seconds, {args.samples:,} samples, medians of {args.repeats}; BASE {args.base}, NEW {args.new}")
    print(f"{'':18}{'BASE':>9}{'NEW':>9}{'NEW / BASE':>12}   single repeats")
    for name in taken["BASE"][0]:
        base, new = (statistics.median(one[name] for one in taken[which]) for which in both)
        ratios = [b[name] / a[name] for a, b in zip(taken["BASE"], taken["NEW"], strict=True)]
        print(f"{name:18}{base:>9.3f}{new:>9.3f}{new / base:>12.3f}   {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*map(Path, sys.argv[2:]))))
    else:
        main()
