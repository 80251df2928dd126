"""SPICE's HDF5 layout: whole molecules are read as arrays, and every data set is kept or named."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

import mlffstore as ml
from mlffstore.data.units import factor
from mlffstore.errors import DataError, UnitError

if TYPE_CHECKING:
    from collections.abc import Mapping

BOHR, HARTREE = factor("positions", "bohr"), factor("energy", "hartree")


def test_spice_layout(real: Path, tmp_path: Path) -> None:
    with h5py.File(real / "spice_des_monomers.hdf5") as source, h5py.File(tmp_path / "a.hdf5", "w") as part:
        for name in list(source)[::10]:
            source.copy(name, part)
        chosen = [np.asarray(group["conformations"]) for group in part.values()]
    report = ml.import_files(tmp_path / "a.hdf5", tmp_path / "s", require=(), batch_samples=7)
    assert report.samples == 3 * len(chosen)
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert len(set(batch.root.tolist())) == len(chosen)
    assert batch.root.reshape(-1, 3).tolist() == [[first] * 3 for first in batch.content_hash[::3].tolist()]
    assert set(batch.source) == {"spice"}
    # This file says nanometers, unlike the published ones (bohr); float32 on both sides
    np.testing.assert_allclose(batch.positions, 10 * np.concatenate([x.reshape(-1, 3) for x in chosen]), rtol=1e-6)


def spice(path: Path, scale: float, unit: str | None) -> Path:
    water = molecule("H2O")
    with h5py.File(path, "w") as file:
        group = file.create_group("water")
        group["atomic_numbers"] = water.numbers
        group["conformations"] = water.positions[None] * scale
        group["dft_total_energy"] = [-76.4]
        group["dft_total_gradient"] = np.full((1, 3, 3), 0.01)
        if unit:
            group["conformations"].attrs["units"] = unit
    return path


def test_spice_labels_and_units(tmp_path: Path) -> None:
    ml.import_files(spice(tmp_path / "a.h5", 1 / 0.529177210903, None), tmp_path / "s", teacher="wb97m")
    frame = ml.open(tmp_path / "s").snapshot()[0]
    assert frame.get_potential_energy() == pytest.approx(-76.4 * 27.211386, abs=1e-4)  # CODATA, eight digits
    np.testing.assert_allclose(frame.get_forces(), -0.01 * 51.422067, rtol=1e-6)
    np.testing.assert_allclose(frame.positions, molecule("H2O").positions, atol=1e-6)
    with pytest.raises(DataError, match=r"b\.h5, molecule 'water': expected the closest atoms"):
        ml.import_files(spice(tmp_path / "b.h5", 1 / 0.529177210903, "nanometers"), tmp_path / "t")
    with pytest.raises(UnitError, match="parsec"):
        ml.import_files(spice(tmp_path / "c.h5", 1.0, "parsec"), tmp_path / "t")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(DataError, match="of SPICE"):
        ml.import_files(tmp_path / "d.h5", tmp_path / "t")


def group(name: str, n: int, **more: Any) -> dict[str, Any]:
    """Return the data sets of n conformations of a molecule of ASE, in bohr and hartree."""
    atoms, rng = molecule(name), np.random.default_rng(n)
    shape = (n, len(atoms), 3)
    return {
        "atomic_numbers": atoms.numbers, "conformations": (atoms.positions + rng.normal(0, 0.02, shape)) / BOHR,
        "dft_total_energy": rng.normal(-40, 1, n), "dft_total_gradient": rng.normal(0, 0.02, shape),
    } | more  # fmt: skip


def write(path: Path, molecules: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write a file in SPICE's layout; a data set that is None is left out."""
    with h5py.File(path, "w") as file:
        for name, sets in molecules.items():
            for key, value in sets.items():
                if value is not None:
                    file[f"{name}/{key}"] = value
    return path


