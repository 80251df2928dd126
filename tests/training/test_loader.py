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
    store.append(metal_frames(400), teacher="emt")
    store.append(metal_frames(1200, seed=2), teacher="emt")
    data = ml.TorchDataset(store, split=None)
    loader = data.loader(16, threads=2)
    kept = None
    for batch in loader:
        if kept is None:
            kept, copy = batch["positions"], batch["positions"].clone()
    for _ in loader:
        pass
    assert torch.equal(kept, copy)
    assert 0 < len(loader._spare) <= 8  # memory is kept, and not without end


def test_an_interrupted_epoch_goes_on_with_the_next_batch(store):
    data = ml.TorchDataset(store, split=None)
    whole = [batch["energy"] for batch in data.loader(8, seed=1)]
    first = data.loader(8, seed=1)
    some = []
    for batch in first:
        some.append(batch["energy"])
        if len(some) == 5:
            break
    second = data.loader(8, seed=1)
    second.load_state_dict(first.state_dict())
    some += [batch["energy"] for batch in second]
    assert [one.tolist() for one in some] == [one.tolist() for one in whole]
    assert second.epoch == 1
    with pytest.raises(DataError, match="expected batch_size 8"):
        second.load_state_dict({**first.state_dict(), "batch_size": 4})


def test_ranks_share_an_epoch(store):
    from mlffstore.training.loader import Loader

    data = ml.TorchDataset(store, split=None)
    ranks = [Loader(data, 8, seed=2, rank=r, world_size=3) for r in range(3)]
    parts = [[batch["energy"].tolist() for batch in one] for one in ranks]
    assert len({len(one) for one in parts}) == 1
    together = [one for k in range(len(parts[0])) for one in (part[k] for part in parts)]
    whole = [batch["energy"].tolist() for batch in data.loader(8, seed=2)]
    assert together == whole[: len(together)]


def test_batches_of_bounded_size(store):
    data = ml.TorchDataset(store, split=None)
    sampler = AtomBudget(data, 64, seed=1)
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=data.collate)
    sizes = [int(batch["ptr"][-1]) for batch in loader]
    assert max(sizes) <= 64
    assert sum(sizes) == data.n_atoms.sum()
    assert np.mean(sizes) > 48
    shares = [AtomBudget(data, 64, seed=1, rank=r, world_size=2) for r in range(2)]
    assert len({len(list(one)) for one in shares}) == 1
    with pytest.raises(DataError, match="the largest sample"):
        AtomBudget(data, 2)


def test_a_stream_gives_every_sample_of_the_split_once(store):
    for split in ("train", None):
        stream = ml.TorchDataset.stream(store, split=split, batch_size=8, block_samples=16, blocks=3)
        data = ml.TorchDataset(store, split=split)
        expected = sorted(data.batch(range(len(data)))["energy"].tolist())
        first = [e for batch in stream for e in batch["energy"].tolist()]
        second = [e for batch in stream for e in batch["energy"].tolist()]
        assert sorted(first) == sorted(second) == expected
        assert first != second
    shared = DataLoader(stream, batch_size=None, num_workers=2)
    assert sorted(e for batch in shared for e in batch["energy"].tolist()) == expected
    batch = next(iter(stream))
    one = ml.TorchDataset(store, split=None)
    where = {h: i for i, h in enumerate(one.batch(range(len(one)))["energy"].tolist())}
    alike = one.batch([where[e] for e in batch["energy"].tolist()])
    assert all(torch.equal(batch[name].nan_to_num(), alike[name].nan_to_num()) for name in alike)
