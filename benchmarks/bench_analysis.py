"""Validation and statistics of a whole store, beside plain NumPy in memory on the same columns.

    python benchmarks/bench_analysis.py [--samples 120000] [--repeat 10] [--workers 2]

Each line is a process of its own, so that its peak memory is its own. "NumPy" has all columns in memory before the clock
starts, and computes the main of what our pass does: the same pairs within 3.2 angstrom (validation) or neighbours within
6 angstrom (statistics), with the same kernel in as many threads, then per-sample figures, moments, quantiles, least squares,
hashes in straightforward array code; no reading, no graph, no merging, and fewer checks than ours. `--repeat` also reads a
store that many times as large, for the curve of time and memory. The corpus is made by $MLFFSTORE_SHARED/bench/corpus.py
(default ../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SHARED = Path(os.environ.get("MLFFSTORE_SHARED", "../shared"))


def make_store(columns: dict[str, np.ndarray], path: str, repeat: int) -> None:
    """Write the corpus `repeat` times, moved a little each time, in commits of 4,096 samples."""
    import mlffstore as ml

    rows = columns["row_size"]
    starts = np.concatenate([[0], np.cumsum(rows)])
    store, rng = ml.create(path), np.random.default_rng(0)
    for k in range(repeat):
        for a in range(0, len(rows), 4096):
            b = min(a + 4096, len(rows))
            atoms = slice(starts[a], starts[b])
            x = columns["positions"][atoms]
            if k:
                x = x + rng.normal(0, 1e-3, x.shape).astype(np.float32)
            store.append(
                ml.SampleBatch(
                    n_atoms=rows[a:b], numbers=columns["numbers"][atoms], positions=x, cell=columns["cell"][a:b],
                    pbc=columns["pbc"][a:b], energy=columns["energy"][a:b], forces=columns["forces"][atoms], teacher="toy",
                )
            )  # fmt: skip


def ours(what: str, path: str, workers: int) -> None:
    import dask

    import mlffstore as ml

    with dask.config.set(scheduler="threads", num_workers=workers):
        if what == "validation":
            found = ml.validate(path)
            found.flags, found.acceptance, found.problems  # noqa: B018
        else:
            ml.statistics(path).to_dict()


def plain(what: str, c: dict[str, np.ndarray], workers: int) -> None:
    """Compute the same with arrays in memory."""
    from mlffstore.data.geometry import neighbour_counts, pairs

    starts = np.concatenate([[0], np.cumsum(c["row_size"])])
    n = len(c["row_size"])
    edges = np.linspace(0, n, 16 * workers + 1).astype(int)

    def geometry(k: int) -> object:
        a, b = edges[k], edges[k + 1]
        part = starts[a : b + 1] - starts[a], c["positions"][starts[a] : starts[b]], c["cell"][a:b], c["pbc"][a:b]
        if what == "validation":
            found = pairs(*part, 3.2)
            begin = np.concatenate([[0], np.cumsum(found.counts)])[:-1]
            some = found.counts > 0
            return np.minimum.reduceat(found.distance, begin[some]) if some.any() else None
        return neighbour_counts(*part, (4.0, 5.0, 6.0)).sum(axis=0)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(geometry, range(len(edges) - 1)))
    f = c["forces"].astype(np.float64)
    size = np.sqrt((f**2).sum(axis=1))
    np.maximum.reduceat(size, starts[:-1])
    np.linalg.norm(np.add.reduceat(f, starts[:-1]), axis=1)
    owner = np.repeat(np.arange(n), c["row_size"])
    composition = np.bincount(owner * 119 + c["numbers"], minlength=119 * n).reshape(n, 119)
    present = np.flatnonzero(composition.any(axis=0))
    np.linalg.lstsq(composition[:, present].astype(float), c["energy"], rcond=None)
    np.quantile(size, [0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999])
    if what == "validation":
        from mlffstore.data.hashing import content_hash

        zeros = np.zeros(n, np.int16)
        unique = content_hash(
            c["row_size"].astype(np.int32), c["numbers"], c["positions"], c["cell"], c["pbc"], zeros, zeros
        )
        np.unique(unique)
        np.linalg.det(c["cell"])
    else:
        for z in present:
            size[c["numbers"] == z].std()
        f.mean(axis=0), f.std(axis=0), (c["energy"] / c["row_size"]).std()


def child(args: argparse.Namespace) -> None:
    """Do one thing and print seconds and peak memory."""
    who, what, path = args.child
    columns = dict(np.load(path)) if who == "NumPy" else {}
    begin = time.perf_counter()
    if who == "NumPy":
        plain(what, columns, args.workers)
    else:
        ours(what, path, args.workers)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "GB": peak / 1e9}))


def run(who: str, what: str, path: str, workers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--workers", str(workers), "--child", who, what, path]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        corpus = f"{folder}/corpus.npz"
        subprocess.run([sys.executable, SHARED / "bench" / "corpus.py", str(args.samples), corpus], check=True)
        columns = dict(np.load(corpus))
        make_store(columns, f"{folder}/one.zarr", 1)
        many = args.repeat > 1
        if many:
            make_store(columns, f"{folder}/many.zarr", args.repeat)
        del columns
        run("ours", "validation", f"{folder}/one.zarr", args.workers)  # compiles
        run("ours", "statistics", f"{folder}/one.zarr", args.workers)
        print(f"{'':<12}{'samples':>10}  {'who':<6}{'seconds':>9}{'GB':>7}   ours / NumPy")
        for what in ("validation", "statistics"):
            taken = {who: [run(who, what, p, args.workers) for _ in range(args.rounds)]
                     for who, p in (("ours", f"{folder}/one.zarr"), ("NumPy", corpus))}  # fmt: skip
            middle = {
                who: sorted(several, key=lambda one: one["seconds"])[len(several) // 2]
                for who, several in taken.items()
            }
            for who, one in middle.items():
                ratio = f"{middle['ours']['seconds'] / middle['NumPy']['seconds']:.2f}" if who == "ours" else ""
                print(f"{what:<12}{args.samples:>10,}  {who:<6}{one['seconds']:>9.1f}{one['GB']:>7.2f}   {ratio}")
            if many:
                one = run("ours", what, f"{folder}/many.zarr", args.workers)
                times = one["seconds"] / middle["ours"]["seconds"]
                line = (
                    f"{what:<12}{args.samples * args.repeat:>10,}  {'ours':<6}{one['seconds']:>9.1f}{one['GB']:>7.2f}"
                )
                print(f"{line}   {times:.1f} times the time of {args.samples:,}", flush=True)


if __name__ == "__main__":
    main()