def test_molecules_equal_their_frames_one_by_one(tmp_path: Path) -> None:
    names = {"water": ("H2O", 5), "methane": ("CH4", 1), "methanol": ("CH3OH", 13), "oh": ("OH", 4)}
    given = {key: group(*value) for key, value in names.items()}
    frames = []
    for key in sorted(given):
        sets = given[key]
        for x, energy, gradient in zip(
            sets["conformations"], sets["dft_total_energy"], sets["dft_total_gradient"], strict=True
        ):
            atoms = Atoms(sets["atomic_numbers"], x * BOHR)
            atoms.calc = SinglePointCalculator(atoms, energy=energy * HARTREE, forces=-gradient * HARTREE / BOHR)
            frames.append(atoms)
    ase.io.write(tmp_path / "a.traj", frames)
    ml.import_files(tmp_path / "a.traj", tmp_path / "one", create_options={"precision": "float64"})
    expected = ml.open(tmp_path / "one").snapshot().read()
    for size in (1, 4, 6, 2048):  # molecules are cut at the ends of blocks
        store = tmp_path / str(size)
        report = ml.import_files(
            write(tmp_path / "a.h5", given), store, batch_samples=size, create_options={"precision": "float64"}
        )
        batch = ml.open(store).snapshot().read()
        assert (report.samples, report.atoms) == (len(frames), expected.n_atoms_total)
        for name in ("content_hash", "numbers", "charge", "multiplicity", "positions"):
            assert np.array_equal(batch.columns[name], expected.columns[name]), name
        np.testing.assert_allclose(batch.energy, expected.energy, rtol=1e-14)
        np.testing.assert_allclose(batch.forces, expected.forces, rtol=1e-6)
        starts = np.cumsum([0, *(len(given[key]["conformations"]) for key in sorted(given))])
        for low, high in itertools.pairwise(starts):
            assert set(batch.root[low:high].tolist()) == {int(batch.content_hash[low])}
        assert {(use.name, use.fate, use.column, use.samples) for use in report.keys} == {
            ("dft_total_energy", "converted", "energy", 23), ("dft_total_gradient", "converted", "forces", 23),
        }  # fmt: skip


def test_data_sets_are_kept_or_named(tmp_path: Path) -> None:
    sets = {
        "a": group("H2O", 4, smiles="[O:1]([H:2])[H:3]", dipole=np.arange(12.0).reshape(4, 3), subset="DES", k=3),
        "b": group("CH4", 2, dipole=np.ones((2, 3)), populations=np.arange(10).reshape(2, 5), k=5),
    }
    path = write(tmp_path / "a.h5", sets)
    report = ml.import_files(path, tmp_path / "s")
    left = {use.name: (use.note, use.samples) for use in report.keys if use.fate == "left out"}
    assert left == {
        "smiles": ("text", 4), "subset": ("text", 4), "dipole": ("numbers per conformation", 6),
        "populations": ("numbers per conformation", 2), "k": ("a number per molecule", 6),
    }  # fmt: skip
    assert "columns={'populations': 'UNIT'} keeps it" in report.warnings[0]
    assert "keys={'dipole': 'dipole'} takes it as a label" in report.warnings[0]
    columns = {"dipole": "e*angstrom", "populations": "e", "k": "1"}
    report = ml.import_files(path, tmp_path / "t", columns=columns)
    assert {use.name for use in report.keys if use.fate == "left out"} == {"smiles", "subset"}
    snap = ml.open(tmp_path / "t").snapshot()
    assert {name: (column.axis, column.unit) for name, column in snap.user_columns.items()} == {
        "dipole": ("sample", "e*angstrom"), "populations": ("atom", "e"), "k": ("sample", "1"),
    }  # fmt: skip
    batch = snap.read()
    assert batch.columns["dipole"].tolist() == [*sets["a"]["dipole"].tolist(), [1.0] * 3, [1.0] * 3]
    assert batch.columns["populations"][-10:].tolist() == list(range(10))
    assert batch.masks["populations"].tolist() == [False] * 12 + [True] * 10
    assert batch.columns["k"].tolist() == [3, 3, 3, 3, 5, 5]
    with pytest.raises(DataError, match=r"'subset': expected numbers per conformation for a column, got text"):
        ml.import_files(path, tmp_path / "u", columns=["subset"])


def test_missing_labels_are_not_numbers(tmp_path: Path) -> None:
    energy = np.array([-40.0, np.nan, -41.0])
    path = write(
        tmp_path / "a.h5",
        {"a": group("CH4", 3, dft_total_energy=energy), "b": group("H2O", 2, dft_total_gradient=None)},
    )
    with pytest.raises(DataError, match=r"molecule 'a', conformation 1: expected energy, got none; require=\(\)"):
        ml.import_files(path, tmp_path / "s")
    report = ml.import_files(path, tmp_path / "s", on_error="quarantine")
    assert (report.samples, report.rejected) == (2, 3)
    assert any("molecule 'b', conformation 0, molecule 'b', conformation 1: " in text for text in report.reasons)
    report = ml.import_files(path, tmp_path / "t", require=())
    counts = {use.column: use.samples for use in report.keys}
    assert counts == {"energy": 4, "forces": 3}
    batch = ml.open(tmp_path / "t").snapshot().read()
    assert np.isnan(batch.energy).tolist() == [False, True, False, False, False]
    assert np.isnan(batch.forces[-6:]).all()
    atom = {"atomic_numbers": [18], "conformations": np.zeros((2, 1, 3)), "dft_total_energy": [-1.0, -1.0]}
    report = ml.import_files(write(tmp_path / "c.h5", {"argon": atom}), tmp_path / "u")
    assert report.samples == 2
    assert any("2 samples of a single atom have no forces" in text for text in report.warnings)


