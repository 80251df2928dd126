"""Energies of the elements: isolated atoms, what the training samples leave open, and elements that they lack."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

import mlffstore as ml


def frame(symbols, energy, *, cell=None, charge=0):
    n = len(Atoms(symbols))
    positions = np.arange(3.0 * n).reshape(n, 3)
    atoms = Atoms(symbols, positions, cell=cell, pbc=cell is not None)
    atoms.info.update(charge=charge, multiplicity=1)
    return atoms, energy


def dataset(*frames, split=None):
    batch = ml.SampleBatch.from_ase([atoms for atoms, _ in frames])
    n_atoms = int(batch.n_atoms.sum())
    batch = ml.SampleBatch(
        n_atoms=batch.n_atoms, numbers=batch.numbers, positions=batch.positions, cell=batch.cell, pbc=batch.pbc,
        charge=batch.charge, energy=[energy for _, energy in frames], forces=np.zeros((n_atoms, 3)),
    )  # fmt: skip
    return batch, np.zeros(len(frames), np.uint8) if split is None else np.array(split, np.uint8)


@pytest.fixture
def normalise(tmp_path):
    def run(*frames, split=None):
        batch, splits = dataset(*frames, split=split)
        store = ml.create(tmp_path / "d.zarr")
        store.append(batch)
        ds = store.snapshot().to_xarray().load()
        ds["split"] = ("sample", splits, ds.split.attrs)
        return ml.statistics(ds, neighbours=False).normalisation()

    return run


def test_isolated_atoms_are_the_references(normalise):
    found = normalise(frame("Cu", -3.5), frame("Cu4", -30.0), frame("Cu3Al", -28.0), frame("Cu2Al2", -26.0))
    fit = found["element_energies_eV"]
    assert fit["values"]["Cu"] == -3.5
    assert fit["isolated_atoms"] == ["Cu"]
    assert fit["method"].startswith("isolated atoms, and least squares")
    assert found["mace"]["E0s"]["29"] == -3.5


def test_an_ion_and_an_atom_of_a_crystal_are_not_isolated(normalise):
    found = normalise(
        frame("Cu", -1.0, charge=1), frame("Al", -4.0, cell=[2.8, 2.8, 2.8]), frame("Cu4", -12.0), frame("Al4", -16.0)
    )
    assert found["element_energies_eV"]["isolated_atoms"] == []
    assert found["element_energies_eV"]["values"]["Cu"] < -2.5


def test_an_atom_in_a_large_box_is_isolated(normalise):
    found = normalise(frame("Cu", -1.0, cell=[10, 10, 10]), frame("Cu4", -12.0))
    assert found["element_energies_eV"]["values"] == {"Cu": -1.0}


@pytest.mark.parametrize(
    ("cell", "isolated"),
    [
        # All vectors are longer than 6 angstrom, and their sum is 2.6: a crystal, not an atom.
        ([[10, 0, 0], [0, 10, 0], [-9, -9.2, 2.25]], []),
        ([[10, 0, 0], [5, 9, 0], [5, 3, 9]], ["Cu"]),
    ],
)
def test_an_atom_in_an_oblique_cell(normalise, cell, isolated):
    found = normalise(frame("Cu", -1.0, cell=cell), frame("Cu4", -12.0))
    assert found["element_energies_eV"]["isolated_atoms"] == isolated


def test_what_the_samples_leave_open_is_near_the_mean(normalise):
    """Cs and Cl occur together alone; the smallest norm would say nothing of the difference either, but Xe would be 0."""
    found = normalise(frame("CsCl", -6.0), frame("Cs2Cl2", -12.0), frame("XeF2", -9.0), frame("Xe2F4", -18.0))
    fit = found["element_energies_eV"]
    assert (fit["rank"], fit["unknowns"]) == (2, 4)
    assert fit["method"].startswith("ridge regression")
    assert all(-3.6 < value < -2.4 for value in fit["values"].values()), fit["values"]


def test_a_full_rank_is_plain_least_squares(normalise):
    found = normalise(frame("Cu2", -7.0), frame("Al2", -4.0), frame("CuAl", -5.5), frame("CuAl3", -9.5))
    fit = found["element_energies_eV"]
    assert fit["method"].startswith("least squares")
    assert fit["values"] == pytest.approx({"Cu": -3.5, "Al": -2.0})


def test_elements_that_train_lacks_are_named_and_have_energies(normalise):
    found = normalise(
        frame("Cu2", -7.0), frame("Cu3", -10.5), frame("CuAl", -5.5), frame("Pt", -2.0), frame("CuPt", -6.0),
        split=[0, 0, 1, 2, 2],
    )  # fmt: skip
    assert found["elements_that_train_lacks"] == {"Al": {"val": 1, "test": 0}, "Pt": {"val": 0, "test": 2}}
    values = found["element_energies_eV"]["values"]
    assert values["Pt"] == -2.0  # isolated
    assert values["Al"] == pytest.approx(-3.5)  # the mean of train
    assert set(found["mace"]["E0s"]) == {"29", "13", "78"}
