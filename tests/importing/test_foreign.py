"""Files that other programs and people wrote: counts and labels are those of the format's own reader.

benchmarks/foreign_files.py does the same with more of them, whose recorded table is docs/reference/foreign_files.md.
"""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from ase.db import connect

import mlffstore as ml
from benchmarks.foreign_files import of_pymatgen

REAL = Path(__file__).parents[1] / "data" / "real"


def test_a_database_of_schnetpack(tmp_path):
    file = REAL / "schnetpack_qm9.db"
    report = ml.import_files(
        file, tmp_path / "s", keys={"energy": "energy_U0"}, units={"energy": "hartree"}, require=("energy",),
        columns={"gap": "hartree"}, create_options={"precision": "float64"},
    )  # fmt: skip
    batch = ml.open(tmp_path / "s").snapshot().read()
    with connect(file) as rows:
        theirs = list(rows.select())
    assert report.samples == len(theirs) == 20
    for i, row in enumerate(theirs):
        atoms = slice(batch.offsets[i], batch.offsets[i + 1])
        assert np.array_equal(batch.numbers[atoms], row.numbers)
        assert np.array_equal(batch.positions[atoms], row.positions)
        assert batch.energy[i] == pytest.approx(row.data["energy_U0"].item() * units.Hartree, rel=1e-12)
        assert batch.columns["gap"][i] == row.data["gap"].item()


def test_the_unit_that_schnetpack_states_is_asked_for(tmp_path):
    with pytest.raises(ml.errors.DataError, match="states the unit 'Ha'"):
        ml.import_files(
            REAL / "schnetpack_qm9.db", tmp_path / "s", keys={"energy": "energy_U0"}, require=("energy",)
        )  # fmt: skip


def test_aspirin_of_mlip(tmp_path):
    report = ml.import_files(REAL / "mlip_aspirin.xyz", tmp_path / "s")
    frames = ase.io.read(REAL / "mlip_aspirin.xyz", ":")
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert report.samples == len(frames) == 2
    assert batch.energy.tolist() == [atoms.get_potential_energy() for atoms in frames]
    forces = np.concatenate([atoms.get_forces() for atoms in frames])
    np.testing.assert_allclose(batch.forces, forces, rtol=1e-6)
    assert batch.charge.tolist() == [atoms.info["charge"] for atoms in frames]
    assert batch.multiplicity.tolist() == [atoms.info["spin"] for atoms in frames]


@pytest.mark.parametrize("name", ["Li2O", "LiFePO4", "VO2"])  # the last is of a class TransformedStructure
def test_structures_of_pymatgen(name, tmp_path):
    pytest.importorskip("ijson")
    util = pytest.importorskip("pymatgen.util")
    file = Path(util.__path__[0]) / "structures" / f"{name}.json"
    report = ml.import_files(file, tmp_path / "s", require=(), create_options={"precision": "float64"})
    assert (report.samples, report.atoms) == of_pymatgen(file)[:2]
    from pymatgen.core import Structure

    theirs, batch = Structure.from_file(file), ml.open(tmp_path / "s").snapshot().read()
    assert batch.numbers.tolist() == [site.specie.Z for site in theirs]
    np.testing.assert_allclose(batch.cell[0], theirs.lattice.matrix, atol=1e-12)
    np.testing.assert_allclose(batch.positions, theirs.cart_coords, atol=1e-12)


@pytest.mark.parametrize("labelled", [True, False])
def test_arrays_of_deepmd_that_are_not_read_are_named(labelled, tmp_path):
    """The examples of DeePMD-kit for properties have `band_prop.npy` and no energies."""
    dpdata = pytest.importorskip("dpdata")
    data = {
        "atom_names": ["O", "H"], "atom_numbs": [1, 2], "atom_types": np.array([0, 1, 1]), "orig": np.zeros(3),
        "cells": 9 * np.eye(3)[None], "coords": np.arange(9.0).reshape(1, 3, 3), "nopbc": False,
    }  # fmt: skip
    if labelled:
        data |= {"energies": np.array([-14.0]), "forces": np.zeros((1, 3, 3))}
    kind = dpdata.LabeledSystem if labelled else dpdata.System
    kind(data=data).to("deepmd/npy/mixed", str(tmp_path / "d"))
    for folder in (tmp_path / "d").rglob("set.*"):
        np.save(folder / "band_prop.npy", np.zeros((1, 3)))
    report = ml.import_files(tmp_path / "d", tmp_path / "s", require=("energy",) if labelled else ())
    assert report.samples == 1
    assert [use.name for use in report.keys if use.fate == "left out"] == ["band_prop"]
