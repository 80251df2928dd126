"""Streams: every sample once per epoch over all workers and ranks, in another order each time."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mlffstore as ml
from mlffstore.errors import DataError
from tests.samples import metal_frames, mixed_frames

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
N = 95


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("stream") / "d.zarr", splits={"train": 0.8, "val": 0.2, "test": 0})
    for first in range(0, N, 19):
        rng = np.random.default_rng(first)
        store.append(
            ml.SampleBatch(
                n_atoms=[2] * 19, numbers=[6] * 38, positions=rng.normal(size=(38, 3)), energy=first + np.arange(19.0),
                forces=rng.normal(size=(38, 3)), extra={"weight": (first + np.arange(19.0), "1", "sample")},
            )
        )  # fmt: skip
    return store


def stream(store, split=None, **options):
    return ml.TorchDataset.stream(store, split=split, **{"batch_size": 4, "block_samples": 8, "blocks": 2, **options})


def energies(batches):
    return [e for batch in batches for e in batch["energy"].tolist()]


def test_a_stream_gives_the_samples_of_the_dataset(store):
    for split in ("train", "val", None):
        data = ml.TorchDataset(store, split=split)
        batches = list(stream(store, split=split))
        assert len(batches) == len(stream(store, split=split)) == -(-len(data) // 4)
        assert [len(batch["energy"]) for batch in batches[:-1]] == [4] * (len(batches) - 1)
        where = {e: i for i, e in enumerate(data.batch(range(len(data)))["energy"].tolist())}
        assert sorted(energies(batches)) == sorted(where)
        for batch in batches:
            same = data.batch([where[e] for e in batch["energy"].tolist()])
            assert all(torch.equal(batch[name], same[name]) for name in same)
            assert set(batch) - set(same) == {"energy_mask", "forces_mask", "weight_mask"}


def test_passes_differ_and_epochs_can_be_chosen(store):
    one = stream(store)
    passes = [energies(one) for _ in range(3)]
    next(iter(one))
    assert all(sorted(found) == list(range(N)) for found in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]
    one.set_epoch(1)
    assert energies(one) == passes[1]
    assert energies(one) == passes[2]
    assert energies(stream(store, shuffle=False)) == list(range(N))


@pytest.mark.parametrize(
    "options",
    [{}, {"persistent_workers": True}, {"persistent_workers": True, "multiprocessing_context": "spawn"}],
    ids=["fork", "persistent", "spawn"],
)
def test_passes_in_workers_differ_without_a_word_about_epochs(store, options):
    one = stream(store)
    n_workers = 1 if "multiprocessing_context" in options else 2  # each that is spawned imports torch anew
    loader = DataLoader(one, batch_size=None, num_workers=n_workers, **options)
    passes = [energies(loader) for _ in range(3)]
    assert all(sorted(found) == list(range(N)) for found in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert len(loader) == len(one)


def test_an_epoch_that_is_set_reaches_workers_that_live_on(store):
    def passes(persistent):
        one = stream(store)
        torch.manual_seed(3)
        loader = DataLoader(one, batch_size=None, num_workers=2, persistent_workers=persistent)
        out = []
        for epoch in (5, 6, 5):
            one.set_epoch(epoch)
            out.append(energies(loader))
        return out

    first = passes(True)
    assert first[0] == first[2] != first[1]
    assert passes(True) == first


class Late:
    """Lets worker 1 begin only when a file is there."""

    def __init__(self, path):
        self.path = path

    def __call__(self, number):
        while number == 1 and not self.path.exists():
            time.sleep(0.01)


def test_workers_that_begin_a_pass_before_and_after_an_epoch_is_set_agree(store, tmp_path):
    """They would divide the pass differently: samples were lost and others came twice."""
    one = stream(store)
    loader = DataLoader(
        one,
        batch_size=None,
        num_workers=2,
        persistent_workers=True,
        worker_init_fn=Late(tmp_path / "go"),
        prefetch_factor=1,
    )
    batches = iter(loader)
    first = next(batches)  # worker 0 has begun
    one.set_epoch(7)
    (tmp_path / "go").touch()
    found = [*first["energy"].tolist(), *(energy for batch in batches for energy in batch["energy"].tolist())]
    assert sorted(found) == list(range(N))
    assert sorted(energies(loader)) == list(range(N))


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("epochs", ["counted", "set"])
def test_ranks_and_workers_share_an_epoch(store, n_workers, world_size, epochs):
    ranks = [stream(store, rank=r, world_size=world_size) for r in range(world_size)]
    loaders = [DataLoader(one, batch_size=None, num_workers=n_workers) for one in ranks]
    if n_workers == 0:
        next(iter(ranks[0]))  # a rank that looks at a batch before the training
    kept = []
    for epoch in range(2):
        if epochs == "set":
            for one in ranks:
                one.set_epoch(epoch)
        shares = [list(loader) for loader in loaders]
        assert len({len(batches) for batches in shares}) == 1
        assert sorted(energies(batch for batches in shares for batch in batches)) == list(range(N))
        kept.append([set(energies(batches)) for batches in shares])
    assert (kept[0] == kept[1]) == (epochs == "counted")


def test_every_rank_of_a_small_validation_has_samples(store):
    n = len(ml.TorchDataset(store, split="val"))
    for world_size in (3, 7):
        ranks = [list(stream(store, "val", batch_size=8, shuffle=False, rank=r, world_size=world_size))
                 for r in range(world_size)]  # fmt: skip
        assert len({len(batches) for batches in ranks}) == 1
        assert all(len(batch["energy"]) for batches in ranks for batch in batches)
        assert len(energies(batch for batches in ranks for batch in batches)) == n
    dropped = [list(stream(store, batch_size=8, drop_last=True, rank=r, world_size=2)) for r in range(2)]
    assert {len(batch["energy"]) for batches in dropped for batch in batches} == {8}
    assert len(dropped[0]) == len(dropped[1]) == N // 16


def test_keys_are_the_same_in_all_batches(tmp_path):
    """Blocks without forces, without stress, without a user column: the batches have them all, masked."""
    store = ml.create(tmp_path / "d.zarr")
    store.append(mixed_frames(20), teacher="emt")
    metals = ml.SampleBatch.from_ase(metal_frames(10, seed=4)).structures()
    store.append(metals.with_labels("emt", energy=np.arange(10.0)), require=("energy",))
    one = stream(store, blocks=1)
    data = ml.TorchDataset(store, split=None)
    batches = list(one)
    assert {tuple(sorted(batch)) for batch in batches} == {tuple(sorted(batches[0]))}
    assert sum(int(batch["forces_mask"].sum()) for batch in batches) == 20
    assert int(data.batch(range(30))["stress_mask"].sum()) == sum(int(b["stress_mask"].sum()) for b in batches) == 10
    only = list(stream(store, blocks=1, require=("forces",)))
    assert len(energies(only)) == 20
    assert all("forces_mask" not in batch and "stress_mask" in batch for batch in only)


def test_bad_options_and_a_store_that_was_replaced(store, tmp_path):
    for options, words in (
        ({"batch_size": 0}, "at least 1"),
        ({"split": "all"}, "train, val, test"),
        ({"dtype": torch.int64}, "floating dtype"),
        ({"rank": 2, "world_size": 2}, "rank: expected 0 to 1"),
        ({"require": ("dipole",)}, "require: expected labels"),
        ({"columns": ("weigth",)}, r"numeric user columns \(weight\)"),
    ):
        with pytest.raises(DataError, match=words):
            stream(store, **options)
    one = stream(store)
    assert energies(pickle.loads(pickle.dumps(one))) == energies(one)
    other = ml.create(tmp_path / "other.zarr")
    other.append(metal_frames(3))
    one.source, one.teacher = other.snapshot(), "reference"
    with pytest.raises(DataError, match="make a new stream"):
        next(iter(one))
