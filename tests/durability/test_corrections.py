"""Removals and reversals beside other writers: nothing is lost, nothing comes back, and nothing is removed twice."""

from __future__ import annotations

import errno
import multiprocessing
import os

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, CorruptionError, MlffstoreError, StorageError
from mlffstore.format.segment import write_segment
from mlffstore.storage import local
from mlffstore.store import revision, transaction
from tests.durability.faults import FaultyOs
from tests.samples import metal_frames

SEEDS = range(12)


@pytest.fixture
def store(tmp_path):
    """Twelve commits of two samples, with the column `number`."""
    store = ml.create(tmp_path / "d.zarr")
    for seed in SEEDS:
        store.append(metal_frames(2, seed=seed))
    store.add_column("number", np.arange(24), axis="sample")
    return store


def numbers(snapshot: ml.Snapshot) -> list[int]:
    return snapshot.read().columns["number"].tolist()


def meddle_once(monkeypatch, action) -> list[int]:
    """Let another writer act when a revision has written its first segment; return the number of segments written."""
    written: list[int] = []

    def write(storage, batch):
        segment = write_segment(storage, batch)
        written.append(len(batch))
        if len(written) == 1:
            action()
        return segment

    monkeypatch.setattr(revision, "write_segment", write)
    return written


def test_a_removal_finds_its_samples_after_a_compaction_meanwhile(store, monkeypatch):
    other = ml.open(store.url, "a")
    meddle_once(monkeypatch, other.compact)
    store.remove([0, 1, 5, 23], reason="bad")
    assert numbers(store.snapshot()) == [i for i in range(24) if i not in (0, 1, 5, 23)]
    assert numbers(store.snapshot().quarantine) == [0, 1, 5, 23]
    assert len(store.snapshot().segments) == 1
    assert store.gc(grace=0).paths == ()  # what was written in vain is gone
    assert store.verify(full=True).ok


def test_only_what_changed_is_written_again(store, monkeypatch):
    other = ml.open(store.url, "a")
    monkeypatch.setattr(revision, "_MOVED_NBYTES", 1)  # a piece for each segment
    written = meddle_once(monkeypatch, lambda: other.remove([23], reason="other"))
    store.remove([0, 2, 4, 6, 22, 23], reason="bad")
    # Four segments with a rest, the fifth without one; the two of the other writer; the fifth again.
    assert len(written) == 9 + 2 + 1
    assert numbers(store.snapshot()) == [1, 3, 5, 7, *range(8, 22)]
    assert numbers(store.snapshot().quarantine) == [23, 0, 2, 4, 6, 22]
    assert store.gc(grace=0).paths == ()


def test_labels_and_appends_meanwhile_are_kept(store, monkeypatch):
    other = ml.open(store.url, "a")

    def act():
        other.add_labels("emt")
        other.append(metal_frames(1, seed=77))

    meddle_once(monkeypatch, act)
    store.remove([0, 2], reason="bad")
    batch = store.snapshot().read()
    assert (len(batch), int(np.isnan(batch.label("energy", "emt")).sum())) == (23, 1)
    assert np.isfinite(store.snapshot().quarantine.read().label("energy", "emt")).all()
    assert store.verify(full=True).ok


def test_the_same_samples_removed_by_another_meanwhile_go_once(store, monkeypatch):
    other = ml.open(store.url, "a")
    meddle_once(monkeypatch, lambda: other.remove([0, 1, 2], reason="first"))
    version = store.remove([0, 1, 2], reason="second")
    assert version == store.version == 14  # that of the other: there was nothing left to remove
    assert store.snapshot().quarantine.reasons() == ["first"] * 3
    assert store.gc(grace=0).paths == ()


def test_one_key_by_two_writers_is_done_once(store, monkeypatch):
    other = ml.open(store.url, "a")
    meddle_once(monkeypatch, lambda: other.remove([0, 1], reason="first", key="k"))
    assert store.remove([0, 1], reason="second", key="k") == 14
    monkeypatch.undo()
    meddle_once(monkeypatch, lambda: other.remove([5], reason="first", key="l"))
    with pytest.raises(ConflictError, match="key 'l': version 15 did something else"):
        store.remove([6], reason="second", key="l")
    assert len(store) == 21
    assert store.gc(grace=0).paths == ()


