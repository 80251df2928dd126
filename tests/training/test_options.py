"""Options that cannot be obeyed are refused where they are given, in words; large ones need no memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.training.resident import Resident
from mlffstore.training.samplers import AtomBudget
from mlffstore.training.transforms import from_statistics


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("options") / "d.zarr")
    batch = ml.SampleBatch(
        n_atoms=[1] * 5, numbers=[2] * 5, positions=np.arange(15.0).reshape(5, 3), energy=-np.arange(1.0, 6)
    )
    store.append(batch, require=())
    return store


@pytest.fixture
def data(store, caches):
    return ml.TorchDataset(store, split=None)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0, -3.0, True, "5", [4.0]])
def test_a_cutoff_is_a_positive_finite_number(store, caches, value):
    with pytest.raises(DataError, match="neighbours: expected a cutoff in angstrom, positive and finite, got"):
        ml.TorchDataset(store, split=None, neighbours=value)
    assert ml.TorchDataset(store, split=None, neighbours=np.float32(2)).neighbours == 2


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("batch_size", 0, 1), ("batch_size", 2.5, 1), ("batch_size", True, 1), ("batch_size", "3", 1), ("seed", -1, 0),
        ("seed", 1.5, 0), ("seed", None, 0), ("rank", 0.5, 0), ("world_size", 0, 1), ("world_size", 2.0, 1),
        ("threads", 0, 1), ("threads", 1.5, 1), ("blocks", 0, 1), ("block_samples", 1e3, 1), ("max_atoms", 2.5, 1),
        ("max_atoms", float("inf"), 1),
    ],
)  # fmt: skip
def test_whole_numbers_are_whole_where_they_are_given(store, data, option, value, least):
    takes = {
        "loader": (data.loader, ("batch_size", "seed", "rank", "world_size", "threads")),
        "stream": (lambda **o: data.stream(store, None, **o),
                   ("batch_size", "seed", "rank", "world_size", "blocks", "block_samples")),
        "resident": (lambda **o: Resident(data, "cpu", **o), ("batch_size", "seed")),
        "budget": (lambda **o: AtomBudget(data, **{"max_atoms": 3} | o), ("max_atoms", "seed", "rank", "world_size")),
    }  # fmt: skip
    for make, options in takes.values():
        if option in options:
            with pytest.raises(DataError, match=f"^{option}: expected an integer, at least {least}, got {value!r}"):
                make(**{option: value})


def test_epochs_are_whole_numbers(store, data):
    for one in (data.loader(2), data.stream(store, None), Resident(data, "cpu"), AtomBudget(data, 3)):
        for epoch in (-1, 1.5):
            with pytest.raises(DataError, match="epoch: expected an integer, at least 0"):
                one.set_epoch(epoch)
        one.set_epoch(np.int64(3))
        assert len(list(one)) == len(one)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("batch_size", [5, 6, 10**9, 10**15, np.int64(4)])
def test_a_batch_has_room_for_the_samples_there_are(data, batch_size, world_size):
    seen = []
    for rank in range(world_size):
        loader = data.loader(batch_size, rank=rank, world_size=world_size)
        for _ in range(2):
            batches = list(loader)
            assert len(batches) == len(loader)
        seen += [energy for batch in batches for energy in batch["energy"].tolist()]
    assert sorted(seen) == [-5, -4, -3, -2, -1]
    assert loader.state_dict()["batch_size"] == batch_size


def test_samples_are_named_by_integers(data):
    for index in (1.7, 2.0, True, "1", slice(0, 2), None, np.float32(1)):
        with pytest.raises(IndexError, match="indices: expected integers"):
            data[index]
    for index in (1, np.int64(1), np.uint8(1), torch.tensor(1), -4):
        assert data[index]["energy"].tolist() == [-2]
    for nothing in ([], np.zeros(0, int), range(0)):
        with pytest.raises(IndexError, match="expected at least one sample, got none"):
            data.batch(nothing)


def test_a_release_is_no_stream_however_it_is_given(store, caches, tmp_path):
    path = ml.export_release(store.snapshot(), tmp_path, name="r", allow_failing=True)
    for source in (path, str(path.parent), ml.open_release(path)):
        with pytest.raises(DataError, match=r"expected a store, got the release .*r-1\.0\.0.*through TorchDataset"):
            ml.TorchDataset.stream(source, None)


def test_statistics_without_forces_have_no_scale(store, tmp_path):
    path = ml.export_release(store.snapshot(), tmp_path, name="r", allow_failing=True)
    with pytest.raises(DataError, match=r"expected forces in the split train.*Normalise\(shift=.*scale="):
        from_statistics(path.parent / "statistics.yaml")
