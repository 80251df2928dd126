"""Structures that are there already: kept, skipped or refused, also between processes."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError
from mlffstore.store.duplicates import HashSet
from tests.processes import fresh_processes
from tests.samples import metal_frames


@pytest.fixture
def store(tmp_path):
    return ml.create(tmp_path / "d.zarr")


def test_policies(store):
    frames = metal_frames(6)
    store.append(frames[:4])
    assert store.append(frames[2:], on_duplicate="skip") == 2
    assert len(store) == 6
    assert store.history(1)[0].note == "2 duplicates skipped"
    hashes = ml.SampleBatch.from_ase(frames).astype("float32").content_hash
    assert np.array_equal(store.snapshot().read().content_hash, hashes)
    with pytest.raises(DataError, match=r"6 samples are there already .*which is in the store.*on_duplicate='skip'"):
        store.append(frames, on_duplicate="error")
    with pytest.raises(DataError, match="which is in the batch"):
        store.append([*metal_frames(1, seed=7), *metal_frames(1, seed=7)], on_duplicate="error")
    with pytest.raises(DataError, match="expected one of keep, skip, error"):
        store.append(frames, on_duplicate="drop")
    assert store.version == 2
    store.append(frames)
    assert len(store) == 12


def test_nothing_new_commits_nothing_but_a_key_is_kept(store):
    frames = metal_frames(2)
    assert store.append(frames, on_duplicate="skip") == 1
    assert store.append(frames, on_duplicate="skip") == 1
    assert store.append(frames, on_duplicate="skip", key="a") == 2
    assert store.append(frames, on_duplicate="skip", key="a") == 2
    with pytest.raises(ConflictError, match="'a': version 2 holds other samples"):
        store.append(metal_frames(2, seed=3), on_duplicate="skip", key="a")
    assert len(store) == 2


def test_duplicates_within_a_batch_keep_the_first(store):
    frames = metal_frames(2)
    store.append([frames[0], frames[1], frames[0]], on_duplicate="skip")
    assert len(store) == 2


def test_compaction_and_other_writers_do_not_confuse_the_index(store):
    other = ml.open(store.url, "a")
    for i in range(5):
        (store if i % 2 else other).append(metal_frames(3, seed=i), on_duplicate="skip")
    store.compact()
    for i in range(5):
        other.append(metal_frames(3, seed=i), on_duplicate="skip")
    assert len(store) == 15
    with other.writer(2, on_duplicate="skip") as writer:
        for frame in [*metal_frames(3, seed=2), *metal_frames(3, seed=8)]:
            writer.add(frame)
    assert len(store) == 18


def race(url: str, barrier) -> None:
    store = ml.open(url, "a")
    barrier.wait()
    for seed in range(20):
        store.append(metal_frames(2, seed=seed), on_duplicate="skip")


def test_four_processes_skip_each_others_structures(store):
    context = fresh_processes()
    barrier = context.Barrier(4)
    workers = [context.Process(target=race, args=(store.url, barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    hashes = store.snapshot().read(columns=["content_hash"]).columns["content_hash"]
    assert len(hashes) == len(set(hashes.tolist())) == 40
    assert store.verify(full=True).ok


def test_hashes_are_a_set():
    index, rng, truth = HashSet(), np.random.default_rng(0), set()
    for size in (1, 5, 100, 3, 3, 50, 1000, 1):
        block = rng.integers(0, 5000, size).astype(np.uint64)
        index.add(np.unique(block))
        truth |= set(block.tolist())
        asked = rng.integers(0, 5000, 300).astype(np.uint64)
        assert np.array_equal(index.holds(asked), [x in truth for x in asked.tolist()])
    assert len(index._blocks) < 5
