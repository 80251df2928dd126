"""Selections: the pass that makes the table of samples, questions over large tables, and choices by structure.

    python benchmarks/bench_select.py [--samples 120000] [--rows 1000000] [--choose 5000]

The pass reads a store of the corpus of `bench_store` into an empty cache; a second call opens what is kept. Questions run
over a table of `--rows` rows, that of the store repeated. Choices by structure take `--choose` samples; their cost grows
with the number of atoms. Memory is the largest resident set of a process of its own for each choice.
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
from pathlib import Path
from typing import Any

QUESTIONS = (
    {"where": "n_atoms < 50"},
    {"where": "list_contains(elements, 'O') and n_atoms < 50 and max_force < 10"},
    {"where": "periodic and split = 'train'", "order_by": "max_force desc", "limit": 1000},
    {"where": "energy_per_atom < (select avg(energy_per_atom) from samples)", "sample": 10_000},
)


def timed(what: str, function: Any) -> Any:
    """Call a function; print wall time and CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    print(f"{what:70} {time.perf_counter() - wall:8.2f} s wall {time.process_time() - cpu:8.2f} s CPU", flush=True)
    return result


def choice(store: str, method: str, n: int) -> None:
    """Make one choice in this process, and print its time, memory and report."""
    import mlffstore as ml

    samples = ml.open(store).snapshot().take(slice(n))
    arguments = {"diverse": (max(n // 10, 1),), "cover": (20,), "without_near_duplicates": ()}[method]
    wall, cpu = time.perf_counter(), time.process_time()
    report = dict(getattr(samples, method)(*arguments).report)
    seconds = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"method": method, "atoms": samples.n_atoms, **seconds, "max_rss_MiB": round(memory), **report}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--choose", type=int, default=5_000)
    parser.add_argument("--choice", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.choice:
        choice(options.choice[0], options.choice[1], int(options.choice[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFFSTORE_CACHE"] = str(Path(folder) / "cache")
        run(options, Path(folder))


def run(options: argparse.Namespace, folder: Path) -> None:
    import pyarrow as pa
    from bench_store import as_batch, corpus

    import mlffstore as ml
    from mlffstore.lazy.query import choose

    store = ml.create(folder / "d.zarr")
    base = as_batch(corpus(folder, min(options.samples, 4096)))
    done = 0
    while done < options.samples:
        part = base[: min(len(base), options.samples - done)]
        store.append(part)
        done += len(part)
    snap = ml.open(store.url).snapshot()
    print(f"{len(snap):,} samples, {snap.n_atoms:,} atoms, {os.cpu_count()} cores")
    table = timed("table: the pass, into an empty cache", snap.table)
    timed("table: again, in a new snapshot", lambda: ml.open(store.url).snapshot().table())
    many = pa.concat_tables([table] * -(-options.rows // max(len(table), 1))).slice(0, options.rows).combine_chunks()
    for question in QUESTIONS:
        given: dict[str, Any] = {"where": None, "order_by": None, "limit": None, "sample": None, "seed": 0, **question}
        where = given.pop("where")
        found = timed(f"{len(many):,} rows: {question}"[:70], lambda w=where, g=given: choose(many, w, **g))
        print(f"    {len(found):,} samples")
    n = min(options.choose, len(snap))
    for method in ("without_near_duplicates", "cover", "diverse"):
        command = [sys.executable, __file__, "--choice", store.url, method, str(n)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
