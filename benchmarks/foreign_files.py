"""Imports files that other people wrote, and compares counts and labels with what the format's own reader says.

    python benchmarks/foreign_files.py FOLDER

FOLDER holds checkouts and unpacked source distributions under the names below, with the commit of the recorded run:

    schnetpack         github.com/atomistic-machine-learning/schnetpack      4c967da8
    fairchem           github.com/FAIR-Chem/fairchem                         (docs/core/fine-tuning)
    deepmd-kit         github.com/deepmodeling/deepmd-kit                    (examples)
    spice-dataset      github.com/openmm/spice-dataset                       (des370k, ions)
    janus-core         github.com/stfc/janus-core                            (tests/data)
    mlip               pip download --no-binary :all: --no-deps mlip==0.2.5
    pymatgen           the folder pymatgen/util of an installed pymatgen

What is not there is left out of the table. docs/reference/foreign_files.md has the recorded table.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mlffstore as ml

if TYPE_CHECKING:
    from collections.abc import Callable

#: Frames, atoms, and the sum of the energies in eV (None if there are none), as a reader counts them.
Counts = tuple[int, int, float | None]


def of_ase(path: Path) -> Counts:
    """Count with `ase.io.iread`."""
    from ase.io import iread

    frames = list(iread(path, ":"))
    energies = [atoms.calc.results.get("energy") for atoms in frames if atoms.calc is not None]
    total = float(np.sum(energies)) if len(energies) == len(frames) and None not in energies else None
    return len(frames), sum(map(len, frames)), total


def of_database(key: str | None, unit: float) -> Callable[[Path], Counts]:
    """Return a reader by `ase.db`, with the name of the energy in the data of the rows."""

    def count(path: Path) -> Counts:
        from ase.db import connect

        rows = list(connect(path).select())
        total = sum(float(np.asarray(row.data[key]).reshape(-1)[0]) * unit if key else row.energy for row in rows)
        return len(rows), sum(row.natoms for row in rows), total

    return count


def of_dpdata(path: Path) -> Counts:
    """Count with dpdata, every system below the folder."""
    import dpdata

    n = atoms = 0
    total = 0.0
    for folder in sorted({one.parent for one in path.rglob("type.raw")}):
        if any(folder.glob("set.*/real_atom_types.npy")):
            systems = list(
                dpdata.MultiSystems().load_systems_from_file(str(folder), fmt="deepmd/npy/mixed", labeled=False)
            )
        else:
            systems = [dpdata.LabeledSystem(str(folder), fmt="deepmd/npy")]
        for system in systems:
            n += len(system)
            atoms += len(system) * system.get_natoms()
            if "energies" in system.data:
                total += float(np.sum(system["energies"], dtype=np.float64))
    return n, atoms, total or None


def of_h5py(path: Path) -> Counts:
    """Count the conformations of SPICE's layout with h5py."""
    import h5py

    with h5py.File(path) as file:
        shapes = [group["conformations"].shape for group in file.values()]
    return sum(s[0] for s in shapes), sum(s[0] * s[1] for s in shapes), None


def of_pymatgen(path: Path) -> Counts:
    """Count with pymatgen."""
    from pymatgen.core import Structure

    return 1, len(Structure.from_file(path)), None


#: eV.
HARTREE = 27.211386024367243
#: Format, file, reader of others, their count, options of the import.
CASES: list[tuple[str, str, str, Callable[[Path], Counts], dict[str, Any]]] = [
    ("extended XYZ", "mlip/tests/sample_data/small_aspirin_with_charge_spin.xyz", "ASE", of_ase, {}),
    (
        "extended XYZ",
        "mlip/tests/sample_data/SPICE_small_with_charges.xyz",
        "ASE",
        of_ase,
        {"keys": {"energy": "energy"}},
    ),
    ("extended XYZ", "mlip/tests/sample_data/small_materials_test.extxyz", "ASE", of_ase, {}),
    (
        "extended XYZ",
        "janus-core/tests/data/mlip_train.xyz",
        "ASE",
        of_ase,
        {"keys": {"energy": "dft_energy", "forces": "dft_forces"}},
    ),
    (
        "ASE database",
        "schnetpack/tests/testdata/test_qm9.db",
        "ASE",
        of_database("energy_U0", HARTREE),
        {"keys": {"energy": "energy_U0"}, "units": {"energy": "hartree"}, "require": ("energy",)},
    ),
    (
        "ASE database",
        "fairchem/docs/core/fine-tuning/oxides.db",
        "ASE",
        of_database(None, 1.0),
        {"require": ("energy",)},
    ),
    ("DeePMD npy", "deepmd-kit/examples/water/data", "dpdata", of_dpdata, {"require": ("energy",)}),
    ("DeePMD npy", "deepmd-kit/examples/nopbc/data", "dpdata", of_dpdata, {"require": ("energy",)}),
    ("DeePMD mixed", "deepmd-kit/examples/property/data", "dpdata", of_dpdata, {"require": ()}),
    ("SPICE HDF5", "spice-dataset/ions/ions.hdf5", "h5py", of_h5py, {"require": ()}),
    ("SPICE HDF5", "spice-dataset/des370k/des-monomers.hdf5", "h5py", of_h5py, {"require": ()}),
    *[
        ("Materials Project JSON", f"pymatgen/structures/{name}.json", "pymatgen", of_pymatgen, {"require": ()})
        for name in ("Li2O", "LiFePO4", "VO2", "Li3V2(PO4)3")
    ],
]


def compare(file: Path, count: Callable[[Path], Counts], options: dict[str, Any]) -> tuple[Counts, Counts, str]:
    """Return what their reader says, what is in the store, and what the import left out."""
    theirs = count(file)
    with tempfile.TemporaryDirectory() as folder:
        report = ml.import_files(file, Path(folder) / "s", check_stress=False, **options)
        batch = ml.open(Path(folder) / "s").snapshot().read()
        energies = [named["energy"] for named in batch.labels.values() if "energy" in named]
        total = float(np.nansum(energies[0])) if energies else None
    left = sorted({use.name for use in report.keys if use.fate == "left out"})
    return theirs, (len(batch), batch.n_atoms_total, total), ", ".join(left)


def main(folder: Path) -> int:
    """Print the table; return how many files differ."""
    warnings.simplefilter("ignore")
    print("| format | file | their reader | samples | atoms | sum of energies / eV | left out |")
    print("|---|---|---|---|---|---|---|")
    wrong = 0
    for kind, name, reader, count, options in CASES:
        if not (folder / name).exists():
            continue
        try:
            theirs, ours, left = compare(folder / name, count, options)
        except Exception as error:
            print(f"| {kind} | `{name}` | {reader} | {type(error).__name__}: {str(error)[:300]} |")
            wrong += 1
            continue
        same = theirs[:2] == ours[:2] and (
            theirs[2] is None or (ours[2] is not None and abs(theirs[2] - ours[2]) <= 1e-9 * abs(theirs[2]))
        )
        wrong += not same
        shown = ["equal" if same else f"theirs {json.dumps(theirs)}"]
        energy = "none" if ours[2] is None else f"{ours[2]:,.3f}"
        print(
            f"| {kind} | `{name}` | {reader}, {shown[0]} | {ours[0]:,} | {ours[1]:,} | {energy} | {left or 'nothing'} |"
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) > 0)
