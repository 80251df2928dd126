"""Export: ours beside h5py's own gzip-4 + shuffle in a loop over chunks, the same columns and chunks, in one run.

    python benchmarks/bench_export.py [--samples 120000] [--rounds 3]

Both read the same store in blocks of samples and write the same groups and datasets; "h5py loop" assigns to datasets whose
filters the HDF5 library applies in one thread. Seconds are medians over interleaved rounds, sizes those of the files.
A whole release (validation, statistics, card, checksums) is timed once more below.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from bench_store import as_batch, corpus

import mlffstore as ml
from mlffstore.data.splits import SPLITS
from mlffstore_exporters import hdf5


def loop(snapshot: Any, path: Path) -> None:
    """Write what `export_hdf5` writes, but let h5py compress."""
    who = snapshot.teachers[0]
    filters = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
    with h5py.File(path, "w", libver=("earliest", "v110"), track_order=True) as file:
        splits = hdf5.select(snapshot, (who,))
        columns, made, at = hdf5.stored_columns(snapshot, (who,)), {}, {}
        for split, index in splits.items():
            group = file.create_group(split, track_order=True)
            counts = snapshot.read(index, columns=["n_atoms"]).n_atoms
            rows = {"sample": len(index), "atom": int(counts.sum(dtype=np.int64))}
            hdf5._dimensions(group, rows, [column for column, _ in columns.values()])
            made[split] = {n: hdf5._dataset(group, n, c, rows[c.axis], filters) for n, (c, _) in columns.items()}
            at[split] = {"sample": 0, "atom": 0}
        for batch, owner in hdf5._blocks(snapshot, list(splits.values()), (who,)):
            for k, split in enumerate(splits):
                part = batch.take(np.flatnonzero(owner == k))
                n = {"sample": len(part), "atom": part.n_atoms_total}
                for name, (column, key) in columns.items():
                    values = part.labels[who].get(key) if key in part.labels[who] else part.columns.get(name)
                    if values is not None:
                        first = at[split][column.axis]
                        made[split][name][first : first + n[column.axis]] = values
                at[split] = {axis: at[split][axis] + n[axis] for axis in n}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        batch = as_batch(corpus(Path(tempfile.gettempdir()), args.samples))
        store = ml.create(base / "d.zarr")
        for low in range(0, args.samples, 10_000):
            store.append(batch[low : low + 10_000])
        snapshot = store.snapshot()
        raw = snapshot.summary()["nbytes_raw"]
        seconds: dict[str, list[float]] = {"ours": [], "h5py loop": []}
        paths = {"ours": base / "ours.h5", "h5py loop": base / "loop.h5"}
        for _ in range(args.rounds):
            for name in seconds:
                began = time.perf_counter()
                if name == "ours":
                    ml.get_exporter("hdf5")(snapshot, paths[name])
                else:
                    loop(snapshot, paths[name])
                seconds[name].append(time.perf_counter() - began)
        with h5py.File(paths["ours"]) as a, h5py.File(paths["h5py loop"]) as b:
            for split in SPLITS:
                for name in ("positions", "forces", "energy", "numbers"):
                    assert np.array_equal(a[split][name][...], b[split][name][...]), name
        began = time.perf_counter()
        ml.export_release(snapshot, base, name="release", allow_failing=True)
        whole = time.perf_counter() - began
        print(f"{args.samples:,} samples, {snapshot.n_atoms:,} atoms, {raw / 1e6:,.0f} MB uncompressed")
        print(f"{'':10}  {'s':>7}  {'MB/s':>6}  {'MB':>7}")
        median = {name: statistics.median(times) for name, times in seconds.items()}
        for name, value in median.items():
            print(f"{name:10}  {value:7.2f}  {raw / 1e6 / value:6.0f}  {paths[name].stat().st_size / 1e6:7.1f}")
        ratio = paths["ours"].stat().st_size / paths["h5py loop"].stat().st_size
        print(f"ours is {median['h5py loop'] / median['ours']:.2f} x as fast, the file {ratio:.4f} of the size")
        print(f"a whole release with validation, statistics, card and checksums: {whole:.1f} s")


if __name__ == "__main__":
    main()
