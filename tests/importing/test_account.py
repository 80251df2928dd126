"""Nothing that a file holds is left behind unnamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from ase.constraints import FixAtoms
from ase.db import connect

import mlffstore as ml
from mlffstore.errors import DataError
from tests.samples import labelled, metal_frames, molecule_frames

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms


def rich(n: int) -> list[Atoms]:
    """Return crystals with keys of every kind."""
    frames = metal_frames(n)
    for i, frame in enumerate(frames):
        frame.info.update(config_type="bulk", weight=0.5 * i, step=i, tensor_like=np.eye(3))
        frame.arrays["site"] = np.arange(len(frame))
        frame.calc.results["magmoms"] = np.linspace(0, 1, len(frame))
        frame.calc.results["dipole"] = np.array([0.0, 0.0, float(i)])
    return frames


def test_every_key_has_a_fate(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", rich(5))
    report = ml.import_files(tmp_path / "a.extxyz", tmp_path / "s")
    fates = {use.name: (use.fate, use.samples) for use in report.keys}
    fates.pop("initial_magmoms", None)  # ASE's, of nickel
    kept = {"energy", "forces", "stress", "magmoms", "dipole"}
    left = {"config_type", "weight", "step", "tensor_like", "site"}
    assert fates == dict.fromkeys(kept, ("kept", 5)) | dict.fromkeys(left, ("left out", 5))
    (warning,) = report.warnings
    assert all(name in warning for name in left)
    assert "columns={'weight': 'UNIT'}" in warning
    assert "columns={'config_type': '1'}" in warning
    assert set(ml.open(tmp_path / "s").provenance()[0]["import"]["left_out"]) >= left


def test_columns_on_request(tmp_path: Path) -> None:
    frames = rich(4)
    del frames[2].info["step"], frames[3].calc.results["magmoms"]
    ase.io.write(tmp_path / "a.extxyz", frames)
    columns = {"weight": "1", "step": "", "site": "", "magmoms": "", "dipole": ""}
    report = ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", columns=columns, batch_samples=3)
    assert "config_type" in report.warnings[0]
    assert " magmoms" not in report.warnings[0]
    snap = ml.open(tmp_path / "s").snapshot()
    user = {name: (column.axis, column.dtype, column.unit) for name, column in snap.user_columns.items()}
    assert user == {
        "weight": ("sample", "float64", "1"),
        "step": ("sample", "int64", "1"),
        "site": ("atom", "int64", "1"),
        "magmoms": ("atom", "float64", "Bohr magneton"),
        "dipole": ("sample", "float64", "e*angstrom"),
    }
    batch = snap.read()
    assert batch.columns["step"][[0, 1, 3]].tolist() == [0, 1, 3]
    assert batch.masks["step"].tolist() == [True, True, False, True]
    assert batch.columns["dipole"].tolist() == [[0, 0, float(i)] for i in range(4)]
    sizes = [len(frame) for frame in frames]
    assert batch.columns["site"].tolist() == [k for n in sizes for k in range(n)]
    assert np.isnan(batch.columns["magmoms"][-sizes[-1] :]).all()
    assert not np.isnan(batch.columns["magmoms"][: -sizes[-1]]).any()


def test_a_column_that_no_file_has_or_that_is_no_number(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", rich(2))
    with pytest.raises(DataError, match=r"columns: .*'weigth'"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", columns=["weigth"])
    frame = rich(1)[0]
    frame.info["nested"] = {"a": 1}
    ase.io.write(tmp_path / "b.traj", frame)
    with pytest.raises(DataError, match="'nested': expected numbers or strings for a column"):
        ml.import_files(tmp_path / "b.traj", tmp_path / "s", columns=["nested"])
    with pytest.raises(DataError, match="not a standard name"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", columns=["energy"])
    assert not (tmp_path / "s").exists()


def test_constraints_and_cells_of_molecules_are_named(tmp_path: Path) -> None:
    frames = molecule_frames(3)
    frames[0].set_constraint(FixAtoms([0]))
    frames[1].cell = [9, 9, 9]
    frames[1].calc.atoms = frames[1].copy()  # else ASE drops its results
    ase.io.write(tmp_path / "a.traj", frames)
    report = ml.import_files(tmp_path / "a.traj", tmp_path / "s")
    uses = {use.name: (use.place, use.fate, use.samples) for use in report.keys}
    assert uses["constraints"] == uses["cell"] == ("atoms", "left out", 1)
    assert "constraints (FixAtoms in 1 samples)" in report.warnings[0]


def test_data_of_a_database(tmp_path: Path) -> None:
    frame = molecule_frames(1)[0]
    with connect(tmp_path / "a.db") as database:
        database.write(frame, smiles="O", gap=0.3, data={"charges": np.arange(3.0), "nested": {"x": 1, "y": "z"}})
        database.metadata = {"title": "t"}
    report = ml.import_files(tmp_path / "a.db", tmp_path / "s")
    left = {use.name for use in report.keys if use.fate == "left out"}
    assert left == {"smiles", "gap", "charges", "nested.x", "nested.y"}
    assert any("metadata" in warning and "title" in warning for warning in report.warnings)


def test_schnetpack_layout(tmp_path: Path) -> None:
    frame = molecule_frames(1)[0]
    results = dict(frame.calc.results)
    frame.calc = None
    with connect(tmp_path / "a.db") as database:
        database.write(frame, data={"U0": np.array([results["energy"]]), "F": results["forces"]})
        database.metadata = {"_property_unit_dict": {"U0": "Hartree", "F": "eV/Ang"}, "_distance_unit": "Ang"}
    keys = {"energy": "U0", "forces": "F"}
    with pytest.raises(DataError, match=r"unit 'Hartree' of the energy: pass units=\{'energy': 'hartree'\}"):
        ml.import_files(tmp_path / "a.db", tmp_path / "s", keys=keys)
    ml.import_files(tmp_path / "a.db", tmp_path / "s", keys=keys, units={"energy": "hartree"})
    ours = ml.open(tmp_path / "s").snapshot()[0]
    assert ours.get_potential_energy() == pytest.approx(results["energy"] * 27.211386, rel=1e-7)  # CODATA, 8 digits
    np.testing.assert_allclose(ours.get_forces(), results["forces"], rtol=1e-6)


def test_free_energy_beside_energy(tmp_path: Path) -> None:
    frames = metal_frames(3)
    for frame in frames:
        frame.calc.results["free_energy"] = frame.calc.results["energy"] - 0.01
    ase.io.write(tmp_path / "a.traj", frames)
    report = ml.import_files(tmp_path / "a.traj", tmp_path / "s")
    assert any("differ by up to 0.01 eV" in warning and "'free_energy'" in warning for warning in report.warnings)
    ml.import_files(tmp_path / "a.traj", tmp_path / "t", keys={"energy": "free_energy"})
    energies = [ml.open(tmp_path / name).snapshot().read().energy for name in "st"]
    np.testing.assert_allclose(energies[1], energies[0] - 0.01, atol=1e-12)
    same = metal_frames(1)[0]
    same.calc.results["free_energy"] = same.calc.results["energy"]
    ase.io.write(tmp_path / "b.traj", same)
    assert ml.import_files(tmp_path / "b.traj", tmp_path / "u").warnings == ()


def test_labels_are_not_made_of_flags_or_other_shapes(tmp_path: Path) -> None:
    atoms = labelled(molecule_frames(1)[0], -1.0, np.zeros((3, 3)))
    results = atoms.calc.results
    del results["forces"]
    atoms.info["has_forces"] = True
    atoms.arrays["force_mask"] = np.ones(3)
    atoms.arrays["total_forces"] = np.zeros(3)
    ase.io.write(tmp_path / "a.traj", atoms)
    with pytest.raises(DataError) as caught:
        ml.import_files(tmp_path / "a.traj", tmp_path / "s")
    assert "expected forces, got none; name what holds them" in str(caught.value)
