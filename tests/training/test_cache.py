"""The column cache: the same numbers as `Snapshot.read`, from every process, whole or not there, and bounded."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mlffstore as ml
from mlffstore.errors import CorruptionError, DataError
from mlffstore.training import cache
from tests.samples import metal_frames, mixed_frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    for k in range(4):
        store.append(mixed_frames(40, seed=k), teacher="emt")
    return store


def same(batch, expected, teacher="emt"):
    """Compare a batch of tensors with a `SampleBatch`."""
    assert batch["n_atoms"].tolist() == expected.n_atoms.tolist()
    assert batch["ptr"].tolist() == expected.offsets.tolist()
    assert batch["batch"].tolist() == np.repeat(np.arange(len(expected)), expected.n_atoms).tolist()
    for name in ("numbers", "positions", "cell", "pbc", "charge", "multiplicity"):
        assert np.array_equal(batch[name].numpy(), expected.columns[name].astype(batch[name].numpy().dtype)), name
    for name, array in expected.labels[teacher].items():
        there = ~np.isnan(array).any(axis=1) if name == "stress" else np.ones(len(array), bool)
        assert np.array_equal(batch[name].numpy(), np.nan_to_num(array)), name
        if not there.all():
            assert np.array_equal(batch[f"{name}_mask"].numpy(), there), name


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("where", ["mapped", "memory"])
def test_batches_are_what_the_snapshot_reads(tmp_path, caches, precision, where):
    store = ml.create(tmp_path / "d.zarr", precision=precision)
    store.append(mixed_frames(50), teacher="emt")
    snap = store.snapshot()
    for split in ("train", None):
        data = ml.TorchDataset(store, split=split, cache=where, dtype=torch.float64)
        index = snap.split_indices(split)
        chosen = np.random.default_rng(0).integers(0, len(index), 30)
        same(data.batch(chosen), snap.read(index[chosen]))
        assert data.content_hash.tolist() == snap.read(index).content_hash.tolist()
    assert len(cache.cached()) == (where == "mapped")


def test_a_release_gives_the_same(store, tmp_path, caches):
    path = ml.export_release(store.snapshot(), tmp_path, name="r")
    one, two = ml.TorchDataset(store, split="train"), ml.TorchDataset(path, split="train")
    assert one.content_hash.tolist() == two.content_hash.tolist()
    a, b = one.batch(range(len(one))), two.batch(range(len(two)))
    assert all(torch.equal(a[name].nan_to_num(), b[name].nan_to_num()) for name in a)
    assert len(cache.cached()) == 2


def test_labels_that_only_some_samples_have(tmp_path, caches):
    """A teacher without forces, and samples that a teacher did not label, do not shift anything."""
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(10), teacher="a")
    batch = ml.SampleBatch.from_ase(metal_frames(10, seed=5)).structures()
    store.append(batch.with_labels("b", energy=np.arange(10.0)), require=("energy",))
    store.append(metal_frames(6, seed=9), teacher="a")
    data = ml.TorchDataset(store, split=None, teacher="a")
    assert len(data) == 16
    same(data.batch(range(16)), store.snapshot().read([*range(10), *range(20, 26)], teacher="a"), "a")
    only = ml.TorchDataset(store, split=None, teacher="b").batch([3, 1])
    assert only["energy"].tolist() == [3.0, 1.0]
    assert "forces" not in only


def test_a_store_that_grows_is_read_as_of_the_version_at_the_start(store, caches):
    data = ml.TorchDataset(store.url, split=None)
    store.append(mixed_frames(7, seed=99), teacher="emt")
    again = pickle.loads(pickle.dumps(data))
    assert len(again) == len(data) == 160
    assert len(ml.TorchDataset(store.url, split=None)) == 167
    assert len(cache.cached()) == 2


def read_in_child(data, queue):
    queue.put(data.batch([5, 0])["energy"].tolist())


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_every_way_of_starting_a_process(store, caches, method):
    data = ml.TorchDataset(store, split=None)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(data, queue))
    child.start()
    assert queue.get(timeout=60) == data.batch([5, 0])["energy"].tolist()
    child.join()
    n_workers = 1 if method == "spawn" else 2  # each imports torch anew
    loader = DataLoader(
        data, batch_size=16, collate_fn=data.collate, num_workers=n_workers, multiprocessing_context=method,
        shuffle=False,
    )  # fmt: skip
    energies = torch.cat([batch["energy"] for batch in loader])
    assert torch.equal(energies, data.batch(range(len(data)))["energy"])


def test_damage_is_found_and_a_killed_build_leaves_nothing_that_counts(store, caches):
    data = ml.TorchDataset(store, split=None)
    (one,) = cache.cached()
    assert one.samples == 160
    assert cache.damage(one.path) == ""
    records = one.path / "records.bin"
    whole = records.read_bytes()
    records.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert cache.damage(one.path) == "sample 0 changed"
    records.write_bytes(whole[:-64])
    with pytest.raises(CorruptionError, match="mlffstore cache --clear"):
        ml.TorchDataset(store, split=None)
    shutil.rmtree(one.path)
    leftover = caches / "abc.tmp"
    leftover.mkdir()
    (leftover / "records.bin").write_bytes(b"half")
    assert cache.cached() == []
    assert torch.equal(ml.TorchDataset(store, split=None).batch([1])["energy"], data.batch([1])["energy"])


def test_the_cache_is_bounded(tmp_path, caches, monkeypatch):
    stores = []
    for k in range(3):
        stores.append(ml.create(tmp_path / f"{k}.zarr"))
        stores[-1].append(metal_frames(30, seed=k), teacher="emt")
        ml.TorchDataset(stores[-1], split=None)
    first, *_ = sorted(cache.cached(), key=lambda one: one.used)
    monkeypatch.setenv("MLFFSTORE_CACHE_GB", str(2.6 * first.nbytes / 1e9))
    removed = cache.make_room(first.nbytes)
    assert next(one.path for one in removed) == first.path
    assert len(cache.cached()) == 1
    monkeypatch.setenv("MLFFSTORE_CACHE_GB", "1e-9")
    with pytest.raises(DataError, match="MLFFSTORE_CACHE_GB"):
        ml.TorchDataset(stores[0], split=None)
    monkeypatch.setenv("MLFFSTORE_CACHE_GB", "much")
    with pytest.raises(DataError, match="number of gigabytes"):
        ml.TorchDataset(stores[0], split=None)
    assert len(ml.TorchDataset(stores[0], split=None, cache="memory")) == 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache": "disk"}, "'mapped' or 'memory'"),
        ({"neighbours": -1}, "cutoff"),
        ({"split": "all"}, "train, val, test"),
        ({"dtype": torch.int32}, "floating dtype"),
    ],
)
def test_bad_options(store, caches, options, words):
    with pytest.raises(DataError, match=words):
        ml.TorchDataset(store, **options)
