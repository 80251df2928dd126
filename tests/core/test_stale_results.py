"""Results of a calculator become labels of the structure that they were computed for, and of no other."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.importing.frames import Results


def crystals(n: int) -> list:
    frames = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    return frames


def computed(atoms, calc=None):
    atoms.calc = EMT() if calc is None else calc
    atoms.get_potential_energy()
    atoms.get_forces()
    return atoms


def test_frames_that_share_a_calculator_are_refused(tmp_path):
    calc, store = EMT(), ml.create(tmp_path / "d.zarr")
    shared = [computed(atoms, calc) for atoms in crystals(4)]
    with pytest.raises(DataError, match="give each frame a SinglePointCalculator") as caught:
        store.append(shared, teacher="emt")
    assert [f"sample {i}:" in str(caught.value) for i in range(4)] == [True, True, True, False]
    with store.writer(teacher="emt") as writer, pytest.raises(DataError, match="sample 0"):
        writer.add(shared)
    assert len(store) == 0
    apart = [computed(atoms) for atoms in crystals(4)]
    store.append(apart, teacher="emt")
    assert store.snapshot().read().energy.tolist() == [atoms.get_potential_energy() for atoms in apart]


def swap(atoms):
    atoms.numbers[0] = 47


def stretch(atoms):
    atoms.set_cell(1.01 * atoms.cell)


def open_up(atoms):
    atoms.pbc = (True, True, False)


@pytest.mark.parametrize("kind", ["live", "single point"])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (swap, "other numbers"),
        (lambda atoms: atoms.rattle(1e-9), "other positions"),
        (stretch, "other cell"),
        (open_up, "other pbc"),
        (lambda atoms: atoms.pop(), "3 atoms, got those of a structure of 4"),
    ],
)
def test_frames_that_were_changed_after_the_calculation_are_refused(kind, change, what):
    good, bad = (computed(atoms) for atoms in crystals(2))
    if kind == "single point":
        bad.calc = SinglePointCalculator(bad, **bad.calc.results)
    change(bad)
    with pytest.raises(DataError, match=rf"sample 1: .*{what}") as caught:
        ml.SampleBatch.from_ase([good, bad])
    assert "sample 0" not in str(caught.value)


def test_what_says_nothing_of_a_structure_or_is_the_same_is_taken():
    atoms = crystals(1)[0]
    atoms.calc = Results({"energy": 3.0})
    atoms.rattle(0.1)
    assert ml.SampleBatch.from_ase([atoms]).energy.tolist() == [3.0]
    water = molecule("H2O")
    water.calc = SinglePointCalculator(water, energy=1.0)
    water.info["charge"] = 1
    water.set_cell([9.0, 9.0, 9.0])  # a molecule has no cell
    water.set_initial_charges(np.full(3, 1 / 3))
    water.set_initial_magnetic_moments([1.0, 0.0, 0.0])
    assert ml.SampleBatch.from_ase([water]).energy.tolist() == [1.0]
    atoms.calc = EMT()  # has computed nothing
    assert not ml.SampleBatch.from_ase([atoms]).labels
    water.positions[0, 0] = np.nan  # another rule says so, in its own words
    water.calc = SinglePointCalculator(water, energy=1.0)
    assert ml.SampleBatch.from_ase([water]).energy.tolist() == [1.0]


def test_a_batch_goes_through_ase_and_back():
    batch = ml.SampleBatch.from_ase([computed(atoms) for atoms in crystals(2)], teacher="emt").astype("float32")
    again = ml.SampleBatch.from_ase(batch.to_ase(), teacher="emt")
    assert np.array_equal(again.energy, batch.energy)
