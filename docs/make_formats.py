"""Writes docs/reference/formats.md: what an import keeps, renames, converts and leaves out of each format.

    python docs/make_formats.py

The first table is made by importing a small file of each format and looking at the report, the second by docs/round_trips.py;
nothing in them is written by hand. A row whose format needs a package that is not installed stays as it is in the page.
"""

from __future__ import annotations

import json
import sys
import tempfile
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

sys.path.insert(0, str(Path(__file__).parents[1]))
from docs import round_trips

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

PAGE = Path(__file__).parent / "reference" / "formats.md"
HEAD = """# Formats that can be imported

This page is generated: `python docs/make_formats.py` imports a small file of each format and writes down what the report says.
Names with an arrow are stored under another name; *converted* means that unit, sign or form changed. `--column NAME` keeps most
of what is left out, `--key LABEL=NAME` takes a label from another name. Beside these, everything that ASE reads can be imported.

| format | reader | kept | converted | left out |
|---|---|---|---|---|
"""
EXPORTS = """
## Exports that come back

What `mlffstore import` takes from an export of each layout into a new store: *yes* without an option, *named* where `--key` or
`--column` (and for roots `--root info:root`) names it, *no* where it is lost. Equal means every digit, dtype and mask
(dipoles, which MACE has in Debye, to 14 digits).

"""
TAIL = """
## Notes

- **Compressed files.** `.gz`, `.bz2` and `.xz` of every format; a `.zip` stands for the files in it. A file that unpacks to more than
  200 times its size is refused.
- **Roots.** Frames of a material of MPtrj, conformations of a group of ANI and SPICE, and the frames of an npz file share a root.
- **Mappings.** `--key positions=R --key numbers=z --key energy=E --units energy=kcal/mol` reads other npz and Parquet layouts.
- **Extras.** Parquet and Arrow need `mlffstore[parquet]`, JSON of the Materials Project `mlffstore[json]`, folders of DeePMD-kit
  `mlffstore[deepmd]`, aselmdb `mlffstore[aselmdb]`, files of atompack `mlffstore[atompack]`.
"""


def crystals(n: int = 3) -> list[Atoms]:
    """Return labelled crystals with some more keys."""
    rng = np.random.default_rng(0)
    frames = []
    for i in range(n):
        atoms = bulk("NaCl", "rocksalt", 5.6, cubic=True)
        atoms.rattle(0.02, seed=i)
        results = {
            "energy": -30.0 - i, "forces": rng.normal(size=(8, 3)), "stress": np.zeros(6), "magmoms": np.zeros(8),
            "dipole": np.zeros(3),
        }  # fmt: skip
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info |= {"charge": 0, "multiplicity": 1, "config_type": "bulk", "weight": 1.0}
        frames.append(atoms)
    return frames


def extxyz(path: Path) -> Path:
    ase.io.write(path / "a.extxyz", crystals())
    return path / "a.extxyz"


def database(path: Path) -> Path:
    with connect(path / "a.db") as rows:
        for atoms in crystals():
            rows.write(atoms, key_value_pairs={"config_type": "bulk"}, data={"charge": 0, "spin": 1, "weight": 1.0})
    return path / "a.db"


def store(path: Path) -> Path:
    ml.create(path / "a.zarr").append(crystals(), teacher="pbe")
    return path / "a.zarr"


def release(path: Path) -> Path:
    return Path(ml.get_exporter("hdf5")(ml.open(store(path)).snapshot(), path / "a.h5"))


def parquet(path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "immutable_id": "mp-1", "species_at_sites": atoms.get_chemical_symbols(), "energy": atoms.get_potential_energy(),
            "cartesian_site_positions": atoms.positions.tolist(), "lattice_vectors": atoms.cell.tolist(),
            "forces": atoms.get_forces().tolist(), "stress_tensor": np.zeros((3, 3)).tolist(), "functional": "pbe",
        }
        for atoms in crystals()
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path / "a.parquet")
    return path / "a.parquet"


def materials(path: Path) -> Path:
    from pymatgen.io.ase import AseAtomsAdaptor

    frames = {}
    for i, atoms in enumerate(crystals()):
        bare = atoms.copy()
        bare.info = {}
        frames[f"mp-1-0-{i}"] = {
            "structure": AseAtomsAdaptor.get_structure(bare).as_dict(), "uncorrected_total_energy": -30.0,
            "corrected_total_energy": -31.0, "force": atoms.get_forces().tolist(), "stress": np.zeros((3, 3)).tolist(),
            "magmom": [0.0] * 8, "mp_id": "mp-1", "bandgap": 5.0,
        }  # fmt: skip
    (path / "a.json").write_text(json.dumps({"mp-1": frames}))
    return path / "a.json"


def hdf5(fill: Callable[[Any], None]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        with h5py.File(path / "a.h5", "w") as file:
            fill(file)
        return path / "a.h5"

    return write


WATER = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])


def spice(file: Any) -> None:
    group = file.create_group("water")
    group["atomic_numbers"], group["smiles"] = [8, 1, 1], ["O"]
    group["conformations"] = WATER[None] / 0.529177
    group["dft_total_energy"], group["dft_total_gradient"] = [-76.4], np.zeros((1, 3, 3))
    group["scf_dipole"] = np.zeros((1, 3))


def ani(file: Any) -> None:
    group = file.create_group("H2O")
    group["atomic_numbers"], group["coordinates"] = [8, 1, 1], WATER[None]
    group["wb97x_dz.energy"], group["wb97x_dz.forces"] = [-76.4], np.zeros((1, 3, 3))
    group["ccsd(t)_cbs.energy"], group["wb97x_dz.cm5_charges"] = [-76.3], np.zeros((1, 3))


