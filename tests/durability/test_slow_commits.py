"""Garbage collection against whatever is slow between its data and its commit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError, FormatError, StorageError
from mlffstore.format.log import Log
from mlffstore.storage import local
from mlffstore.store import staging
from mlffstore.store.maintenance import garbage
from tests.durability.faults import FaultyOs
from tests.samples import metal_frames

DAY = 24 * 3600.0
WRITES = {
    "append": lambda store: store.append(metal_frames(1, seed=9)),
    "rejected": lambda store: store.commit(None, rejected=batch(8), reasons=["hot", "cold"]),
    "column": lambda store: store.add_column("mine", np.arange(len(store))),
    "labels": lambda store: store.add_labels("emt"),
    "rest of labels": lambda store: store.add_labels("emt"),
    "compact": lambda store: store.compact(),
}


def batch(seed: int) -> ml.SampleBatch:
    return ml.SampleBatch.from_ase(metal_frames(2, seed=seed))


def age(store: ml.Store, seconds: float) -> None:
    """Make every file of a store older."""
    for path in Path(store.url).rglob("*"):
        changed = path.stat().st_mtime - seconds
        os.utime(path, (changed, changed))


@pytest.fixture(params=WRITES)
def what(request):
    return request.param


@pytest.fixture
def store(tmp_path, what):
    store = ml.create(tmp_path / "d.zarr")
    for i in range(3):
        store.append(batch(i))
    if what == "rest of labels":  # some samples of a segment have the teacher's labels: the segment is rewritten
        energy = np.array([1.0, np.nan])
        forces = np.where(np.arange(batch(7).n_atoms_total)[:, None] < batch(7).n_atoms[0], 0.0, np.nan)
        store.append(
            batch(7).structures().with_labels("emt", energy=energy, forces=np.repeat(forces, 3, 1)), require=()
        )
    return store


def before_the_claim(monkeypatch, action) -> None:
    """Do something once between the data of a commit and its claim."""
    commit, done = Log.commit, []

    def late(self, *arguments):
        if not done and arguments[0] != "expire":
            done.append(True)
            action()
        return commit(self, *arguments)

    monkeypatch.setattr(Log, "commit", late)


def test_what_was_collected_is_not_committed(store, what, monkeypatch):
    """The clock of the writer says nothing: its machine was suspended for a day."""

    def collect() -> None:
        age(store, DAY + 60)
        assert ml.open(store.url, "a").gc(dry_run=False).n_files > 0

    before = store.version
    before_the_claim(monkeypatch, collect)
    with pytest.raises(StorageError, match="written too long before its commit"):
        WRITES[what](store)
    assert store.version == before
    assert store.verify(full=True).ok
    WRITES[what](store)
    assert store.version > before
    assert store.verify(full=True).ok
    assert ml.open(store.url, "a").gc(grace=0).paths == ()


def test_what_is_committed_while_garbage_is_collected_stays(store, what, monkeypatch):
    """The collector has read the log and found old files; the writer wakes and commits before they are removed."""
    commit, find = Log.commit, garbage._Needed._find
    removed: list[tuple[str, ...]] = []

    def late(self, *arguments):
        monkeypatch.setattr(Log, "commit", commit)
        answers = []

        def wake(needed):
            monkeypatch.setattr(garbage._Needed, "_find", find)
            files = find(needed)
            answers.append(commit(self, *arguments))
            return files

        monkeypatch.setattr(garbage._Needed, "_find", wake)
        age(store, DAY + 60)
        removed.append(ml.open(store.url, "a").gc(dry_run=False).paths)
        return answers[0]

    monkeypatch.setattr(Log, "commit", late)
    WRITES[what](store)
    assert removed == [()]
    assert store.verify(full=True).ok


def test_on_an_object_store_only_slow_commits_look(monkeypatch):
    """Each look is a request there, so files younger than any grace period are taken for granted."""
    store = ml.create("memory://slow-commits")
    removed = []

    def collect() -> None:
        removed.append(ml.open(store.url, "a").gc(dry_run=False, grace=0).n_files)

    before_the_claim(monkeypatch, collect)
    monkeypatch.setattr(staging, "SURELY_THERE_SECONDS", 0.0)
    with pytest.raises(StorageError, match="written too long before its commit"):
        store.append(batch(0))
    assert removed[0] > 0
    assert store.append(batch(0)) == 1
    assert store.verify(full=True).ok


def test_the_clock_of_waiting_runs_with_real_time():
    before = staging.clock()
    time.sleep(0.02)
    assert 0.02 <= staging.clock() - before < 20


@pytest.mark.parametrize("grace", [1, 599.0])
def test_a_short_grace_period_needs_a_word(tmp_path, grace):
    store = ml.create(tmp_path / "d.zarr")
    with pytest.raises(DataError, match="grace: expected at least 600 s"):
        store.gc(dry_run=False, grace=grace)
    assert store.gc(grace=grace).dry_run
    for allowed in ({"grace": grace, "short_grace": True}, {"grace": 0}, {"grace": 600}, {}):
        assert store.gc(dry_run=False, **allowed).paths == ()


def test_collection_makes_no_file(tmp_path, monkeypatch):
    """A disk without free inodes can be collected."""
    store = ml.create(tmp_path / "d.zarr")
    store._storage.write(f"segments/{'0' * 32}.zarr.zip", [b"PK"])
    faulty = FaultyOs()
    monkeypatch.setattr(local, "os", faulty)
    assert store.gc(dry_run=False, grace=0).n_files == 1
    assert not {"mkdir", "makedirs", "link", "replace", "write", "fsync"} & set(faulty.calls)


@pytest.mark.parametrize("name", ["layers", "segments/" + "0" * 32])
def test_collection_follows_no_link(tmp_path, name):
    home = tmp_path / "home"
    (home / "project" / "results").mkdir(parents=True)
    (home / "project" / "notes").write_text("mine")
    store = ml.create(tmp_path / "d.zarr")
    store.append(batch(0))
    (tmp_path / "d.zarr" / name).symlink_to(home)
    age(store, 3 * DAY)
    for path in (home / "project" / "results", home / "project", home):
        os.utime(path, (0, 0))
    try:
        assert ml.open(store.url, "a").gc(dry_run=False).paths == ()
    except FormatError as error:
        assert "symbolic link" in str(error)  # noqa: PT017
    assert (home / "project" / "results").is_dir()
    assert (home / "project" / "notes").read_text() == "mine"
