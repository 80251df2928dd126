"""Durable commits: how many a second from one process and from two, what each adds to the disk, and how fast it opens.

    python benchmarks/bench_commit.py [--folder DIR] [--commits 200] [--samples 256] [--repeats 5] [--segments 10000]

Prints one JSON object of medians, so that two versions of the library can be compared in one run: call it alternately with
the `PYTHONPATH` of either.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import mlffstore as ml


def batch(n_samples: int, seed: int, n_atoms: int = 24) -> ml.SampleBatch:
    """Return samples of `n_atoms` atoms each with energies and forces."""
    rng = np.random.default_rng(seed)
    total = n_samples * n_atoms
    grid = np.stack(np.meshgrid(*[np.arange(4) * 1.5] * 3), -1).reshape(-1, 3)[:n_atoms]
    return ml.SampleBatch(
        n_atoms=np.full(n_samples, n_atoms),
        numbers=rng.choice([1, 6, 7, 8], total),
        positions=np.tile(grid, (n_samples, 1)) + rng.normal(scale=0.05, size=(total, 3)),
        charge=np.zeros(n_samples),
        multiplicity=np.ones(n_samples) + rng.integers(0, 1, n_samples),
        energy=rng.normal(size=n_samples),
        forces=rng.normal(size=(total, 3)),
        teacher="t",
    )


def commit(url: str, start: Any, seconds: Any, commits: int, samples: int, seed: int) -> None:
    """Commit batches when all processes are ready, and tell how long it took."""
    store = ml.open(url, mode="a")
    batches = [batch(samples, seed + i) for i in range(8)]
    start.wait()
    begin = time.perf_counter()
    for i in range(commits):
        store.append(batches[i % 8], require=())
    seconds.put((begin, time.perf_counter()))


def rate(folder: Path, n_processes: int, commits: int, samples: int) -> float:
    """Return commits per second of some processes together on one new store."""
    shutil.rmtree(folder, ignore_errors=True)
    ml.create(folder)
    context = multiprocessing.get_context("spawn")
    start, seconds = context.Barrier(n_processes), context.Queue()
    jobs = [
        context.Process(target=commit, args=(str(folder), start, seconds, commits, samples, 100 * k))
        for k in range(n_processes)
    ]
    for job in jobs:
        job.start()
    times = [seconds.get() for _ in jobs]
    for job in jobs:
        job.join()
    return n_processes * commits / (max(end for _, end in times) - min(begin for begin, _ in times))


def disk(folder: Path) -> tuple[int, int, int]:
    """Return files and folders, bytes, and bytes of the blocks they take."""
    paths = [folder, *folder.rglob("*")]
    status = [os.stat(path) for path in paths]
    n_bytes = sum(s.st_size for s, path in zip(status, paths, strict=True) if path.is_file())
    return len(paths), n_bytes, sum(512 * s.st_blocks for s in status)


def small_commit(folder: Path) -> dict[str, float]:
    """Return what one more commit of 16 samples adds."""
    shutil.rmtree(folder, ignore_errors=True)
    store = ml.create(folder)
    store.append(batch(16, 0), require=())
    before, columns = disk(folder), store.snapshot().summary()["nbytes"]
    store.append(batch(16, 1), require=())
    after = disk(folder)
    columns = store.snapshot().summary()["nbytes"] - columns
    return {
        "inodes per commit": after[0] - before[0],
        "bytes beyond columns": after[1] - before[1] - columns,
        "blocks beyond columns": after[2] - before[2] - columns,
    }


def opening(folder: Path, n_segments: int, repeats: int) -> dict[str, float]:
    """Return seconds to open a store of many small segments, and to read all and shuffled samples through it."""
    shutil.rmtree(folder, ignore_errors=True)
    store = ml.create(folder)
    batches = [batch(4, i) for i in range(8)]
    for i in range(n_segments):
        store.append(batches[i % 8], require=())
    times: dict[str, list[float]] = {"open": [], "read all": [], "read shuffled": []}
    order = np.random.default_rng(0).permutation(4 * n_segments)
    for _ in range(repeats):
        begin = time.perf_counter()
        snap = ml.open(folder).snapshot()
        len(snap)
        times["open"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        snap.read()
        times["read all"].append(time.perf_counter() - begin)
        snap = ml.open(folder).snapshot()
        begin = time.perf_counter()
        for k in range(0, 3200, 32):
            snap.read(order[k : k + 32])
        times["read shuffled"].append(time.perf_counter() - begin)
    return {f"{name}, s": statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where the stores are made; a disk, not memory")
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--segments", type=int, default=10_000)
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        one = [rate(base / "one", 1, args.commits, args.samples) for _ in range(args.repeats)]
        two = [rate(base / "two", 2, args.commits, args.samples) for _ in range(args.repeats)]
        out = {
            "commits per second, one process": statistics.median(one),
            "commits per second, two processes": statistics.median(two),
            "two / one": statistics.median(two) / statistics.median(one),
            **small_commit(base / "small"),
        }
        if args.segments:
            out |= opening(base / "many", args.segments, args.repeats)
        print(json.dumps({name: round(value, 4) for name, value in out.items()}, indent=1))
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
