"""Training reads with more labels than energy and forces, beside those alone: what each further label costs.

    python benchmarks/bench_train_signals.py [--samples 8000] [--rounds 7] [--folder DIR] [--json]

- A shuffled epoch in batches of 32 by `TorchDataset.loader`, mapped cache, warm; microseconds of CPU time of all threads for
  each sample, and samples/s of wall time. CPU time is what a busy machine leaves comparable.
- "energy, forces" is what a plain force field needs; "+ charges, HVP" adds a charge and a Hessian-vector product for each
  atom; "+ probe" also the direction of that product; "+ 6 more" dipole, atomic energies, moments and three user columns.
- The share is plain / with more labels, median of rounds that alternate; 1 would be "costs nothing". "bytes" is the share
  that it would be if a read cost nothing but the bytes of its tensors.
- To compare two checkouts, run the script in turn with the PYTHONPATH of each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import mlffstore as ml

BATCH = 32
SETS: dict[str, tuple[str, ...]] = {
    "energy, forces": ("energy", "forces"),
    "+ charges, HVP": ("energy", "forces", "charges", "hessian_product"),
    "+ probe": ("energy", "forces", "charges", "hessian_product", "hessian_probe"),
    "+ 6 more": (
        "energy", "forces", "charges", "hessian_product", "hessian_probe", "dipole", "atomic_energies", "magmoms",
    ),
}  # fmt: skip


def samples(n: int, seed: int) -> ml.SampleBatch:
    """Return samples of 10 to 300 atoms, as many molecules as crystals, some of them without charges."""
    rng = np.random.default_rng(seed)
    counts = np.where(rng.random(n) < 0.45, rng.integers(10, 60, n), rng.integers(60, 301, n))
    atoms = int(counts.sum())
    some = np.repeat(rng.random(n) < 0.9, counts)
    real = np.float32
    labels = {
        "energy": rng.normal(size=n), "forces": rng.normal(size=(atoms, 3)).astype(real),
        "charges": np.where(some, rng.normal(size=atoms), np.nan).astype(real),
        "hessian_product": rng.normal(size=(atoms, 3)).astype(real),
        "hessian_probe": rng.normal(size=(atoms, 3)).astype(real),
        "dipole": rng.normal(size=(n, 3)), "atomic_energies": rng.normal(size=atoms),
        "magmoms": rng.normal(size=atoms).astype(real),
    }  # fmt: skip
    extra = {
        "weight": (rng.random(n), "1", "sample"),
        "site": (rng.integers(0, 9, atoms).astype(np.int32), "1", "atom"),
        "velocity": (rng.normal(size=(atoms, 3)).astype(real), "angstrom/fs", "atom"),
    }
    return ml.SampleBatch(
        n_atoms=counts, numbers=rng.choice([1, 6, 7, 8, 29], atoms), positions=rng.normal(size=(atoms, 3)).astype(real),
        labels={"random": labels}, extra=extra,
    )  # fmt: skip


def epoch(data: Any, seed: int) -> tuple[float, float]:
    """Run an epoch; return seconds of CPU and of wall time for each sample."""
    loader = data.loader(BATCH, seed=seed)
    cpu, wall = time.process_time(), time.perf_counter()
    for batch in loader:
        batch["ptr"]
    return (time.process_time() - cpu) / len(data), (time.perf_counter() - wall) / len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--folder", type=Path, help="Where store and cache lie; a new folder by default, removed at the end."
    )
    parser.add_argument("--json", action="store_true", help="print the medians as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        os.environ["MLFFSTORE_CACHE"] = str(folder / "cache")
        path = folder / "d.zarr"
        if not path.exists():
            store = ml.create(path)
            for k in range(0, args.samples, 2000):
                store.append(samples(min(2000, args.samples - k), k), require=())
        sets = {
            name: ml.TorchDataset(path, None, "random", properties, columns=None if name == "+ 6 more" else ())
            for name, properties in SETS.items()
        }
        nbytes = {name: sum(t.nbytes for t in data.batch(range(1000)).values()) for name, data in sets.items()}
        cpu: dict[str, list[float]] = {name: [] for name in SETS}
        wall: dict[str, list[float]] = {name: [] for name in SETS}
        for data in sets.values():
            epoch(data, 0)
        for k in range(args.rounds):
            for name, data in sets.items():
                seconds = epoch(data, k)
                cpu[name].append(seconds[0])
                wall[name].append(seconds[1])
    plain = next(iter(SETS))
    rows = {
        name: {
            "cpu_us": 1e6 * statistics.median(cpu[name]),
            "per_s": 1 / statistics.median(wall[name]),
            "share_cpu": statistics.median(a / b for a, b in zip(cpu[plain], cpu[name], strict=True)),
            "share_wall": statistics.median(a / b for a, b in zip(wall[plain], wall[name], strict=True)),
            "share_bytes": nbytes[plain] / nbytes[name],
        }
        for name in SETS
    }
    if args.json:
        print(json.dumps(rows))
        return
    print(f"{args.samples} samples, {args.rounds} rounds, medians")
    print(f"{'':16}{'CPU us':>9}{'samples/s':>12}{'share CPU':>11}{'share wall':>12}{'bytes':>8}")
    for name, row in rows.items():
        print(
            f"{name:16}{row['cpu_us']:>9.2f}{row['per_s']:>12,.0f}{row['share_cpu']:>11.2f}{row['share_wall']:>12.2f}"
            f"{row['share_bytes']:>8.2f}"
        )


if __name__ == "__main__":
    main()
