"""Normal components of the stress in another order than xx yy zz are found: their sum, and so the pressure, is right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import mlffstore as ml
from mlffstore.data.batch import SampleBatch
from mlffstore_generators.rattle import rattled, strained

ORDERS = [list(order) for order in itertools.permutations(range(3)) if order != (0, 1, 2)]


def tetragonal():
    """Return layers of Cu and Au, along z."""
    a, c = 2.8, 3.6
    return Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[a, a, c], pbc=True) * (2, 2, 2)


def labelled(make, strain, amplitude, number=60, seed=0):
    rng = np.random.default_rng(seed)
    frames = [rattled(strained(make(), strain, rng), amplitude, rng) for _ in range(number)]
    batch = SampleBatch.from_ase(frames).with_columns(root=np.ones(number, np.uint64))
    labels = ml.get_teacher("emt").label(batch)
    return batch, labels


def state(batch, labels, stress, folder):
    store = ml.create(folder / "d.zarr")
    store.append(batch.with_labels("emt", energy=labels.energy, forces=labels.forces, stress=stress))
    return next(one for one in ml.validate(store).checks if one.check == "stress_units")


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_another_order_is_found(order, tmp_path):
    batch, labels = labelled(tetragonal, 0.02, 0.01)
    found = state(batch, labels, labels.stress[:, [*order, 3, 4, 5]], tmp_path)
    assert found.state == "fail"
    names = " ".join(("xx", "yy", "zz")[i] for i in np.argsort(order))
    assert f"in the order {names}" in found.text


@pytest.mark.parametrize("amplitude", [0.005, 0.08])
@pytest.mark.parametrize("strain", [0.005, 0.05])
@pytest.mark.parametrize("make", [tetragonal, lambda: bulk("Cu", cubic=True) * (2, 2, 1)], ids=["CuAu", "Cu"])
def test_the_right_order_is_right(make, strain, amplitude, tmp_path):
    batch, labels = labelled(make, strain, amplitude)
    assert state(batch, labels, labels.stress, tmp_path).state in ("pass", "not measured")


def test_volumes_alone_say_nothing_of_the_order(tmp_path):
    rng = np.random.default_rng(0)
    frames = []
    for factor in np.linspace(0.95, 1.05, 40):
        one = bulk("Cu", cubic=True)
        one.set_cell(one.cell.array * factor, scale_atoms=True)
        frames.append(rattled(one, 0.01, rng))
    batch = SampleBatch.from_ase(frames).with_columns(root=np.ones(40, np.uint64))
    labels = ml.get_teacher("emt").label(batch)
    assert state(batch, labels, labels.stress[:, [2, 0, 1, 3, 4, 5]], tmp_path).state != "fail"