def mace(file: Any) -> None:
    group = file.create_group("config_batch_0/config_0")
    group["atomic_numbers"], group["positions"] = [8, 1, 1], WATER
    values = group.create_group("properties")
    values["energy"], values["forces"], group["head"], group["weight"] = -14.0, np.zeros((3, 3)), "pbe", 1.0


def npz(path: Path) -> Path:
    np.savez(
        path / "a.npz", nuclear_charges=[8, 1, 1], coords=WATER[None], energies=[-47000.0], forces=np.zeros((1, 3, 3)),
        old_indices=[7],
    )  # fmt: skip
    return path / "a.npz"


def deepmd(path: Path) -> Path:
    import dpdata

    data = {
        "atom_names": ["O", "H"], "atom_numbs": [1, 2], "atom_types": np.array([0, 1, 1]), "orig": np.zeros(3),
        "cells": 9 * np.eye(3)[None], "coords": WATER[None], "energies": np.array([-14.0]), "nopbc": False,
        "forces": np.zeros((1, 3, 3)), "virials": np.zeros((1, 3, 3)),
    }  # fmt: skip
    dpdata.LabeledSystem(data=data).to("deepmd/npy", str(path / "a"))
    return path / "a"


def nvalchemi(path: Path) -> Path:
    """Write what `AtomicDataZarrWriter` of nvalchemi-toolkit writes; tests/exporters/test_nvalchemi.py has a file of its own."""
    import zarr

    group = zarr.create_group(path / "a.zarr")
    meta, core, custom = (group.create_group(name) for name in ("meta", "core", "custom"))
    for name, values in {
        "atoms_ptr": np.array([0, 3]), "edges_ptr": np.array([0, 0]), "samples_mask": np.ones(1, bool),
    }.items():  # fmt: skip
        meta.create_array(name, data=values)
    fields = {
        "atomic_numbers": np.array([8, 1, 1]), "positions": WATER, "forces": np.zeros((3, 3)), "energy": np.full((1, 1), -14.0),
        "charge": np.zeros((1, 1)), "spin": np.ones((1, 1)), "dipole": np.zeros((1, 3)), "charges": np.zeros(3),
        "velocities": np.ones((3, 3)),
    }  # fmt: skip
    for name, values in fields.items():
        core.create_array(name, data=values)
    custom.create_array("temperature", data=np.full((1, 1), 300.0))
    levels = {name: "atom" if len(values) == 3 else "system" for name, values in fields.items()}
    group.attrs.update({"num_samples": 1, "fields": {"core": levels, "custom": {"temperature": "system"}}})
    return path / "a.zarr"


def atompack(path: Path) -> Path:
    from atompack import Database, from_ase

    database = Database(str(path / "a.atp"))
    for atoms in crystals():
        del atoms.calc.results["magmoms"], atoms.calc.results["dipole"]
        database.add_molecule(from_ase(atoms))
    database.flush()
    return path / "a.atp"


FORMATS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "store of this library": ("mlffstore", store),
    "release of this library": ("mlffstore", release),
    "extended XYZ": ("own parser, ASE for what is unusual", extxyz),
    "ASE database, aselmdb": ("ASE", database),
    "JSON of the Materials Project (MPtrj)": ("ijson", materials),
    "Parquet, Arrow (LeMaterial, ColabFit)": ("pyarrow", parquet),
    "HDF5 of SPICE": ("h5py", hdf5(spice)),
    "HDF5 of ANI-1x, ANI-2x": ("h5py", hdf5(ani)),
    "HDF5 of MACE": ("h5py", hdf5(mace)),
    "npz (rMD17, MD17, sGDML)": ("numpy", npz),
    "folders of DeePMD-kit": ("dpdata", deepmd),
    "Zarr of nvalchemi-toolkit": ("zarr-python", nvalchemi),
    "atompack": ("atompack", atompack),
}


def row(name: str) -> str:
    """Return the row of one format."""
    reader, write = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        report = ml.import_files(write(path), path / "imported", require=(), check_stress=False)
    cells: dict[str, list[str]] = {"kept": [], "converted": [], "left out": []}
    for use in report.keys:
        fate = {"renamed": "kept", "obeyed": "kept"}.get(use.fate, use.fate)
        text = f"`{use.name}`" + (f" → `{use.column}`" if use.column not in ("", use.name) else "")
        text += f" ({use.note})" if fate == "converted" and use.note else ""
        if text not in cells[fate]:
            cells[fate].append(text)
    shown = (", ".join(sorted(texts)) or "nothing" for texts in cells.values())
    return f"| {name} | {reader} | {' | '.join(shown)} |\n"


def page() -> str:
    """Return the page."""
    warnings.simplefilter("ignore")
    made = "".join(_row_or_old(name, row) for name in FORMATS)
    trips = "".join(
        _row_or_old(f"`{layout}`", lambda _, layout=layout: round_trips.row(layout)) for layout in round_trips.LAYOUTS
    )
    return HEAD + made + EXPORTS + round_trips.HEAD + trips + TAIL


def _row_or_old(name: str, make: Callable[[str], str]) -> str:
    try:
        return make(name)
    except ImportError as error:
        sys.stderr.write(f"{name}: {error}; the row stays as it is\n")
        return next((f"{line}\n" for line in PAGE.read_text().splitlines() if line.startswith(f"| {name} |")), "")


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"wrote {PAGE}\n")
