"""Devices, options and electrons that cannot be are told of, and cells that are only written unusually are labelled."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import mlffstore as ml
from mlffstore.errors import TeacherError
from tests.command import cli

if TYPE_CHECKING:
    from pathlib import Path

TEACHERS = [
    name for name, package in (("chgnet", "chgnet"), ("sevennet-0", "sevenn")) if importlib.util.find_spec(package)
]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_device_that_is_not_there(tmp_path: Path, teacher: str) -> None:
    store = ml.create(tmp_path / "s")
    store.append([bulk("Cu", cubic=True)], require=())
    done = cli("label", store.url, "-t", teacher, "-O", "device=cdua", "--no-recheck", code=3)
    assert f"{teacher}: expected a device that torch has here" in done.stderr
    assert store.version == 1
    batch = store.snapshot().read()
    with pytest.raises(TeacherError, match="device='cdua'"):
        ml.get_teacher(teacher, device="cdua").hessian_product(batch, batch.positions)


# -- numbers, charges and cells that mislead a teacher -----------------------------------------------------------


def test_a_left_handed_cell_has_the_same_stress() -> None:
    """The volume is positive, whatever the order of the vectors: compressed rock salt pushes outwards."""
    crystal = bulk("NaCl", "rocksalt", a=5.0, cubic=True)
    left = Atoms(crystal.numbers, crystal.positions, cell=crystal.cell.array[[1, 0, 2]], pbc=True)
    labels = ml.get_teacher("chgnet").label(ml.SampleBatch.from_ase([crystal, left]))
    assert labels.stress is not None
    assert (labels.stress[:, :3] < 0).all()
    np.testing.assert_allclose(labels.stress[0], labels.stress[1], atol=1e-6)


@pytest.mark.parametrize(
    ("formula", "charge", "multiplicity", "words"),
    [
        ("Mg", 4, 1, "takes more than the 2 valence electrons"),
        ("OH2", 10, 1, "takes more than the 8 valence electrons"),
        ("OH2", 1, 1, "forbid the multiplicity 1"),
        ("H", -3, 1, "orbitals cannot hold the charge -3"),
        ("OH2", 1, 2, ""),
        ("OH", -1, 1, ""),
        ("Zn", 1, 2, ""),
        ("Na", 1, 1, ""),
    ],
)
def test_electrons_that_cannot_be_are_refused(formula: str, charge: int, multiplicity: int, words: str) -> None:
    atoms = Atoms(formula, [[i, 0.3 * i * i, 0] for i in range(len(Atoms(formula)))])
    atoms.info.update(charge=charge, multiplicity=multiplicity)
    labels = ml.get_teacher("gfn2-xtb").label(ml.SampleBatch.from_ase([atoms]))
    assert labels.ok[0] == (not words)
    assert words in labels.reasons[0]


@pytest.mark.parametrize("options", [{"batch_atoms": 2.5}, {"batch_atoms": 0}, {"batch_atoms": "4"}])
def test_options_that_count_are_whole(options: dict[str, Any]) -> None:
    with pytest.raises(TeacherError, match="chgnet: batch_atoms: expected"):
        ml.get_teacher("chgnet", **options)


@pytest.mark.parametrize("options", [{"max_iterations": 2.5}, {"accuracy": float("nan")}])
def test_options_of_xtb(options: dict[str, Any]) -> None:
    with pytest.raises(TeacherError, match="gfn2-xtb: "):
        ml.get_teacher("gfn2-xtb", **options)
