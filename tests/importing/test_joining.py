"""Labels of a second method join the structures that a store has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

import mlffstore as ml
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def frames(shift: float = 0.0) -> list[Atoms]:
    """Return molecules and crystals whose labels follow from the structure, moved by `shift`."""
    out = []
    for i in range(8):
        atoms = molecule("CH3OH") if i % 2 else bulk("NaCl", "rocksalt", 5.6, cubic=True)
        atoms.rattle(0.1, seed=i)
        out.append(labelled(atoms, shift))
    return out


def labelled(atoms: Atoms, shift: float) -> Atoms:
    atoms.calc = SinglePointCalculator(
        atoms, energy=float(atoms.positions.sum()) + shift, forces=atoms.positions + atoms.numbers[:, None] + shift
    )
    return atoms


def imported(path: Path, given: list[Atoms], store: Path, **options: Any) -> Any:
    ase.io.write(path, given)
    return ml.import_files(path, store, **options)


@pytest.mark.parametrize("present", [False, True])
def test_equal_structures(tmp_path: Path, present: bool) -> None:
    given = frames()
    imported(tmp_path / "a.traj", given, tmp_path / "s", teacher="pbe", batch_samples=3)
    other = frames(-1.0)[::-1]
    if present:  # some samples have labels of the teacher already: segments are written anew
        imported(tmp_path / "c.traj", other[:3], tmp_path / "s", teacher="r2scan", match="structure")
    strange = labelled(molecule("CH4"), 0.0)
    report = imported(tmp_path / "b.traj", [strange, *other], tmp_path / "s", teacher="r2scan", match="structure")
    assert report.samples == 0
    assert report.joined == (5 if present else 8)
    assert report.unmatched == ("b.traj, frame 0",)
    snap = ml.open(tmp_path / "s").snapshot()
    batch = snap.read()
    assert len(batch) == 8
    np.testing.assert_allclose(batch.label("energy", "r2scan") - batch.label("energy", "pbe"), -1.0)
    np.testing.assert_allclose(batch.label("forces", "r2scan") - batch.label("forces", "pbe"), -1.0, atol=1e-5)
    again = ml.import_files(tmp_path / "b.traj", tmp_path / "s", teacher="r2scan", match="structure")
    assert (again.joined, again.versions, len(again.unmatched)) == (0, (), 1)
    with pytest.raises(DataError, match="got other values than it has of r2scan"):
        imported(tmp_path / "d.traj", frames(-2.0), tmp_path / "s", teacher="r2scan", match="structure")
    assert ml.open(tmp_path / "s").version == snap.version


def test_tolerance_and_order(tmp_path: Path) -> None:
    imported(tmp_path / "a.traj", frames(), tmp_path / "s", teacher="pbe")
    rng = np.random.default_rng(0)
    other = []
    for atoms in frames(-1.0):
        order = rng.permutation(len(atoms))
        forces = atoms.get_forces()[order]
        moved = atoms[order]
        moved.positions += rng.uniform(-0.004, 0.004, moved.positions.shape)
        if moved.pbc.any():  # the same atoms in another image
            moved.positions += rng.integers(-1, 2, (len(moved), 3)) @ moved.cell.array
        moved.calc = SinglePointCalculator(moved, energy=atoms.get_potential_energy(), forces=forces)
        other.append(moved)
    exact = imported(tmp_path / "b.traj", other, tmp_path / "s", teacher="x", match="structure")
    assert (exact.joined, len(exact.unmatched)) == (0, 8)
    report = imported(tmp_path / "b.traj", other, tmp_path / "s", teacher="x", match="structure", tolerance=0.01)
    assert (report.joined, report.unmatched) == (8, ())
    batch = ml.open(tmp_path / "s").snapshot().read()
    np.testing.assert_allclose(batch.label("forces", "x") - batch.label("forces", "pbe"), -1.0, atol=1e-5)
    turned = frames(-1.0)[1]
    turned.rotate(5, "z")
    labelled(turned, 0.0)
    report = imported(tmp_path / "c.traj", [turned], tmp_path / "s", teacher="y", match="structure", tolerance=0.02)
    assert report.unmatched == ("c.traj, frame 0: no structure within 0.02 angstrom",)


def test_two_candidates_are_none(tmp_path: Path) -> None:
    one, two = frames()[1], frames()[1]
    two.positions[0, 0] += 0.01
    labelled(two, 0.0)
    imported(tmp_path / "a.traj", [one, two], tmp_path / "s", teacher="pbe")
    report = imported(tmp_path / "b.traj", [one], tmp_path / "s", teacher="x", match="structure", tolerance=0.05)
    assert report.joined == 1  # equal bit for bit
    one.positions[0, 0] += 0.004
    labelled(one, 0.0)
    report = imported(tmp_path / "b.traj", [one], tmp_path / "s", teacher="y", match="structure", tolerance=0.05)
    assert report.unmatched == ("b.traj, frame 0: 2 structures within 0.05 angstrom",)
    three = labelled(molecule("H2O"), 0.0)
    four = labelled(molecule("H2O"), 1.0)
    imported(tmp_path / "c.traj", [three], tmp_path / "s", teacher="pbe")
    with pytest.raises(DataError, match=r"frame 0 and .*frame 1 have the same structure and other labels"):
        imported(tmp_path / "d.traj", [three, four], tmp_path / "s", teacher="z", match="structure")
