"""A selection trains as a snapshot does: `TorchDataset(selection)`, its loader, its cache, and other processes."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch

import mlffstore as ml
from mlffstore.release.samples import open_release
from tests.samples import mixed_frames


@pytest.fixture
def store(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr")
    store.append(mixed_frames(40, 0), teacher="emt")
    store.append(mixed_frames(40, 1), teacher="emt")
    return store


def energies(data) -> list[float]:
    """Return the energies of every sample of a dataset, sorted."""
    batches = data.loader(batch_size=7, shuffle=True)
    return sorted(value for batch in batches for value in batch["energy"].tolist())


def expected(selection, split):
    """Return the energies of a split of a selection, read by itself."""
    index = selection.split_indices(split) if split else slice(None)
    return sorted(selection.read(index).label("energy", "emt").tolist())


@pytest.mark.parametrize("split", ["train", "val", "test", None])
@pytest.mark.parametrize("cache", ["mapped", "memory"])
def test_a_selection_trains_on_its_samples_alone(store, split, cache):
    snap = store.snapshot()
    chosen = snap.select("periodic and n_atoms <= 8")
    assert 0 < len(chosen) < len(snap)
    data = ml.TorchDataset(chosen, split, cache=cache, dtype=torch.float64)
    assert energies(data) == expected(chosen, split)
    assert len(data) == len(expected(chosen, split))
    assert set(expected(chosen, split)) <= set(expected(snap, split))


def test_its_splits_are_those_of_the_store(store):
    snap = store.snapshot()
    chosen = snap.select(order_by="max_force desc", limit=30)
    of_store = dict(zip(snap.read().content_hash.tolist(), snap.split_codes().tolist(), strict=True))
    for code, split in enumerate(("train", "val", "test")):
        hashes = chosen.read(chosen.split_indices(split)).content_hash.tolist()
        assert all(of_store[one] == code for one in hashes)
        assert len(ml.TorchDataset(chosen, split)) == len(hashes)


def test_caches_of_two_selections_and_of_the_store_are_apart(store):
    snap = store.snapshot()
    whole = ml.TorchDataset(snap, None)
    small, large = (ml.TorchDataset(snap.select(f"n_atoms {sign} 4"), None) for sign in ("<=", ">"))
    assert len(small) + len(large) == len(whole) == 80
    assert len(small)
    assert len(large)
    assert sorted(energies(small) + energies(large)) == pytest.approx(energies(whole))
    assert energies(ml.TorchDataset(snap.select("n_atoms <= 4"), None)) == energies(small)  # out of the cache


def test_a_selection_stays_when_the_store_grows(store):
    chosen = store.snapshot().select("periodic")
    before = energies(ml.TorchDataset(chosen, None))
    store.append(mixed_frames(20, 5), teacher="emt")
    assert energies(ml.TorchDataset(chosen, None)) == before
    assert len(ml.TorchDataset(store.snapshot().select("periodic"), None)) > len(before)


def test_in_worker_processes_and_in_another_process(store):
    chosen = store.snapshot().select("periodic")
    data = ml.TorchDataset(chosen, None, dtype=torch.float64)
    again = pickle.loads(pickle.dumps(data))
    assert energies(again) == energies(data)
    loaded = torch.utils.data.DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert sum(1 for _ in loaded) == len(data)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(energies, data).result() == energies(data)


def test_streams_of_a_selection(store):
    chosen = store.snapshot().select("periodic")
    stream = ml.TorchDataset.stream(
        chosen, split=None, batch_size=6, shuffle=True, block_samples=10, dtype=torch.float64
    )
    found = sorted(value for batch in stream for value in batch["energy"].tolist())
    assert found == expected(chosen, None)


def test_an_empty_selection_is_refused_in_words(store):
    chosen = store.snapshot().select("n_atoms > 1000")
    for use in (ml.TorchDataset, ml.TorchDataset.stream):
        with pytest.raises(ml.errors.DataError, match=r"n_atoms > 1000.*expected samples to train on, got none"):
            use(chosen, split="train")


def test_a_selection_of_a_release(store, tmp_path):
    options = {"name": "all", "teacher": "emt", "allow_failing": True, "recheck": False}
    path = ml.export_release(store.snapshot(), tmp_path / "out", **options).parent
    release = open_release(path)
    chosen = release.select("periodic and n_atoms <= 8")
    for split in ("train", "val", None):
        data = ml.TorchDataset(chosen, split, dtype=torch.float64)
        assert energies(data) == expected(chosen, split)
    assert 0 < len(chosen) < len(release)


def test_masks_of_a_selection_whose_samples_lack_labels(store):
    store.append(mixed_frames(10, 8), teacher="other")
    chosen = store.snapshot().select("periodic")
    data = ml.TorchDataset(chosen, None, teacher="other", require=("energy",))
    labels = chosen.read().label("energy", "other")
    assert len(data) == np.isfinite(labels).sum()
