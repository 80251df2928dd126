"""A stress of the wrong sign or unit is refused, a right one is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

import mlffstore as ml
from mlffstore.errors import DataError
from tests.samples import labelled

if TYPE_CHECKING:
    from pathlib import Path


def strained(
    seed: int = 0, factor: float = 1.0, spread: float = 0.03, symbols: tuple[str, ...] = ("Cu",)
) -> list[Atoms]:
    """Return rattled crystals of several volumes, with EMT's labels and the stress times `factor`."""
    rng = np.random.default_rng(seed)
    frames = []
    for symbol in symbols:
        for _ in range(12):
            atoms = bulk(symbol, cubic=True)
            atoms.set_cell(atoms.cell * (1 + rng.uniform(-spread, spread)), scale_atoms=True)
            atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
            frames.append(emt(atoms, factor))
    return frames


def emt(atoms: Atoms, factor: float = 1.0) -> Atoms:
    atoms.calc = EMT()
    return labelled(atoms, atoms.get_potential_energy(), atoms.get_forces(), factor * atoms.get_stress())


def load(tmp_path: Path, frames: list[Atoms], **options: object) -> ml.import_files:
    ase.io.write(tmp_path / "a.traj", frames)
    return ml.import_files(tmp_path / "a.traj", tmp_path / "s", **options)


@pytest.mark.parametrize("spread", [0.005, 0.03, 0.1])
def test_right_and_reversed(tmp_path: Path, spread: float) -> None:
    assert load(tmp_path, strained(spread=spread, symbols=("Cu", "Al", "Pt")), root="file").warnings == ()
    with pytest.raises(DataError, match=r"a\.traj(.|\n)*stress_sign='compression'"):
        load(tmp_path, strained(factor=-1, spread=spread))


def test_sign_is_flipped_and_the_check_can_be_switched_off(tmp_path: Path) -> None:
    right = strained()
    load(tmp_path, strained(factor=-1), stress_sign="compression")
    for ours, theirs in zip(ml.open(tmp_path / "s").snapshot(), right, strict=True):
        np.testing.assert_allclose(ours.get_stress(), theirs.get_stress(), rtol=1e-6, atol=1e-9)
    with pytest.raises(DataError, match="stress_sign='tension'"):
        load(tmp_path, right, stress_sign="compression")
    assert load(tmp_path, strained(factor=-1), check_stress=False).samples == 12


@pytest.mark.parametrize("sign", [1, -1])
def test_gigapascal(tmp_path: Path, sign: int) -> None:
    frames = strained(factor=sign / units.GPa)
    with pytest.raises(DataError, match=r"units={'stress': 'GPa'} \(\d+ GPa would be plausible\)") as caught:
        load(tmp_path, frames)
    assert ("stress_sign='compression'" in str(caught.value)) == (sign < 0)
    load(tmp_path, frames, units={"stress": "GPa"}, stress_sign="tension" if sign > 0 else "compression")


def test_one_volume_in_gigapascal(tmp_path: Path) -> None:
    frames = []
    for i in range(6):
        atoms = bulk("Cu", a=3.4, cubic=True)
        atoms.rattle(0.02, seed=i)
        frames.append(emt(atoms, 1 / units.GPa))
    with pytest.raises(DataError, match="in most samples"):
        load(tmp_path, frames)


def test_the_wrong_sign_shows_across_blocks_and_files(tmp_path: Path) -> None:
    frames = strained(factor=-1)
    for i in range(12):
        ase.io.write(tmp_path / f"{i}.traj", frames[i])
    with pytest.raises(DataError, match="compression"):
        ml.import_files([tmp_path / f"{i}.traj" for i in range(12)], tmp_path / "s")


def test_no_false_alarm(tmp_path: Path) -> None:
    """Vacuum dilutes a slab's stress as 1/V; phases at rest have stresses that say nothing; stretched crystals yield."""
    slabs = []
    for vacuum in np.linspace(4, 14, 12):
        slab = fcc111("Cu", (1, 1, 4), vacuum=vacuum)
        slab.pbc = True
        slabs.append(emt(slab))
    load(tmp_path, slabs)
    rng = np.random.default_rng(1)
    rest = [labelled(bulk("Cu", a=a), 0.0, np.zeros((1, 3)), rng.normal(0, 1e-4, 6)) for a in rng.uniform(3.5, 4.1, 40)]
    load(tmp_path, rest)
    load(tmp_path, [emt(bulk("Cu", a=a)) for a in np.linspace(3.6, 5.2, 20)])  # far beyond the ideal strength
    zero = load(tmp_path, [labelled(f, 0.0, np.zeros((4, 3)), np.zeros(6)) for f in strained()])
    assert "exactly zero" in zero.warnings[0]
