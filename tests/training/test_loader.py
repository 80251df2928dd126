"""Loaders, samplers and streams: every sample once, in the order that seed and epoch say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.training.samplers import AtomBudget
from tests.samples import metal_frames, mixed_frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    for k in range(4):
        store.append(mixed_frames(40, seed=k), teacher="emt")
    return store


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 600])
def test_the_loader_gives_every_sample_once_in_its_order(store, threads, batch_size):
    data = ml.TorchDataset(store, split=None)
    loader = data.loader(batch_size, threads=threads, seed=3)
    for _ in range(3):
        order = loader.order()
        kept = list(loader)  # all views are held: no window may serve again
        assert len(kept) == len(loader)
        assert sorted(order.tolist()) == list(range(len(data)))
        for k, batch in enumerate(kept):
            one = data.batch(order[k * batch_size : (k + 1) * batch_size])
            assert set(batch) == set(one)
            assert all(torch.equal(batch[name].nan_to_num(), one[name].nan_to_num()) for name in one)


def test_a_window_serves_again_only_when_nobody_looks(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    batch = ml.SampleBatch.from_ase(metal_frames(40))  # each many times: EMT would take ten seconds for so many
    store.append(batch.take(np.arange(400) % 40))
    store.append(batch.take(np.arange(1200) % 40))
    data = ml.TorchDataset(store, split=None)
    loader = data.loader(16, threads=2)
    kept = None
    for batch in loader:
        if kept is None:
            kept, copy = batch["positions"], batch["positions"].clone()
    for _ in loader:
        pass
    assert torch.equal(kept, copy)
    assert 0 < len(loader._pool) <= 8  # memory is kept, and not without end


def test_batches_of_bounded_size(store):
    data = ml.TorchDataset(store, split=None)
    sampler = AtomBudget(data, 64, seed=1)
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=data.collate)
    sizes = [int(batch["ptr"][-1]) for batch in loader]
    assert max(sizes) <= 64
    assert sum(sizes) == data.n_atoms.sum()
    assert np.mean(sizes) > 48
    with pytest.raises(DataError, match="the largest sample"):
        AtomBudget(data, 2)