def test_endless_changes_end_in_a_conflict(store, monkeypatch):
    other = ml.open(store.url, "a")

    def write(storage, batch):
        other.add_column(f"c{other.version}", np.zeros(24))
        return write_segment(storage, batch)

    monkeypatch.setattr(revision, "write_segment", write)
    with pytest.raises(ConflictError, match="changed the same segments 10 times"):
        store.remove([0], reason="bad")
    assert len(store) == 24
    assert store.gc(grace=0).paths == ()


def test_a_compaction_and_a_label_pass_give_way_to_a_removal(store, monkeypatch):
    from mlffstore.store import labelling
    from mlffstore.store.maintenance import compaction

    other = ml.open(store.url, "a")

    def write(storage, batch):
        other.remove([3], reason="bad")
        return write_segment(storage, batch)

    monkeypatch.setattr(compaction, "write_segment", write)
    assert store.compact().n_conflicts == 1
    monkeypatch.undo()
    assert numbers(store.snapshot()) == [i for i in range(24) if i != 3]
    write_layer, calls = labelling.write_layer, []

    def write_slowly(storage, segment, columns):
        if not calls:
            i = [one.path for one in other.snapshot().segments].index(segment.path)
            start = sum(one.n_samples for one in other.snapshot().segments[:i])
            other.remove([start], reason="bad")
        calls.append(segment)
        return write_layer(storage, segment, columns)

    monkeypatch.setattr(labelling, "write_layer", write_slowly)
    report = store.add_labels("emt")
    assert report.n_conflicts == 1
    assert np.isfinite(store.snapshot().read().label("energy", "emt")).all()
    assert len(store) == 22
    assert store.verify(full=True).ok


def test_files_that_were_merged_and_collected_meanwhile_are_no_damage(store, monkeypatch):
    other = ml.open(store.url, "a")

    def act():
        other.compact()
        other.gc(dry_run=False, grace=0, expire_before=other.version, short_grace=True)

    read, calls = revision.read_segment, []

    def read_slowly(reader, segment):
        calls.append(segment)
        if len(calls) == 1:
            act()
        return read(reader, segment)

    monkeypatch.setattr(revision, "read_segment", read_slowly)
    store.remove([0, 4], reason="bad")
    assert numbers(store.snapshot()) == [1, 2, 3, *range(5, 24)]
    monkeypatch.undo()
    segment = store.snapshot().segments[0]
    for file in list(store._storage.list(segment.path)):
        store._storage.delete([file.path])
    with pytest.raises(CorruptionError):
        store.remove([0], reason="bad")


# -- duplicates --------------------------------------------------------------------------------------------------


def test_what_was_skipped_and_removed_before_the_commit_is_appended(store, monkeypatch):
    other = ml.open(store.url, "a")
    calls: list[ml.SampleBatch] = []
    gone = [0]

    def write(storage, batch):
        if not calls:
            other.remove(gone, reason="bad")
        calls.append(batch)
        return write_segment(storage, batch)

    monkeypatch.setattr(transaction, "write_segment", write)
    frames = [*metal_frames(2, seed=0), *metal_frames(1, seed=50)]
    store.append(frames, on_duplicate="skip")
    assert len(store) == 25
    assert store.holds(ml.SampleBatch.from_ase(frames).astype("float32").content_hash).all()
    calls.clear()
    gone[:] = [1]  # the first structure of the second commit, since the first of all is gone
    with store.transaction(on_duplicate="skip") as tx:
        tx.add(ml.SampleBatch.from_ase([*metal_frames(2, seed=1), *metal_frames(1, seed=51)]))
        with pytest.raises(ConflictError, match="append the samples again"):
            tx.commit()
    assert store.gc(grace=0).paths == ()


# -- processes ---------------------------------------------------------------------------------------------------


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
    context = multiprocessing.get_context("spawn")
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
    assert failures > fail_at // 2 > 10
    snap = ml.open(store.url).snapshot()
    assert snap.read().content_hash.tolist() == hashes[fail_at + 1 :]
    assert snap.quarantine.read().content_hash.tolist() == hashes[: fail_at + 1]
    assert store.verify(full=True).ok
