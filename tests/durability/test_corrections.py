"""Removals and reversals beside other writers: nothing is lost, nothing comes back, and nothing is removed twice."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, CorruptionError
from mlffstore.format.segment import write_segment
from mlffstore.store import revision, transaction
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
    store._storage.delete([segment.path])
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
