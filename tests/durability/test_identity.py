"""A store that is moved, made anew or damaged behind a writer's back: refused before the acknowledgement, never bricked."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, CorruptionError, StorageError, StoreNotFoundError
from mlffstore.format.entry import entry_path
from tests.samples import metal_frames

REFUSALS = (ConflictError, StorageError, CorruptionError)
#: These miss the files of segments before they come to the log.
READ_FIRST = ("labels", "compact")
WRITES = {
    "append": lambda store: store.append(metal_frames(1, seed=9), key="late"),
    "tag": lambda store: store.tag("late", 1),
    "column": lambda store: store.add_column("late", [1] * len(store)),
    "labels": lambda store: store.add_labels("emt"),
    "compact": lambda store: store.compact(),
    "expire": lambda store: store.gc(dry_run=False, expire_before=1),
}


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    for i in range(4):
        store.append(metal_frames(1, seed=i), key=f"{i}")
    return store


def content(folder: str) -> dict[str, bytes]:
    """Return every file below a folder, without empty folders."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("what", WRITES)
def test_a_store_that_was_made_anew(store, what):
    shutil.rmtree(store.url)
    new = ml.create(store.url)
    new.append(metal_frames(2, seed=7))
    before = content(store.url)
    with pytest.raises(REFUSALS) as caught:
        WRITES[what](store)
    if what not in READ_FIRST:
        assert "expected entry 4 of the log as it was read before, got none" in str(caught.value)
    assert content(store.url) == before
    for i in range(8):  # the new log passes the number that the old writer would have claimed
        new.append(metal_frames(1, seed=i))
    assert len(ml.open(store.url)) == 10
    assert new.verify(full=True).ok
    with pytest.raises(REFUSALS):
        WRITES["append"](store)


@pytest.mark.parametrize("what", WRITES)
def test_a_store_that_was_moved_away(store, what):
    elsewhere = store.url + ".old"
    os.rename(store.url, elsewhere)
    before = content(elsewhere)
    with pytest.raises(REFUSALS):
        WRITES[what](store)
    assert not os.path.exists(store.url)
    assert content(elsewhere) == before
    os.rename(elsewhere, store.url)  # mounted again
    assert store.append(metal_frames(1, seed=9), key="late") == 5
    assert store.verify(full=True).ok


def test_a_gap_in_the_log_is_not_filled(store):
    """Entry 3 is lost: a writer that filled the gap would make the entries after it unreadable for good."""
    for last in (4, 3):
        os.rename(f"{store.url}/{entry_path(last)}", f"{store.url}.{last}")
    writer = ml.open(store.url, "a")
    os.rename(f"{store.url}.4", f"{store.url}/{entry_path(4)}")
    with pytest.raises(ConflictError, match=r"expected version 2 to be the last, got _log/0*4\.json without"):
        writer.append(metal_frames(1, seed=9))
    os.rename(f"{store.url}.3", f"{store.url}/{entry_path(3)}")
    assert writer.append(metal_frames(1, seed=9)) == 5
    assert store.verify(full=True).ok


def test_two_commits_between_reading_and_claiming_are_no_gap(store, monkeypatch):
    other, check, done = ml.open(store.url, "a"), store._log._check_in_place, []

    def late(state):
        if not done:
            done.append([other.append(metal_frames(1, seed=5)), other.append(metal_frames(1, seed=6))])
        check(state)

    monkeypatch.setattr(store._log, "_check_in_place", late)
    assert store.append(metal_frames(1, seed=9)) == 7
    assert done == [[5, 6]]


def test_an_entry_that_was_exchanged(store, tmp_path):
    other = ml.create(tmp_path / "other.zarr")
    for i in range(4):
        other.append(metal_frames(1, seed=i))
    shutil.copy(f"{other.url}/{entry_path(4)}", f"{store.url}/{entry_path(4)}")
    with pytest.raises(ConflictError, match=r"expected entry 4 .*got another one"):
        store.append(metal_frames(1, seed=9))


def test_pickles_and_provenance_of_a_relative_path_stay_with_the_store(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        ml.create("d.zarr").append(metal_frames(2), provenance={"folder": folder})
    monkeypatch.chdir(tmp_path / "a")
    store = ml.open("d.zarr")
    snap, text = store.snapshot(), pickle.dumps([store, store.snapshot()])
    monkeypatch.chdir(tmp_path / "b")
    assert [one["folder"] for one in snap.provenance()] == ["a"]
    again, again_snap = pickle.loads(text)
    assert (again.uuid, again_snap.store_uuid) == (store.uuid, store.uuid)
    assert [one["folder"] for one in again_snap.provenance()] == ["a"]


def test_a_pickle_is_refused_where_another_store_lies(store):
    text, snap = pickle.dumps(store), store.snapshot()
    shutil.rmtree(store.url)
    ml.create(store.url)
    with pytest.raises(StoreNotFoundError, match=f"expected the store {store.uuid}, got"):
        pickle.loads(text)
    with pytest.raises(StoreNotFoundError, match="another store was put in its place"):
        snap.provenance()
