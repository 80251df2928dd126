"""Any property in training batches: values, masks, requirements, rotations; from a store and from a release."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mlffstore as ml
from mlffstore.data.properties import PROPERTIES
from mlffstore.data.voigt import COMPONENTS
from mlffstore.errors import DataError
from mlffstore.training.pyg import ToPyG
from mlffstore.training.transforms import Compose, RandomRotation
from mlffstore_exporters.hdf5 import export_hdf5
from tests.signals import CUSTOM, LACKING, QUADRUPOLES, signals

pytestmark = pytest.mark.usefixtures("caches")
ALL = (*PROPERTIES, *CUSTOM)
OPTIONS = {"split": None, "teacher": "a", "properties": ALL, "dtype": torch.float64}


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    store.append(signals(), require=())
    store.append(signals(1).take([3]), require=())
    return store


def check(batch, expected):
    """Compare a batch with the labels of teacher a."""
    labels, n_atoms = expected.labels["a"], expected.n_atoms
    for name in ALL:
        array = labels[name]
        rows = np.repeat(np.arange(len(n_atoms)), n_atoms) if len(array) != len(n_atoms) else np.arange(len(n_atoms))
        there = np.ones(len(n_atoms), bool)
        lacking = np.isnan(array.reshape(len(array), -1)).any(axis=1)
        there[rows[lacking]] = False
        assert (f"{name}_mask" in batch) == (name in LACKING), name
        if name in LACKING:
            assert batch[f"{name}_mask"].tolist() == there.tolist()
        np.testing.assert_array_equal(batch[name].numpy(), np.nan_to_num(array, nan=0.0), err_msg=name)


@pytest.mark.parametrize("cache", ["mapped", "memory"])
def test_batches_hold_every_property(store, tmp_path, cache):
    expected = store.snapshot().read()
    data = ml.TorchDataset(store, cache=cache, **OPTIONS)
    check(data.batch(range(5)), expected)
    check(ml.TorchDataset(store, cache=cache, **OPTIONS).batch(range(5)), expected)  # what the cache holds by now
    check(next(iter(data.loader(batch_size=5, shuffle=False))), expected)
    release = export_hdf5(store.snapshot(), tmp_path / "out.h5", teacher="a")
    check(ml.TorchDataset(release, cache=cache, **OPTIONS).batch(range(5)), expected)
    store.compact()
    check(ml.TorchDataset(store, cache=cache, **OPTIONS).batch(range(5)), expected)


def test_streams_hold_every_property(store):
    expected = store.snapshot().read()
    stream = ml.TorchDataset.stream(store, batch_size=5, shuffle=False, block_samples=2, **OPTIONS)
    batch = next(iter(stream))
    check({name: tensor for name, tensor in batch.items() if name.removesuffix("_mask") in (*LACKING, name)}, expected)
    assert all(f"{name}_mask" in batch for name in ALL)  # a stream does not look ahead
    some = ml.TorchDataset.stream(store, None, "a", ("energy", "charges"), require=("charges",), batch_size=5)
    assert len(next(iter(some))["energy"]) == 4
    assert set(next(iter(some))) & {*ALL, *(f"{name}_mask" for name in ALL)} == {"energy", "charges", "energy_mask"}
    turned = ml.TorchDataset.stream(
        store, batch_size=5, transform=Compose(RandomRotation(torch.Generator().manual_seed(3))), **OPTIONS
    )
    assert not torch.equal(next(iter(turned))["dipole"], batch["dipole"])
    with pytest.raises(DataError, match="'b' gave, got 'spin_density'"):
        ml.TorchDataset.stream(store, None, "b", ("energy", "spin_density"))


def test_batches_hold_what_was_asked_for(store):
    plain = ml.TorchDataset(store, None, "a").batch([0, 1])
    assert set(plain) & set(ALL) == {"energy", "forces", "stress"}
    assert "config_type" not in plain  # strings are no numbers
    for make in (lambda data: data.batch([0]), lambda data: next(iter(data.loader(batch_size=2)))):
        some = make(ml.TorchDataset(store, None, "a", ("energy", "charges")))
        assert set(some) & {*ALL, *(f"{name}_mask" for name in ALL)} == {"energy", "charges", "charges_mask"}


def test_samples_without_a_required_property_are_left_out(store):
    data = ml.TorchDataset(store, require=("charges", "dipole"), **OPTIONS)
    assert len(data) == 3
    batch = data.batch(range(3))
    assert "charges_mask" not in batch
    assert batch["ptr"].tolist() == [0, 3, 7, 11]
    with pytest.raises(DataError, match="require"):
        ml.TorchDataset(store, None, "a", ("energy",), require=("charges",))
    with pytest.raises(DataError, match="'b' gave, got 'spin_density'"):
        ml.TorchDataset(store, None, "b", ("energy", "spin_density"))


def test_rotations_turn_what_turns(store):
    generator = torch.Generator().manual_seed(3)
    turned = ml.TorchDataset(store, transform=Compose(RandomRotation(generator)), **OPTIONS).batch(range(5))
    plain = ml.TorchDataset(store, **OPTIONS).batch(range(5))
    turn = torch.linalg.solve(plain["cell"], turned["cell"]).transpose(1, 2)  # rows turn as x R^T
    atom = turn[plain["batch"]]
    for name in ("dipole", "hessian_product", "hessian_probe", "forces"):
        which = turn if name == "dipole" else atom
        expected = torch.einsum("nij,nj->ni", which, plain[name].double()).to(plain[name].dtype)
        torch.testing.assert_close(turned[name], expected, atol=1e-5, rtol=1e-5)
    expected = turn @ plain[CUSTOM[0]] @ turn.transpose(1, 2)
    torch.testing.assert_close(turned[CUSTOM[0]], expected)
    index = torch.tensor([[COMPONENTS.index(tuple(sorted((i, j)))) for j in range(3)] for i in range(3)])
    full = plain[QUADRUPOLES.name].double()[:, index]
    torch.testing.assert_close(
        turned[QUADRUPOLES.name].double()[:, index], atom @ full @ atom.transpose(1, 2), atol=1e-5, rtol=1e-5
    )
    for name in ("charges", "magmoms", "atomic_energies", "embedding", "energy", "energy_std"):
        assert torch.equal(turned[name], plain[name])


def test_graphs_hold_every_property(store):
    pytest.importorskip("torch_geometric")
    graphs = ml.TorchDataset(store, transform=ToPyG(), **OPTIONS).batch([1, 2])
    assert graphs.embedding.shape == (4, 5)
    assert graphs.dipole.shape == (2, 3)
