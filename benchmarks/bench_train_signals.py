"""Training reads with more labels than energy and forces, beside those alone: what each further label costs.

    python benchmarks/bench_train_signals.py [--samples 8000] [--rounds 7] [--folder DIR] [--json]
    python benchmarks/bench_train_signals.py --base CHECKOUT [--samples 8000] [--rounds 7]

- A shuffled epoch in batches of 32 by `TorchDataset.loader`, mapped cache, warm; microseconds of CPU time of all threads for
  each sample, and samples/s of wall time. CPU time is what a busy machine leaves comparable.
- "energy, forces" is what a plain force field needs; "+ charges, HVP" adds a charge and a Hessian-vector product for each
  atom; "+ probe" also the direction of that product; "+ 6 more" dipole, atomic energies, moments and three user columns.
- The share is plain / with more labels, median of rounds that alternate; 1 would be "costs nothing". "bytes" is the share
  that it would be if a read cost nothing but the bytes of its tensors.
- With `--base`, processes of another checkout of this repository and of this one take turns. Each writes a store of energies
  and forces, and this checkout one with charges and Hessian-vector products beside them, and reads epoch after epoch with
  one loader; the table has medians over the processes of what their median epoch took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
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


def arrays(n: int, seed: int) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Return sizes, numbers, positions and labels of samples of 10 to 300 atoms, some of them without charges."""
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
    positions = rng.normal(size=(atoms, 3)).astype(real)
    return counts, rng.choice([1, 6, 7, 8, 29], atoms), positions, labels


def samples(n: int, seed: int) -> ml.SampleBatch:
    """Return samples of 10 to 300 atoms with all labels and three user columns."""
    counts, numbers, positions, labels = arrays(n, seed)
    rng, atoms, real = np.random.default_rng(seed), len(numbers), np.float32
    extra = {
        "weight": (rng.random(n), "1", "sample"),
        "site": (rng.integers(0, 9, atoms).astype(np.int32), "1", "atom"),
        "velocity": (rng.normal(size=(atoms, 3)).astype(real), "angstrom/fs", "atom"),
    }
    return ml.SampleBatch(
        n_atoms=counts, numbers=numbers, positions=positions, labels={"random": labels}, extra=extra
    )  # fmt: skip


def epoch(loader: Any) -> tuple[float, float]:
    """Run the next epoch of a loader; return seconds of CPU and of wall time for each sample."""
    n = len(loader.dataset)
    cpu, wall = time.process_time(), time.perf_counter()
    for batch in loader:
        batch["ptr"]
    return (time.process_time() - cpu) / n, (time.perf_counter() - wall) / n


def child(folder: Path, n: int) -> dict[str, tuple[float, float]]:
    """Return CPU and wall microseconds for each sample of a median epoch, of what this process's checkout can read."""
    plain = ("energy", "forces")
    sets = {"energy, forces": plain}
    if hasattr(ml, "Property"):
        sets["+ charges, HVP"] = (*plain, "charges", "hessian_product")
    out = {}
    for name, properties in sets.items():
        store = ml.create(folder / f"{len(properties)}.zarr")
        for k in range(0, n, 2000):
            counts, numbers, positions, labels = arrays(min(2000, n - k), k)
            some = {one: labels[one] for one in properties}
            # The oldest checkouts know labels of one teacher by these names only.
            given = some | {"teacher": "random"} if properties == plain else {"labels": {"random": some}}
            batch = ml.SampleBatch(n_atoms=counts, numbers=numbers, positions=positions, **given)
            store.append(batch, require=())
        asked = {} if properties == plain else {"properties": properties}
        loader = ml.TorchDataset(store.url, None, "random", **asked).loader(BATCH)
        seconds = [epoch(loader) for _ in range(24)][4:]
        out[name] = tuple(1e6 * statistics.median(one[k] for one in seconds) for k in (0, 1))
    return out


def against(base: Path, n: int, rounds: int) -> None:
    """Print what this checkout takes beside another one, in turn."""
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for k in range(rounds):
        for which, where in (("before", base), ("now", Path(__file__).parents[1]))[:: 1 if k % 2 else -1]:
            paths = (where, where / "generators", where / "teachers", where / "exporters")
            with tempfile.TemporaryDirectory() as folder:
                environment = {
                    **os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "MLFFSTORE_CACHE": f"{folder}/cache",
                }  # fmt: skip
                command = [sys.executable, "-W", "ignore", __file__, "--child", folder, "--samples", str(n)]
                done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            for name, seconds in json.loads(done.stdout.splitlines()[-1]).items():
                taken.setdefault((which, name), []).append(seconds)
    first = [statistics.median(one[k] for one in taken["before", "energy, forces"]) for k in (0, 1)]
    print(f"{n} samples, {rounds} processes of each checkout, medians; before is {base}")
    print(f"{'':24}{'CPU us':>9}{'wall us':>9}{'before / it, CPU':>18}{'wall':>8}")
    for (which, name), all_seconds in sorted(taken.items()):
        row = [statistics.median(one[k] for one in all_seconds) for k in (0, 1)]
        print(
            f"{which + ': ' + name:24}{row[0]:>9.2f}{row[1]:>9.2f}{first[0] / row[0]:>18.2f}{first[1] / row[1]:>8.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--folder", type=Path, help="Where store and cache lie; a new folder by default, removed at the end."
    )
    parser.add_argument("--json", action="store_true", help="print the medians as JSON")
    parser.add_argument("--base", type=Path, help="another checkout, to compare with")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.samples)))
        return
    if args.base:
        against(args.base.resolve(), args.samples, args.rounds)
        return
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
        loaders = {name: data.loader(BATCH) for name, data in sets.items()}
        for loader in loaders.values():
            epoch(loader)
        for _ in range(args.rounds):
            for name, loader in loaders.items():
                seconds = epoch(loader)
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
