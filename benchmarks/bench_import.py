"""Imports of labelled files: extended XYZ, SPICE's HDF5 layout, an ASE database; beside each, what reading it takes alone.

    python benchmarks/bench_import.py [--samples 4000] [--rounds 5] [--shared DIR] [--folder DIR]
    python benchmarks/bench_import.py --iread [--samples 100000] [--atoms 30] [--workers 2] [--rounds 1]

- "import" is `mlffstore.import_files` into a new store, with every check and one durable commit; "read" is what a script
  does that only reads: `ase.io.read`, h5py's data sets, the rows of the database as frames.
- The files are generated: rattled crystals with energies, forces and stresses (the same ones in the database), and
  molecules of 5 to 40 atoms with 50 conformations each, whose labels are random numbers.
  With --shared they are DIR/data/*.extxyz (the database gets the same frames) and DIR/data/*.hdf5, whole.
- With --iread the import of one extended XYZ file by --workers processes is measured beside `ase.io.iread` alone, which
  keeps nothing: wall time, and CPU time of this process and its children. The target is 2.0 with two processes.
- Rounds are interleaved; medians. To compare two checkouts, run the script in turn with the PYTHONPATH of each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import h5py
import numpy as np
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

import mlffstore as ml

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

CONFORMATIONS = 50
#: Bohr per angstrom: SPICE's lengths are in bohr.
BOHR = 1 / 0.529177210903


def crystals(n: int) -> list[Atoms]:
    """Return rattled, strained crystals of 8 to 64 atoms with labels of the right size."""
    rng = np.random.default_rng(0)
    frames = []
    for i in range(n):
        atoms = bulk(*(("Cu", "fcc", 3.6), ("Si", "diamond", 5.43), ("Mo", "bcc", 3.15))[i % 3], cubic=True)
        atoms = atoms.repeat((2, 1 + i % 2, 1 + i // 2 % 2))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.01, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info["config_type"] = "crystal"
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=float(rng.normal(-4.0 * len(atoms))),
            forces=rng.normal(0, 1, (len(atoms), 3)),
            stress=rng.normal(0, 0.01, 6),
        )
        frames.append(atoms)
    return frames


def molecules(path: Path, n: int) -> None:
    """Write conformations in SPICE's layout: atoms on a lattice with the distances of bonds, shaken."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for k in range(-(-n // CONFORMATIONS)):
            n_atoms, count = int(rng.integers(5, 41)), min(CONFORMATIONS, n - k * CONFORMATIONS)
            sites = 1.2 * np.stack(np.unravel_index(np.arange(n_atoms), (4, 4, 4)), axis=1)
            shape = (count, n_atoms, 3)
            group = file.create_group(f"molecule {k}")
            group["atomic_numbers"] = rng.choice([1, 6, 7, 8], n_atoms, p=[0.5, 0.3, 0.1, 0.1])
            group["atomic_numbers"][0] = 1
            group["conformations"] = ((sites + rng.normal(0, 0.03, shape)) * BOHR).astype(np.float32)
            group["dft_total_energy"] = rng.normal(-3.0 * n_atoms, 0.1, count)
            group["dft_total_gradient"] = rng.normal(0, 0.02, shape).astype(np.float32)


def database(path: Path, frames: list[Atoms]) -> None:
    """Write frames into an ASE database."""
    with connect(path) as rows:
        for atoms in frames:
            rows.write(atoms)


def read_extxyz(paths: list[Path]) -> int:
    return sum(len(ase.io.read(path, ":")) for path in paths)


def read_hdf5(paths: list[Path]) -> int:
    n = 0
    for path in paths:
        with h5py.File(path) as file:
            for group in file.values():
                columns = [group[name][...] for name in group]
                n += len(group["conformations"])
                del columns
    return n


def read_database(paths: list[Path]) -> int:
    return sum(1 for path in paths for row in connect(path).select() if len(row.toatoms()))


