"""Numeric user columns are in training batches under their names, with masks, and turn only as they are said to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.training.pyg import to_data
from mlffstore.training.resident import Resident
from mlffstore.training.transforms import RandomRotation

N = 20
RNG = np.random.default_rng(3)
N_ATOMS = np.resize([2, 1, 3], N)
ATOMS = int(N_ATOMS.sum())
#: Values, unit and axis: kinds of numbers, axes and shapes.
EXTRA = {
    "weight": (RNG.normal(size=N), "1", "sample"),
    "charges": (RNG.normal(size=ATOMS).astype(np.float32), "e", "atom"),
    "dipole": (RNG.normal(size=(N, 3)), "e*angstrom", "sample"),
    "tensor": (RNG.normal(size=(ATOMS, 2, 3, 3)).astype(np.float32), "1", "atom"),
    "embedding": (RNG.normal(size=(ATOMS, 5)).astype(np.float32), "1", "atom"),
    "config": (RNG.integers(-9, 9, N).astype(np.int8), "1", "sample"),
    "fixed": (RNG.integers(0, 2, ATOMS).astype(bool), "1", "atom"),
    "number": (RNG.integers(0, 1 << 63, N).astype(np.uint64) * 2, "1", "sample"),
}


def samples(extra=EXTRA, first=0.0):
    return ml.SampleBatch(
        n_atoms=N_ATOMS, numbers=[8] * ATOMS, positions=np.random.default_rng(int(first)).normal(size=(ATOMS, 3)),
        energy=first + np.arange(N), forces=np.zeros((ATOMS, 3)), extra=extra,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("user") / "d.zarr")
    store.append(samples())
    return store


def check(batch, which, names=tuple(EXTRA)):
    one = samples().take(np.array(which))
    for name in names:
        assert np.array_equal(batch[name].numpy(), one.columns[name]), name
        assert batch[name].dtype == {"config": torch.int64}.get(name, torch.from_numpy(EXTRA[name][0]).dtype), name


@pytest.mark.parametrize("where", ["mapped", "memory"])
def test_every_road_carries_user_columns(store, where):
    data = ml.TorchDataset(store, split=None, cache=where)
    check(data.batch([4, 4, 0, 19]), [4, 4, 0, 19])
    check(data.collate([data[3], data[1]]), [3, 1])
    loader = data.loader(6, seed=2)
    order = loader.order()
    for k, batch in enumerate(loader):
        check(batch, order[6 * k : 6 * k + 6])
    check(Resident(data, "cpu").batch(torch.tensor([3, 9, 3])), [3, 9, 3])
    check(next(iter(ml.TorchDataset.stream(store, split=None, batch_size=N, shuffle=False))), range(N))
    assert not [name for name in data[0] if name.endswith("_mask")]


def test_pyg_carries_user_columns(store):
    pytest.importorskip("torch_geometric")
    data = ml.TorchDataset(store, split=None)
    for k, item in enumerate(to_data(data.batch([7, 2]))):
        one = samples()[[7, 2][k]]
        assert np.array_equal(item.embedding.numpy(), one.columns["embedding"])
        assert np.array_equal(item.dipole.numpy(), one.columns["dipole"])


def test_columns_select(store, tmp_path):
    some = ml.TorchDataset(store, split=None, columns=("charges", "weight"))
    assert set(some[0]) & set(EXTRA) == {"charges", "weight"}
    assert not set(ml.TorchDataset(store, split=None, columns=())[0]) & set(EXTRA)
    assert set(ml.TorchDataset(store, split=None, columns="weight", cache="memory")[0]) & set(EXTRA) == {"weight"}
    for where in ("mapped", "memory"):
        with pytest.raises(DataError, match="columns: expected numeric user columns"):
            ml.TorchDataset(store, split=None, columns=("energy",), cache=where)


def test_a_release_has_the_user_columns_of_the_store(store, tmp_path):
    path = ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "r.h5")
    one, two = ml.TorchDataset(store), ml.TorchDataset(path)
    a, b = one.batch(range(len(one))), two.batch(range(len(two)))
    assert set(EXTRA) <= set(a) == set(b)
    for name in a:  # HDF5 has no booleans: a release holds them as integers
        assert a[name].dtype == b[name].dtype or name == "fixed"
        assert torch.equal(a[name], b[name].to(a[name].dtype)), name


@pytest.mark.parametrize("where", ["mapped", "memory"])
def test_values_that_some_samples_lack_are_masked(tmp_path, where):
    store = ml.create(tmp_path / "d.zarr")
    weights, marks = np.arange(1.0, N + 1), np.arange(ATOMS, dtype=np.int32) + 1
    weights[3] = np.nan
    hidden = np.ma.masked_array(marks, np.arange(ATOMS) == 5)
    store.append(samples({"weight": (weights, "1", "sample"), "mark": (hidden, "1", "atom")}))
    store.append(samples({}, 100.0))
    data = ml.TorchDataset(store, split=None, cache=where)
    stream = ml.TorchDataset.stream(store, split=None, batch_size=2 * N, shuffle=False, block_samples=7)
    for batch in (data.batch(range(2 * N)), next(iter(stream))):
        assert batch["weight_mask"].tolist() == [k != 3 for k in range(N)] + [False] * N
        assert batch["weight"].tolist() == [0.0 if k == 3 else k + 1.0 for k in range(N)] + [0.0] * N
        assert batch["mark_mask"].tolist() == [k != 5 for k in range(ATOMS)] + [False] * ATOMS
        assert batch["mark"].tolist() == [0 if k == 5 else k + 1 for k in range(ATOMS)] + [0] * ATOMS
        assert batch["mark"].dtype == torch.int64
    assert {tuple(sorted(batch)) for batch in data.loader(3)} == {tuple(sorted(data[0]))}


@pytest.mark.parametrize("name", ["batch", "ptr", "edge_index", "forces_mask", "weight_mask"])
def test_names_that_batches_need(tmp_path, name):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples({"weight": EXTRA["weight"], name: (np.ones(N), "1", "sample")}))
    for make in (ml.TorchDataset, ml.TorchDataset.stream):
        with pytest.raises(DataError, match=f"the user columns {name} have names"):
            make(store, split=None)
        make(store, split=None, columns=("weight",))


def test_columns_of_unknown_behaviour_are_not_turned_and_not_left(store):
    said = {"dipole": "vector", "tensor": "tensor", "embedding": "invariant"}
    torch.manual_seed(1)
    turned = ml.TorchDataset(store, split=None, dtype=torch.float64, transform=RandomRotation(turns=said)).batch(
        range(N)
    )
    plain = ml.TorchDataset(store, split=None, dtype=torch.float64).batch(range(N))
    for name in ("weight", "charges", "embedding", "config", "fixed"):
        assert torch.equal(turned[name], plain[name]), name
    # What does not depend on the frame: lengths, angles to a position, traces, quadratic forms. Some are float32.
    first = plain["ptr"][:-1]
    for batch in (turned, plain):
        x = batch["positions"]
        batch["a"] = (batch["dipole"] * x[first]).sum(1)
        batch["b"] = torch.einsum("ai,acij,aj->ac", x, batch["tensor"].double(), x)
    assert torch.allclose(turned["a"], plain["a"], atol=1e-6)
    assert torch.allclose(turned["b"], plain["b"], atol=1e-5)
    assert not torch.allclose(turned["dipole"], plain["dipole"])
    for name in ("dipole", "tensor", "embedding"):
        data = ml.TorchDataset(store, split=None, columns=(name,), transform=RandomRotation())
        with pytest.raises(DataError, match=f"name the user column '{name}'"):
            data.batch([0])
    with pytest.raises(DataError, match="'embedding' is no vector"):
        ml.TorchDataset(store, split=None, transform=RandomRotation(turns={**said, "embedding": "vector"})).batch([0])
    with pytest.raises(DataError, match="turns: expected"):
        RandomRotation(turns={"dipole": "spin"})
