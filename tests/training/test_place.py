"""Where a loader is: passes are whole, states are resumed by what they belong to alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.training.loader import Loader

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


def data_of_version_1(store, **options):
    return ml.TorchDataset(store.snapshot(version=1), split=None, **options)


def read(iterable):
    return [batch["energy"].tolist() for batch in iterable]


def flat(batches):
    return [e for batch in batches for e in batch]


def leave_by_break(loader):
    for _ in loader:
        break


def leave_by_close(loader):
    it = iter(loader)
    next(it), next(it)
    it.close()


def leave_by_next(loader):
    next(iter(loader))


def leave_by_error(loader):
    try:
        for _ in loader:
            raise RuntimeError("training")
    except RuntimeError:
        pass


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close, leave_by_next, leave_by_error])
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_pass_after_one_that_was_left_is_whole(data, leave, shuffle):
    loader = data.loader(4, shuffle=shuffle, seed=3)
    whole = read(data.loader(4, shuffle=shuffle, seed=3))
    for epoch in (1, 3):
        leave(loader)
        batches = read(loader)
        assert len(batches) == len(loader) == 12
        assert sorted(flat(batches)) == list(range(N))
        # An epoch that was begun is not begun again: a training that leaves each early would see the same batches only.
        assert (batches == whole) == (not shuffle)
        assert flat(batches) == [float(k) for k in loader.order(epoch)]


def test_iterations_side_by_side(data):
    loader = data.loader(4, seed=1)
    first, second = iter(loader), iter(loader)
    pairs = list(zip(read(first), read(second), strict=True))
    assert flat(pair[0] for pair in pairs) == loader.order(0).tolist()
    assert flat(pair[1] for pair in pairs) == loader.order(1).tolist()
    one, other = iter(loader), iter(loader)
    next(one), next(one), next(other)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (3, 1)  # of the one that began last
    assert len(read(one)) == 10
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (3, 1)
    assert loader.epoch == 4


def test_an_iterator_that_is_made_and_not_used_is_no_iteration(data):
    loader = data.loader(4, seed=1)
    iter(loader), iter(loader)
    assert flat(read(loader)) == loader.order(0).tolist()


@pytest.mark.parametrize("done", [0, 1, 5, 11, 12])
def test_a_state_at_any_place_goes_on_with_the_next_batch_and_no_more(data, done):
    first = data.loader(4, seed=1)
    it = iter(first)
    some = [next(it)["energy"].tolist() for _ in range(done)]
    state = json.loads(json.dumps(first.state_dict()))
    second = data.loader(4, seed=1)
    second.load_state_dict(state)
    assert second.state_dict() == first.state_dict() or done == 12
    if 0 < done < 12:
        assert flat(some + read(second)) == first.order(0).tolist()
    # The pass after it is whole. One that was resumed at its end is the next one.
    epoch = second.epoch
    assert epoch == (1 if done else 0)
    assert flat(read(second)) == first.order(epoch).tolist()


def test_set_epoch_keeps_the_place_of_a_loaded_state_and_no_other(data):
    state = {**data.loader(4).state_dict(), "epoch": 2, "batches": 7}
    loader = data.loader(4)
    loader.load_state_dict(state)
    loader.set_epoch(2)
    assert flat(read(loader)) == loader.order(2)[28:].tolist()
    loader.load_state_dict(state)
    loader.set_epoch(3)
    assert loader.state_dict()["batches"] == 0
    assert flat(read(loader)) == loader.order(3).tolist()
    next(iter(loader))
    loader.set_epoch(4)
    assert flat(read(loader)) == loader.order(4).tolist()


def test_endless_is_left_in_an_epoch_and_the_next_pass_is_the_one_after(data):
    loader = data.loader(4, seed=2)
    steps = loader.endless()
    batches = [next(steps)["energy"].tolist() for _ in range(12 + 5)]
    assert flat(batches) == [*loader.order(0), *loader.order(1)[:20]]
    state = loader.state_dict()
    assert (state["epoch"], state["batches"]) == (1, 5)
    assert flat(read(loader)) == loader.order(2).tolist()
    other = data.loader(4, seed=2)
    other.load_state_dict(state)
    more = other.endless()
    assert flat(next(more)["energy"].tolist() for _ in range(8)) == [*loader.order(1)[20:], *loader.order(2)[:4]]


def test_a_state_is_refused_by_any_other_loader_and_nothing_changes(store, data):
    loader = data.loader(4, seed=1)
    next(iter(loader))
    state = loader.state_dict()
    store.append(samples(3, 100.0))
    grown = ml.TorchDataset(store, split=None)
    relabelled = ml.create(store.url + ".other")
    relabelled.append(samples().with_labels("reference", energy=np.arange(N) + 1.0, forces=np.zeros((90 - 1, 3))))
    others = {
        "samples": grown.loader(4, seed=1),
        "digest": ml.TorchDataset(relabelled, split=None).loader(4, seed=1),
        "batch_size": data.loader(5, seed=1),
        "seed": data.loader(4, seed=2),
        "shuffle": data.loader(4, seed=1, shuffle=False),
        "drop_last": data.loader(4, seed=1, drop_last=True),
        "world_size": data.loader(4, seed=1, rank=1, world_size=2),
    }
    for word, other in others.items():
        before = other.state_dict()
        with pytest.raises(DataError, match=f"expected {word} "):
            other.load_state_dict(state)
        assert other.state_dict() == before
        assert len(read(other)) == len(other)
    for broken in ({}, {"epoch": 1, "batches": 2, "seed": 1, "batch_size": 4}, {**state, "batches": 99}):
        with pytest.raises(DataError, match="load_state_dict: expected"):
            loader.load_state_dict(broken)


def test_a_state_goes_on_in_a_compacted_store_and_in_memory(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    for k in range(5):
        store.append(samples(10, 10.0 * k))
    loader = ml.TorchDataset(store, split=None).loader(4, seed=1)
    it = iter(loader)
    begun = [next(it)["energy"].tolist() for _ in range(3)]
    store.compact()
    other = ml.TorchDataset(store, split=None, cache="memory").loader(4, seed=1)
    other.load_state_dict(loader.state_dict())
    assert flat(begun + read(other)) == loader.order(0).tolist()


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("fails", [1, 5, 12])
def test_a_batch_that_failed_on_its_way_was_not_given_out(store, fails, endless):
    """Whether its transform raised or its copy to the device: the state goes on with that batch."""
    calls = []

    def transform(batch):
        calls.append(1)
        if len(calls) == fails:
            raise RuntimeError("transform")
        return batch

    class Copied(Loader):
        def _pinned(self, batch):
            return transform(batch)

    whole = data_of_version_1(store).loader(4, seed=1).order(0).tolist()
    for loader in (
        data_of_version_1(store, transform=transform).loader(4, seed=1),
        Copied(data_of_version_1(store), 4, seed=1, device="cpu"),
    ):
        calls.clear()
        batches = loader.endless() if endless else iter(loader)
        given = flat(next(batches)["energy"].tolist() for _ in range(fails - 1))
        with pytest.raises(RuntimeError, match="transform"):
            next(batches)
        assert given == whole[: 4 * (fails - 1)]
        other = data_of_version_1(store).loader(4, seed=1)
        other.load_state_dict(loader.state_dict())
        assert given + flat(read(other)) == whole
