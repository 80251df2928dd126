"""Ranks share every sample of an epoch, with equally many batches each."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.training.samplers import AtomBudget
from mlffstore.training.shares import n_batches, share
from tests.samples import mixed_frames

N = 45


def samples(n=N, first=0.0, sizes=(1, 3)):
    """Return samples whose energies count up."""
    n_atoms = np.resize(sizes, n)
    return ml.SampleBatch(
        n_atoms=n_atoms, numbers=[6] * n_atoms.sum(), energy=first + np.arange(n),
        positions=np.random.default_rng(int(first)).normal(size=(n_atoms.sum(), 3)), forces=np.zeros((n_atoms.sum(), 3)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("place") / "d.zarr")
    store.append(samples())
    return store


@pytest.fixture(scope="module")
def data(store):
    return ml.TorchDataset(store.snapshot(version=1), split=None)


def read(iterable):
    return [batch["energy"].tolist() for batch in iterable]


def flat(batches):
    return [e for batch in batches for e in batch]


@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize("batch_size", [2, 8, 32])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_is_in_one_batch_of_one_rank(data, world_size, batch_size, shuffle):
    ranks = [data.loader(batch_size, shuffle=shuffle, rank=r, world_size=world_size) for r in range(world_size)]
    shares = [read(rank) for rank in ranks]
    assert {len(batches) for batches in shares} == {len(ranks[0])}
    assert len(ranks[0]) == -(-N // (batch_size * world_size))
    assert all(0 < len(batch) <= batch_size for batches in shares for batch in batches)
    assert sorted(flat(map(flat, shares))) == list(range(N))
    full = [read(data.loader(batch_size, shuffle=shuffle, rank=r, world_size=world_size, drop_last=True))
            for r in range(world_size)]  # fmt: skip
    assert all(len(batch) == batch_size for batches in full for batch in batches)
    assert len(flat(map(flat, full))) == N // (batch_size * world_size) * batch_size * world_size


def test_the_arithmetic_of_shares():
    for n in range(40):
        for batch_size in (1, 2, 3, 8):
            for world in (1, 2, 3, 5):
                parts = [share(np.arange(n), batch_size, rank=r, world_size=world) for r in range(world)]
                assert {len(sizes) for _, sizes in parts} == {n_batches(n, batch_size, world)}
                given = np.concatenate([order for order, _ in parts])
                assert set(given.tolist()) == set(range(n))
                if len(given) != n:  # only where there is no other way, and as few as possible
                    assert n < world or batch_size == 1
                    assert len(given) - n < world
                assert all(sizes.sum() == len(order) and sizes.min(initial=1) > 0 for order, sizes in parts)


def test_a_resumed_rank_is_where_the_one_was_that_saved(data):
    first, second = (data.loader(4, seed=1, rank=r, world_size=2) for r in (0, 1))
    whole = read(data.loader(4, seed=1, rank=1, world_size=2))
    it = iter(first)
    next(it), next(it)
    second.load_state_dict(first.state_dict())
    assert read(second) == whole[2:]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_of_a_bounded_sampler(tmp_path, world_size):
    store = ml.create(tmp_path / "d.zarr")
    store.append(mixed_frames(40), teacher="emt")
    data = ml.TorchDataset(store, split=None)
    for epoch in range(3):
        samplers = [AtomBudget(data, 64, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        expected = [len(sampler) for sampler in samplers]
        shares = [list(sampler) for sampler in samplers]
        assert [len(batches) for batches in shares] == expected
        assert len(set(expected)) == 1
        assert sorted(flat(map(flat, shares))) == list(range(40))
        assert max(data.n_atoms[batch].sum() for batches in shares for batch in batches) <= 64
    dropped = [len(AtomBudget(data, 64, seed=1, rank=0, world_size=w, drop_last=True)) * w for w in (1, world_size)]
    assert dropped[1] == dropped[0] // world_size * world_size
