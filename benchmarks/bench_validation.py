"""Growth of validation: time and peak memory against the number of samples.

    python benchmarks/bench_validation.py [--samples 10000 30000 120000] [--rounds 1] [--workers 2]

Each line is a process of its own that validates a store with the default policy, after one that compiled the kernels. CPU
time is that of all its threads, and says more than wall time on a machine that does other things too. "kept" is what is kept
of every sample until the end; "growth" is the own memory above that of the line before, for each more sample. Peak memory
includes the pages of the store's files that the system keeps in memory until they are needed for something else; "own" is
without them, but has up to 256 MB of decoded chunks that a snapshot keeps, so that growth says something where these are
full. Targets for 120,000 samples on two cores: 90 s, 1.5 GB, time in proportion to the samples, and less than 200
bytes kept of each. The corpus is made by $MLFFSTORE_SHARED/bench/corpus.py (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from bench_analysis import SHARED, make_store


def watch(own: list[int], done: threading.Event) -> None:
    """Append the memory of this process that no file backs, bytes, until `done` is set."""
    while not done.wait(0.02):
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        own.append(int(lines["RssAnon"].split()[0]) * 1024)


def child(path: str, workers: int) -> None:
    """Validate a store and print seconds, CPU seconds, peak memory and the bytes kept of every sample."""
    import dask

    import mlffstore as ml

    own, done = [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(own, done))
    watcher.start()
    begin, cpu = time.perf_counter(), time.process_time()
    with dask.config.set(scheduler="threads", num_workers=workers):
        found = ml.validate(path)
        found.table(), found.flags
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    done.set()
    watcher.join()
    measured = found._measured
    kept = [*measured.samples.values(), measured.elements, measured.counts, measured.n_elements]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": cpu,
                "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "own": max(own),
                "kept": sum(array.nbytes for array in kept) / len(measured.samples["n_atoms"]),
            }
        )
    )


def run(path: str, workers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--workers", str(workers), "--child", path]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 30_000, 120_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.workers)
        return
    with tempfile.TemporaryDirectory() as folder:
        stores = {}
        for n in sorted(args.samples):
            corpus = f"{folder}/corpus.npz"
            subprocess.run([sys.executable, SHARED / "bench" / "corpus.py", str(n), corpus], check=True)
            stores[n] = f"{folder}/{n}.zarr"
            make_store(dict(np.load(corpus)), stores[n], 1)
        run(stores[min(stores)], args.workers)  # compiles
        print(
            f"{'samples':>9}{'seconds':>9}{'CPU s':>8}{'CPU us/sample':>15}{'peak GB':>9}{'own GB':>8}"
            f"{'kept B':>8}{'growth B':>10}"
        )
        before = None
        for n, path in stores.items():
            taken = sorted((run(path, args.workers) for _ in range(args.rounds)), key=lambda one: one["cpu"])
            one = taken[len(taken) // 2]
            growth = f"{(one['own'] - before[1]) / (n - before[0]):,.0f}" if before else ""
            print(
                f"{n:>9,}{one['seconds']:>9.1f}{one['cpu']:>8.1f}{1e6 * one['cpu'] / n:>15.0f}{one['bytes'] / 1e9:>9.2f}"
                f"{one['own'] / 1e9:>8.2f}{one['kept']:>8.0f}{growth:>10}",
                flush=True,
            )
            before = n, one["own"]


if __name__ == "__main__":
    main()
