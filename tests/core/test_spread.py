"""A committee's spread of forces is what its declaration says: a rotation does not change it, in teachers or in training."""

from __future__ import annotations

import numpy as np
import torch

import mlffstore as ml
from mlffstore.data.properties import PROPERTIES
from mlffstore.data.spread import principal_deviations
from mlffstore.training.transforms import RandomRotation, rotations


def committee(n_members=5, n_atoms=40):
    return np.random.default_rng(1).normal(size=(n_members, n_atoms, 3))


def test_a_rotation_of_the_members_changes_nothing():
    forces, turn = committee(), rotations(1, torch.Generator().manual_seed(2))[0].numpy()
    here, turned = principal_deviations(forces), principal_deviations(forces @ turn.T)
    assert PROPERTIES["forces_std"].turns == "invariant"
    np.testing.assert_allclose(turned, here, atol=1e-6)
    # Standard deviations along x, y and z do change.
    assert np.abs((forces @ turn.T).std(axis=0) - forces.std(axis=0)).max() > 0.1


def test_values_are_those_of_the_definition():
    forces = committee()
    values = principal_deviations(forces)
    assert (np.diff(values, axis=1) <= 0).all()
    lengths = np.sqrt(np.square(forces - forces.mean(axis=0)).sum(axis=2).mean(axis=0))
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), lengths, rtol=1e-6)
    for atom in range(3):
        own = np.linalg.eigvalsh(np.cov(forces[:, atom].T, bias=True))[::-1]
        np.testing.assert_allclose(values[atom], np.sqrt(own), rtol=1e-5)
    # Two members differ along one line; what is not finite is missing, and the other atoms are not.
    two = principal_deviations(forces[:2])
    np.testing.assert_allclose(two[:, 0], np.linalg.norm(forces[0] - forces[1], axis=1) / 2, rtol=1e-6)
    np.testing.assert_allclose(two[:, 1:], 0, atol=1e-6)
    forces[0, 3] = np.nan
    assert np.isnan(principal_deviations(forces)).all(axis=1).nonzero()[0].tolist() == [3]


def test_training_turns_forces_and_leaves_their_spread(tmp_path):
    forces = committee()
    labels = {"forces": forces.mean(axis=0), "forces_std": principal_deviations(forces), "energy": np.zeros(4)}
    store = ml.create(tmp_path / "d.zarr")
    positions = np.random.default_rng(3).normal(size=(40, 3))
    store.append(ml.SampleBatch(n_atoms=[10] * 4, numbers=[18] * 40, positions=positions, labels={"committee": labels}))
    assert store.snapshot().to_xarray()["forces_std"].dims == ("atom", "teacher", "principal")
    asked = ("energy", "forces", "forces_std")
    data = ml.TorchDataset(store, split=None, properties=asked, dtype=torch.float64)
    batch = data.batch(range(4))
    turned = RandomRotation(torch.Generator().manual_seed(5))
    turned.describe({"forces_std": "invariant"})
    out = turned(batch)
    turn = rotations(4, torch.Generator().manual_seed(5)).numpy().repeat(10, axis=0)
    members = np.einsum("kai,aji->kaj", forces, turn)
    np.testing.assert_allclose(out["forces"], members.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(out["forces_std"], principal_deviations(members), atol=1e-6)
    turning = ml.TorchDataset(store, split=None, properties=asked, dtype=torch.float64, transform=RandomRotation())
    through = turning.batch(range(4))
    np.testing.assert_array_equal(through["forces_std"], batch["forces_std"])
