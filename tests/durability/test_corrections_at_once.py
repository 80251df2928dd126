"""Removals beside other processes, and when the storage fails."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import MlffstoreError, StorageError
from mlffstore.format.segment import write_segment
from mlffstore.storage import local
from mlffstore.store import revision
from tests.durability.faults import FaultyOs
from tests.processes import fresh_processes
from tests.samples import metal_frames


@pytest.fixture
def store(tmp_path):
    """Twelve commits of two samples, with the column `number`."""
    store = ml.create(tmp_path / "d.zarr")
    for seed in range(12):
        store.append(metal_frames(2, seed=seed))
    store.add_column("number", np.arange(24), axis="sample")
    return store


def numbers(snapshot: ml.Snapshot) -> list[int]:
    return snapshot.read().columns["number"].tolist()


def append_some(url: str, barrier) -> None:
    store = ml.open(url, "a")
    barrier.wait()
    for seed in range(100, 112):
        store.append(metal_frames(2, seed=seed), on_duplicate="skip", key=f"append/{seed}")


def remove_some(url: str, barrier, which: int) -> None:
    store = ml.open(url, "a")
    snapshot = store.snapshot(13)
    barrier.wait()
    for i in range(which, 24, 4):  # of two processes that overlap in half of them
        store.remove([i, (i + 2) % 24], reason=f"process {which}", snapshot=snapshot, key=f"remove/{which}/{i}")


def compact_and_collect(url: str, barrier) -> None:
    store = ml.open(url, "a")
    barrier.wait()
    for _ in range(12):
        store.compact(target_nbytes=20_000)
        store.gc(dry_run=False, expire_before=max(0, store.version - 60))


def label(url: str, barrier) -> None:
    store = ml.open(url, "a")
    barrier.wait()
    for _ in range(3):
        store.add_labels("emt")


def test_processes_append_remove_label_and_compact_at_once(store):
    context = fresh_processes()
    barrier = context.Barrier(5)
    jobs = [(append_some, ()), (remove_some, (0,)), (remove_some, (2,)), (compact_and_collect, ()), (label, ())]
    workers = [context.Process(target=job, args=(store.url, barrier, *extra)) for job, extra in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    snap = ml.open(store.url).snapshot()
    left = [i for i in range(24) if i % 2]
    assert snap.read().columns["number"][: len(left)].tolist() == left
    quarantine = snap.quarantine
    assert sorted(numbers(quarantine)) == [i for i in range(24) if not i % 2]  # each once
    assert len(snap) == len(left) + 24
    hashes = (
        ml.SampleBatch.from_ase([f for s in range(100, 112) for f in metal_frames(2, seed=s)])
        .astype("float32")
        .content_hash
    )
    assert np.array_equal(snap.read(slice(len(left), None)).content_hash, hashes)
    assert store.verify(full=True).ok


# -- faults ------------------------------------------------------------------------------------------------------


def test_an_unclear_claim_is_looked_up(store, monkeypatch):
    claim, calls = store._log._claim, []

    def fail(path, data):
        done = claim(path, data)
        calls.append(done)
        if len(calls) == 1:
            raise StorageError("the reply was lost")
        return done

    monkeypatch.setattr(store._log, "_claim", fail)
    assert store.remove([0, 3], reason="bad") == 14  # took effect once
    assert (store.version, len(store), len(calls)) == (14, 22, 1)


def test_a_failed_removal_leaves_nothing_behind(store, monkeypatch):
    def fail(storage, batch):
        if len(batch) == 1:
            raise StorageError("no space left")
        return write_segment(storage, batch)

    before = {file.path for file in store._storage.list("segments")}
    monkeypatch.setattr(revision, "write_segment", fail)
    with pytest.raises(StorageError, match="no space left"):
        store.remove([0, 1, 2], reason="bad")
    assert {file.path for file in store._storage.list("segments")} == before
    monkeypatch.undo()
    assert store.remove([0, 1, 2], reason="bad") == 14


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["error", "error after the effect"])
def test_every_call_of_a_removal_may_fail(after, tmp_path, monkeypatch):
    n = 400
    store = ml.create(tmp_path / "d.zarr")
    store.append(
        ml.SampleBatch(n_atoms=[1] * n, numbers=[2] * n, positions=np.arange(3 * n).reshape(n, 3) / 7), require=()
    )
    hashes = store.snapshot().read().content_hash.tolist()
    fail_at = failures = 0
    while True:
        before, key, probe = len(store), f"call {fail_at}", FaultyOs(fail_at, errno.EIO, after=after)
        monkeypatch.setattr(local, "os", probe)
        acknowledged, message = None, store.url
        try:
            acknowledged = store.remove([0], reason=key, key=key)
        except MlffstoreError as error:  # anything else would be a bug
            failures, message = failures + 1, str(error)
        assert store.url in message
        monkeypatch.setattr(local, "os", os)
        assert len(ml.open(store.url)) in (before, before - 1)  # all of it or nothing
        version = store.remove([0], reason=key, key=key)
        assert version == (acknowledged or version)
        assert len(store) == before - 1
        if len(probe.calls) <= fail_at:
            break
        fail_at += 1
    assert failures > fail_at // 3 > 6  # the others can be made good: a second try, a name that was written after all
    snap = ml.open(store.url).snapshot()
    assert snap.read().content_hash.tolist() == hashes[fail_at + 1 :]
    assert snap.quarantine.read().content_hash.tolist() == hashes[: fail_at + 1]
    assert store.verify(full=True).ok