def test_charge_and_multiplicity_of_data_sets(tmp_path: Path) -> None:
    states = {
        "a": group("OH", 2, total_charge=-1), "b": group("O2", 2, multiplicity=[3, 3]), "c": group("H2O", 1),
        "d": group("OH", 1, smiles="[O-][H]"),
    }  # fmt: skip
    path = write(tmp_path / "a.h5", states)
    report = ml.import_files(path, tmp_path / "s")
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert batch.charge.tolist() == [-1, -1, 0, 0, 0, -1]
    assert batch.multiplicity.tolist() == [1, 1, 3, 3, 1, 1]
    uses = {
        (use.name, use.fate, use.column, use.samples) for use in report.keys if use.column in ("charge", "multiplicity")
    }
    assert uses == {
        ("total_charge", "renamed", "charge", 2), ("multiplicity", "kept", "multiplicity", 2),
        ("formal charge", "renamed", "charge", 1),
    }  # fmt: skip
    assert (
        ml.import_files(path, tmp_path / "t", keys={"charge": None}, charge=1, on_error="quarantine").samples == 4
    )  # not O2+
    assert set(ml.open(tmp_path / "t").snapshot().read().charge.tolist()) == {1}
    for sets, text in (
        ({"charge": -1, "smiles": "[O][H]"}, "expected one charge, got -1 and 0 of the SMILES"),
        ({"charge": [0, -1]}, "expected a whole number as charge"),
        ({"multiplicity": 1}, "forbid the multiplicity 1"),
    ):
        with pytest.raises(DataError, match=text):
            ml.import_files(write(tmp_path / "b.h5", {"x": group("OH", 2, **sets)}), tmp_path / "u")


@pytest.mark.parametrize(
    ("sets", "text"),
    [
        ({"conformations": np.zeros((0, 5, 3))}, "expected conformations of shape"),
        ({"conformations": np.zeros((2, 4, 3))}, r"expected conformations of shape \(C, 5, 3\), got \(2, 4, 3\)"),
        ({"conformations": "five"}, "expected numbers as 'conformations'"),
        ({"dft_total_energy": np.zeros(3)}, r"expected 'dft_total_energy' of shape \(2,\)"),
        ({"dft_total_gradient": np.zeros((2, 15))}, "expected 'dft_total_gradient' of shape"),
        ({"atomic_numbers": [6.5, 1, 1, 1, 1]}, "expected atomic numbers"),
        ({"atomic_numbers": None}, "expected 'atomic_numbers' or 'smiles'"),
        ({"atomic_numbers": [6, 1, 1, 1, 200]}, "expected atomic numbers from 1 to 118"),
    ],
)
def test_a_group_of_another_shape_is_refused(sets: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"a.h5, molecule 'x'.*{text}|molecule 'x'.*: {text}"):
        ml.import_files(write(tmp_path / "a.h5", {"w": group("H2O", 1), "x": group("CH4", 2, **sets)}), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_damaged_file_names_the_molecule(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for key, value in group("CH4", 40).items():
            file.create_dataset(f"m/{key}", data=value, chunks=value.shape, fletcher32=True)
        where = file["m/dft_total_gradient"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[where + 100] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match=r"molecule 'm': expected data sets, got one that h5py cannot read"):
        ml.import_files(path, tmp_path / "s")


@pytest.mark.parametrize("option", [{"split": "key"}, {"source": "info:name"}, {"root": "info:name"}])
def test_options_that_take_something_of_each_frame_are_refused(tmp_path, option):
    path = Path(__file__).parents[1] / "data" / "real" / "spice_des_monomers.hdf5"
    (name,) = option
    with pytest.raises(ml.errors.MlffstoreError, match=f"^{name}: .*SPICE's layout"):
        ml.import_files(path, tmp_path / "d.zarr", **option)
    assert not (tmp_path / "d.zarr").exists()
