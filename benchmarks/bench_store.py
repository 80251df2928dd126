"""Append and read rates beside atompack-db and ASE's SQLite, in one run on one corpus.

    python benchmarks/bench_store.py [--samples 20000] [--rounds 5] [--folder DIR]

Each round measures every contender once, in turn, so that a drift of the machine's speed hits all alike; the medians and
the ratios to ours are printed. "durable" means that the data was fsynced when the call returned: ours always is; the
peers are measured as they come, with an fsync of their files added in the rows that say so.
The corpus is made by ../shared/bench/corpus.py (or MLFFSTORE_SHARED).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import mlffstore as ml

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT = 4096  # samples a commit
BATCH = 32


def corpus(folder: Path, n: int) -> dict[str, np.ndarray]:
    shared = Path(os.environ.get("MLFFSTORE_SHARED", Path(__file__).parents[1].parent / "shared"))
    script, path = shared / "bench" / "corpus.py", folder / f"corpus-{n}.npz"
    if not script.exists():
        sys.exit(f"needs the benchmark corpus: no {script} (set MLFFSTORE_SHARED)")
    if not path.exists():
        subprocess.run([sys.executable, script, str(n), path], check=True)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def as_batch(c: dict[str, np.ndarray]) -> ml.SampleBatch:
    names = ("numbers", "positions", "cell", "pbc", "energy", "forces")
    return ml.SampleBatch(n_atoms=c["row_size"], teacher="random", **{name: c[name] for name in names})


def fsync(path: Path) -> None:
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())


def size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


class Ours:
    name = "mlffstore (durable)"

    def __init__(self, folder: Path, c: dict[str, np.ndarray]) -> None:
        self.path, self.batch = folder / "ours.zarr", as_batch(c)
        self.parts = [self.batch[i : i + COMMIT] for i in range(0, len(self.batch), COMMIT)]

    def write(self) -> int:
        store = ml.create(self.path)
        for part in self.parts:
            store.append(part)
        return len(self.batch)

    def open(self) -> None:
        self.snapshot = ml.open(self.path).snapshot()

    def read(self, index: np.ndarray | None) -> None:
        self.snapshot.read(index)


class Atompack:
    def __init__(self, folder: Path, c: dict[str, np.ndarray], compression: str, durable: bool) -> None:
        import atompack

        self.atompack, self.compression, self.durable, self.c = atompack, compression, durable, c
        self.name = f"atompack-db, {compression}" + (" (durable)" if durable else "")
        self.path = folder / f"atompack-{compression}-{durable}.atp"
        self.starts = np.concatenate([[0], np.cumsum(c["row_size"])])

    def write(self) -> int:
        c, starts = self.c, self.starts
        make = self.atompack.Molecule.from_arrays
        database = self.atompack.Database(str(self.path), compression=self.compression, overwrite=True)
        n = len(c["energy"])
        for low in range(0, n, COMMIT):
            molecules = []
            for i in range(low, min(low + COMMIT, n)):
                a, b = starts[i], starts[i + 1]
                molecules.append(
                    make(
                        c["positions"][a:b], c["numbers"][a:b], energy=float(c["energy"][i]), forces=c["forces"][a:b],
                        cell=c["cell"][i], pbc=tuple(bool(p) for p in c["pbc"][i]),
                    )
                )  # fmt: skip
            database.add_molecules(molecules)
            if self.durable:
                database.flush()
                fsync(self.path)
        database.flush()
        return n

    def open(self) -> None:
        self.database, self.n = self.atompack.Database.open(str(self.path)), len(self.c["energy"])

    def read(self, index: np.ndarray | None) -> None:
        self.database.get_molecules_flat(list(range(self.n)) if index is None else index.tolist())


class Sqlite:
    name = "ASE SQLite"

    def __init__(self, folder: Path, c: dict[str, np.ndarray], n: int = 1000) -> None:
        self.path, self.n = folder / "ase.db", n
        self.frames = as_batch(c)[:n].to_ase()

    def write(self) -> int:
        from ase.db import connect

        self.path.unlink(missing_ok=True)
        with connect(self.path) as database:
            for frame in self.frames:
                database.write(frame)
        return self.n

    def open(self) -> None:
        from ase.db import connect

        self.database = connect(self.path)

    def read(self, index: np.ndarray | None) -> None:
        for i in range(self.n) if index is None else index % self.n:
            self.database.get(id=int(i) + 1).toatoms()


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; a temporary folder by default")
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp(dir=args.folder))
    c = corpus(args.folder or Path(tempfile.gettempdir()), args.samples)
    raw = as_batch(c).nbytes
    contenders: list[Ours | Atompack | Sqlite] = [Ours(base, c)]
    try:
        contenders += [Atompack(base, c, kind, True) for kind in ("none", "zstd")]
        contenders += [Atompack(base, c, "none", False)]
    except ImportError:
        print("atompack-db is not installed (pip install atompack-db): left out", file=sys.stderr)
    contenders.append(Sqlite(base, c))
    rng = np.random.default_rng(0)
    rates: dict[tuple[str, str], list[float]] = {}
    sizes = {}
    for _ in range(args.rounds):
        shuffled, some = rng.permutation(args.samples)[:2000], rng.integers(0, args.samples, BATCH)
        for one in contenders:
            shutil.rmtree(one.path, ignore_errors=True)
            n = 0

            def write(one: Ours | Atompack | Sqlite = one) -> None:
                nonlocal n
                n = one.write()

            seconds = timed(write)
            rates.setdefault((one.name, "append"), []).append(n / seconds)
            sizes[one.name] = size(one.path) / (raw * n / args.samples)
            one.open()
            rates.setdefault((one.name, "read all"), []).append(n / timed(lambda one=one: one.read(None)))
            count = len(shuffled) if not isinstance(one, Sqlite) else 200
            seconds = timed(lambda one=one, count=count: one.read(shuffled[:count]))
            rates.setdefault((one.name, "read 2000 shuffled"), []).append(count / seconds)
            rates.setdefault((one.name, f"one batch of {BATCH}, ms"), []).append(
                1e3 * timed(lambda one=one: one.read(some))
            )
    columns = ["append", "read all", "read 2000 shuffled", f"one batch of {BATCH}, ms"]
    print(f"{args.samples} samples, {raw / 1e6:.0f} MB raw, {args.rounds} rounds, medians; rates in samples/s")
    print(f"{'':28}" + "".join(f"{column:>22}" for column in columns) + f"{'size / raw':>12}")
    ours = {column: statistics.median(rates[Ours.name, column]) for column in columns}
    for one in contenders:
        cells = []
        for column in columns:
            value = statistics.median(rates[one.name, column])
            cells.append(f"{value:,.4g} ({value / ours[column]:.2f} x)" if value < 1000 else
                         f"{value:,.0f} ({value / ours[column]:.2f} x)")  # fmt: skip
        print(f"{one.name:28}" + "".join(f"{cell:>22}" for cell in cells) + f"{sizes[one.name]:>12.2f}")
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