def files(folder: Path, n: int, shared: Path | None) -> dict[str, tuple[list[Path], Callable[[list[Path]], int]]]:
    """Return the files of each format and a way to read them."""
    if shared is None:
        frames = crystals(n)
        ase.io.write(folder / "crystals.extxyz", frames)
        molecules(folder / "molecules.hdf5", n)
        text, arrays = [folder / "crystals.extxyz"], [folder / "molecules.hdf5"]
    else:
        text, arrays = (sorted((shared / "data").glob(pattern)) for pattern in ("*.extxyz", "*.hdf5"))
        if not text or not arrays:
            sys.exit(f"needs *.extxyz and *.hdf5 in {shared / 'data'}")
        frames = [atoms for path in text for atoms in ase.io.read(path, ":")]
    database(folder / "frames.db", frames)
    return {
        "extended XYZ": (text, read_extxyz),
        "SPICE HDF5": (arrays, read_hdf5),
        "ASE database": ([folder / "frames.db"], read_database),
    }


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def beside_iread(folder: Path, n: int, n_atoms: int, workers: int, rounds: int) -> None:
    """Measure the import of an extended XYZ file beside `ase.io.iread` and print both."""
    path, rng = folder / "frames.extxyz", np.random.default_rng(0)
    sites = bulk("Cu", cubic=True).repeat((4, 4, 4))[:n_atoms]
    with path.open("w") as file:
        for i in range(n):
            atoms = sites.copy()
            atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
            atoms.info["config_type"] = "bench"
            results = {"energy": float(i), "forces": rng.normal(size=(n_atoms, 3)), "stress": rng.normal(0, 0.01, 6)}
            atoms.calc = SinglePointCalculator(atoms, **results)
            ase.io.write(file, atoms, format="extxyz")
    ratios = []
    for _ in range(rounds):
        began, cpu = time.perf_counter(), cpu_seconds()
        count = sum(1 for _ in ase.io.iread(path))
        read, read_cpu = time.perf_counter() - began, cpu_seconds() - cpu
        began, cpu = time.perf_counter(), cpu_seconds()
        report = ml.import_files(path, folder / "d.zarr", workers=workers, check_stress=False, root="file")
        made, made_cpu = time.perf_counter() - began, cpu_seconds() - cpu
        assert report.samples == count == n
        shutil.rmtree(folder / "d.zarr")
        ratios.append(read / made)
        print(
            f"{n:,} frames of {n_atoms} atoms: iread {read:.2f} s ({read_cpu:.2f} s CPU), import with {workers} processes "
            f"{made:.2f} s ({made_cpu:.2f} s CPU); {read / made:.2f} times as fast, {read_cpu / made_cpu:.2f} by CPU time"
        )
    print(f"median {statistics.median(ratios):.2f} times ase.io.iread (target 2.00)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shared", type=Path, help="folder with real files in data/")
    parser.add_argument("--folder", type=Path, help="where files and stores are made")
    parser.add_argument("--iread", action="store_true", help="extended XYZ beside ase.io.iread alone")
    parser.add_argument("--atoms", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.iread:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            beside_iread(Path(name), args.samples, args.atoms, args.workers, args.rounds)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        contents = files(folder, args.samples, args.shared)
        seconds: dict[tuple[str, str], list[float]] = {}
        reports: dict[str, Any] = {}
        for k in range(args.rounds + 1):  # the first round compiles and fills caches
            for kind, (paths, read) in contents.items():
                began = time.perf_counter()
                reports[kind] = ml.import_files(paths, folder / "d.zarr", require=())
                middle = time.perf_counter()
                assert read(paths) == reports[kind].samples
                if k:
                    seconds.setdefault((kind, "import"), []).append(middle - began)
                    seconds.setdefault((kind, "read"), []).append(time.perf_counter() - middle)
                shutil.rmtree(folder / "d.zarr")
        print(f"{args.rounds} rounds, medians")
        heads = (
            ("samples", 9),
            ("atoms", 11),
            ("import s", 10),
            ("samples/s", 11),
            ("atoms/s", 12),
            ("read s", 9),
            ("import / read", 15),
        )
        print(" " * 14 + "".join(f"{head:>{width}}" for head, width in heads))
        for kind, report in reports.items():
            median = {what: statistics.median(seconds[kind, what]) for what in ("import", "read")}
            print(
                f"{kind:14}{report.samples:>9,}{report.atoms:>11,}{median['import']:>10.3f}"
                f"{report.samples / median['import']:>11,.0f}{report.atoms / median['import']:>12,.0f}"
                f"{median['read']:>9.3f}{median['import'] / median['read']:>15.2f}"
            )


if __name__ == "__main__":
    main()
