"""Options that were given count for formats of whole columns too, or are refused: nothing is passed over in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from ase import units as ase_units

import mlffstore as ml
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

P = np.array([[0, 0, 0], [0, 0, 0.74]])
CELLS = np.tile(np.eye(3) * 9, (2, 1, 1))
KEYS = {"positions": "pos", "numbers": "num", "energy": "en", "forces": "fo"}
#: One row of numbers for all structures, and one for each.
NUMBERS = pytest.mark.parametrize("numbers", [np.array([1, 1]), np.ones((2, 2), int)], ids=["once", "each"])


def imported(folder: Path, arrays: dict[str, Any], keys: dict[str, Any] | None = None, **options: Any) -> Any:
    given = {
        "pos": np.stack([P, P * 1.1]),
        "num": np.array([1, 1]),
        "en": np.arange(2.0),
        "fo": np.zeros((2, 2, 3)),
        **arrays,
    }
    np.savez(folder / "a.npz", **given)
    ml.import_files(folder / "a.npz", folder / "s.zarr", keys={**KEYS, **(keys or {})}, **options)
    return ml.open(folder / "s.zarr").snapshot().read()


@NUMBERS
@pytest.mark.parametrize(
    ("pbc", "expected"),
    [
        (None, [[True] * 3] * 2),
        (np.zeros((2, 3), bool), [[False] * 3] * 2),
        (np.array([1, 1, 0]), [[True, True, False]] * 2),
        (np.array([True, False]), [[True] * 3, [False] * 3]),
        (np.array(False), [[False] * 3] * 2),
    ],
)
def test_cell_and_pbc_of_npz(tmp_path: Path, numbers: Any, pbc: Any, expected: list[list[bool]]) -> None:
    arrays, keys = {"num": numbers, "c": CELLS}, {"cell": "c"}
    if pbc is not None:
        arrays, keys = {**arrays, "p": pbc}, {**keys, "pbc": "p"}
    batch = imported(tmp_path, arrays, keys)
    assert batch.pbc.tolist() == expected
    assert np.array_equal(batch.cell, np.where(np.any(expected, axis=1)[:, None, None], CELLS, 0.0))


@NUMBERS
def test_charge_and_multiplicity_of_npz(tmp_path: Path, numbers: Any) -> None:
    batch = imported(
        tmp_path, {"num": numbers, "q": np.array([1, -1]), "m": np.array([2, 2])}, {"charge": "q", "multiplicity": "m"}
    )
    assert batch.charge.tolist() == [1, -1]
    assert batch.multiplicity.tolist() == [2, 2]


@NUMBERS
def test_charge_and_multiplicity_under_names_in_use(tmp_path: Path, numbers: Any) -> None:
    batch = imported(tmp_path, {"num": numbers, "total_charge": np.array([1.0, 0.0]), "unpaired": np.array([1, 2])})
    assert batch.charge.tolist() == [1, 0]
    assert batch.multiplicity.tolist() == [2, 3]


@NUMBERS
def test_a_charge_for_all_of_npz(tmp_path: Path, numbers: Any) -> None:
    batch = imported(tmp_path, {"num": numbers}, charge=1, multiplicity=2)
    assert batch.charge.tolist() == [1, 1]
    assert batch.multiplicity.tolist() == [2, 2]


@pytest.mark.parametrize("shape", [(2, 6), (2, 9), (2, 3, 3)])
def test_sign_and_unit_of_a_stress_of_npz(tmp_path: Path, shape: tuple[int, ...]) -> None:
    stress = np.full(shape, 1.0)  # GPa
    batch = imported(
        tmp_path,
        {"c": CELLS, "s": stress},
        {"cell": "c", "stress": "s"},
        units={"stress": "GPa"},
        stress_sign="compression",
    )
    np.testing.assert_allclose(batch.stress, np.full((2, 6), -ase_units.GPa), rtol=1e-6)


def test_a_virial_of_npz(tmp_path: Path) -> None:
    batch = imported(tmp_path, {"c": CELLS, "w": np.full((2, 3, 3), 7.29)}, {"cell": "c", "virial": "w"})
    np.testing.assert_allclose(batch.stress, np.full((2, 6), -0.01), rtol=1e-6)


def test_the_cell_of_npz_has_the_unit_of_the_positions(tmp_path: Path) -> None:
    batch = imported(tmp_path, {"c": CELLS}, {"cell": "c"}, units={"positions": "bohr"})
    np.testing.assert_allclose(batch.cell, CELLS * ase_units.Bohr, rtol=1e-9)
    np.testing.assert_allclose(batch.positions[1, 2], 0.74 * ase_units.Bohr, rtol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "keys", "problem"),
    [
        ({"num": np.array([11.0, 17.5])}, {}, "'num': numbers: expected integers, got fractions"),
        ({"num": np.array(["H", "H"])}, {}, "'num': expected numbers for numbers, got an array of <U1"),
        ({"en": np.arange(2) + 1j}, {}, "'en': expected numbers for energy, got an array of complex128"),
        ({"en": np.arange(3.0)}, {}, "an energy for each of 2 structures"),
        ({"num": np.ones((2, 2), int), "fo": np.zeros((1, 2, 3))}, {}, r"expected forces of shape \(2, 2, '...'\)"),
        ({"num": np.ones((3, 2), int)}, {}, r"numbers of shape \(N,\) or \(S, N\)"),
        ({"p": np.array([0.5, 1, 1])}, {"pbc": "p"}, "'p': pbc: expected True and False"),
        ({"c": np.zeros((2, 6))}, {"cell": "c"}, "'c': expected a cell of shape"),
        ({"q": np.array([0.5, 1])}, {"charge": "q"}, "expected a whole number as charge"),
        ({"q": np.array([0, 1, 2])}, {"charge": "q"}, "'q': expected one number, or one for each of 2 structures"),
        ({"w": np.ones((2, 3, 3))}, {"virial": "w"}, "periodic in three directions"),
        ({"s": np.arange(18.0).reshape(2, 3, 3), "c": CELLS}, {"stress": "s", "cell": "c"}, "'s': stress: expected a symm"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, Any], keys: dict[str, str], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        imported(tmp_path, arrays, keys)
    assert not (tmp_path / "s.zarr").exists()


def ani(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("H2")
        group["atomic_numbers"], group["coordinates"] = [1, 1], np.stack([P, P * 1.1])
        group["m.energy"], group["m.forces"] = [-1.0, -1.1], np.zeros((2, 2, 3))
        group["m.dipole"] = np.array([[0, 0, 1.0], [0, 0, 2.0]])
    return path


def deepmd(path: Path) -> Path:
    folder = path / "set.000"
    folder.mkdir(parents=True)
    arrays = {
        "coord": P.reshape(1, 6), "box": np.eye(3).reshape(1, 9) * 9, "energy": [-1.0], "force": np.zeros((1, 6)),
        "virial": np.full((1, 9), 7.29),
    }  # fmt: skip
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", np.array(value))
    (path / "type.raw").write_text("0\n0\n")
    (path / "type_map.raw").write_text("H\n")
    return path


def test_units_of_every_label_of_ani(tmp_path: Path) -> None:
    ml.import_files(ani(tmp_path / "a.h5"), tmp_path / "s.zarr", units={"dipole": "Debye", "energy": "eV"})
    labels = ml.open(tmp_path / "s.zarr").snapshot().read().labels["m"]
    np.testing.assert_allclose(labels["dipole"][:, 2], [ase_units.Debye, 2 * ase_units.Debye], rtol=1e-6)
    assert labels["energy"].tolist() == [-1.0, -1.1]


def test_units_and_sign_of_deepmd(tmp_path: Path) -> None:
    pytest.importorskip("dpdata")
    ml.import_files(deepmd(tmp_path / "d"), tmp_path / "s.zarr", units={"energy": "hartree"}, stress_sign="compression")
    batch = ml.open(tmp_path / "s.zarr").snapshot().read()
    np.testing.assert_allclose(batch.energy, [-ase_units.Hartree], rtol=1e-9)
    np.testing.assert_allclose(batch.stress, np.full((1, 6), 0.01), rtol=1e-6)


@pytest.mark.parametrize("make", [ani, deepmd])
def test_names_are_refused_where_the_layout_has_its_own(tmp_path: Path, make: Any) -> None:
    with pytest.raises(DataError, match="expected no keys of energy for"):
        ml.import_files(make(tmp_path / "x.h5"), tmp_path / "s.zarr", keys={"energy": "nonexistent"})
