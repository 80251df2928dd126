"""A writer that wakes while garbage collection removes its file, at each of the calls that this takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import mlffstore as ml
from mlffstore.errors import StorageError
from mlffstore.format.log import Log
from mlffstore.storage import local
from tests.samples import metal_frames

DAY = 24 * 3600.0


class WatchedOs:
    """The module `os`, which calls `act` before call number `moment` of those that remove a file of data."""

    def __init__(self, moment: int, act) -> None:
        self.moment, self.act, self.calls = moment, act, 0

    def __getattr__(self, name: str):
        real = getattr(os, name)
        if name not in {"stat", "rename", "open", "fstat", "unlink"}:
            return real

        def call(*arguments, **options):
            if name == "fstat" or f"{os.sep}segments{os.sep}" in str(arguments[0]):
                self.calls += 1
                if self.calls == self.moment:
                    self.act()
            return real(*arguments, **options)

        return call


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(1, seed=1))
    return store


def collect_from(monkeypatch, store: ml.Store, action) -> tuple[str, ...]:
    """Let `os` of the storage be one that does `action(moment)` and collect garbage that is a day old."""
    for path in Path(store.url).rglob("*"):
        changed = path.stat().st_mtime - DAY - 60
        os.utime(path, (changed, changed))
    with monkeypatch.context() as patch:
        patch.setattr(local, "os", action)
        return ml.open(store.url, "a").gc(dry_run=False).paths


@pytest.mark.parametrize("moment", range(1, 12))
def test_a_writer_that_wakes_at_any_call_commits_or_is_told(store, moment, monkeypatch):
    """Its data are older than the grace period; it renews their times and claims a version between two calls of gc."""
    commit, answers = Log.commit, []

    def late(self, *arguments):
        monkeypatch.setattr(Log, "commit", commit)

        def wake() -> None:
            watched.moment = -1
            with monkeypatch.context() as patch:
                patch.setattr(local, "os", os)
                try:
                    answers.append(commit(self, *arguments))
                except StorageError as error:
                    answers.append(error)

        watched = WatchedOs(moment, wake)
        collect_from(monkeypatch, store, watched)
        if not answers:  # gc was over by then
            return commit(self, *arguments)
        if isinstance(answers[0], StorageError):
            raise answers[0]
        return answers[0]

    monkeypatch.setattr(Log, "commit", late)
    try:
        store.append(metal_frames(1, seed=2))
    except StorageError as error:
        assert "written too long before its commit" in str(error)  # noqa: PT017
        assert len(ml.open(store.url)) == 1
    else:
        assert len(ml.open(store.url)) == 2
    assert ml.open(store.url).verify(full=True).ok
    assert ml.open(store.url, "a").gc(grace=0).paths == ()


@pytest.mark.parametrize("named", [True, False])
def test_a_killed_collection_lost_nothing(store, named, monkeypatch):
    """Killed while a file is set aside: the next collection gives it its name back if the log names it."""
    (path,) = Path(store.url, "segments").iterdir()
    folder, name = path.parent, path.name if named else "0" * 32 + ".zarr.zip"
    if not named:
        (folder / name).write_bytes(path.read_bytes())
    (folder / name).rename(folder / f".tmp-aside-{name}")
    assert ml.open(store.url).verify(full=True).ok != named
    done = ml.open(store.url, "a").gc(dry_run=False, grace=0)
    assert done.n_files == (0 if named else 1)
    assert [file.name for file in folder.iterdir()] == [path.name]
    assert ml.open(store.url).verify(full=True).ok
