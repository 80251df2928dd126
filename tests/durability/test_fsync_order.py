"""Which names and bytes are not durable yet when a version is claimed and when a call returns: none.

A name is durable once its folder was fsynced after it was made, a file once it was fsynced after its last write.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

import mlffstore as ml
from mlffstore.storage import local
from tests.samples import metal_frames


class WatchedOs:
    """The module `os`, which keeps account of what a power loss would take."""

    def __init__(self) -> None:
        self._lock, self._paths = threading.Lock(), {}
        self.names: set[str] = set()
        self.files: set[str] = set()
        self.claims: list[tuple[str, list[str]]] = []
        self.n_fsyncs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, *mode: int) -> int:
        fd = os.open(path, flags, *mode)
        with self._lock:
            self._paths[fd] = str(path)
            if flags & os.O_CREAT:
                self.names.add(str(path))
                self.files.add(str(path))
        return fd

    def write(self, fd: int, data: Any) -> int:
        with self._lock:
            self.files.add(self._paths[fd])
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)
        with self._lock:
            self.n_fsyncs += 1
            self.files.discard(self._paths[fd])
            self.names = {name for name in self.names if os.path.dirname(name) != self._paths[fd]}

    def mkdir(self, path: str, *mode: int) -> None:
        os.mkdir(path, *mode)
        with self._lock:
            self.names.add(str(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        missing = []
        folder = str(path)
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        os.makedirs(path, exist_ok=exist_ok)
        with self._lock:
            self.names.update(missing)

    def link(self, source: str, target: str) -> None:
        with self._lock:
            self.claims.append((target, self.doubtful(source)))
        os.link(source, target)
        with self._lock:
            self.names.add(str(target))

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)
        with self._lock:
            self.names.discard(source)

    def unlink(self, path: str) -> None:
        os.unlink(path)
        with self._lock:
            self.names.discard(path)
            self.files.discard(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)
        with self._lock:
            self.names.discard(path)

    def doubtful(self, entry: str = "") -> list[str]:
        """Return what a power loss now would take, but for temporary files and hints."""
        hints = (".tmp-", "_checkpoint")
        return sorted(path for path in self.names | self.files if (path == entry and path in self.files)
                      or not any(hint in path for hint in hints))  # fmt: skip


@pytest.fixture
def watched(monkeypatch):
    watched = WatchedOs()
    monkeypatch.setattr(local, "os", watched)
    return watched


def test_everything_is_durable_before_the_claim_that_needs_it_and_when_a_call_returns(watched, tmp_path):
    url = tmp_path / "new" / "folders" / "d.zarr"
    store = ml.create(url)
    assert watched.doubtful() == []
    calls = {
        "first append": lambda: store.append(metal_frames(2), key="k"),
        "append": lambda: store.append(metal_frames(2, seed=1)),
        "first layer": lambda: store.add_column("mine", [1, 2, 3, 4]),
        "labels": lambda: store.add_labels("emt"),
        "tag": lambda: store.tag("v1"),
        "compact": lambda: store.compact(),
        "gc": lambda: store.gc(dry_run=False, grace=0, expire_before=store.version),
    }
    for name, call in calls.items():
        n_claims = len(watched.claims)
        call()
        assert watched.doubtful() == [], name
        assert len(watched.claims) > n_claims, name
    assert [(path, doubt) for path, doubt in watched.claims if doubt] == []
    assert store.verify(full=True).ok


def test_a_process_makes_durable_what_another_one_may_not_have_yet(watched, tmp_path):
    """Folders that are there may have been made a moment ago by a process that has not come to its fsync."""
    store = ml.create(tmp_path / "d.zarr")
    for name in ("segments", "layers"):
        os.mkdir(f"{store.url}/{name}")
    other = ml.open(store.url, "a")
    watched.names |= {store.url, f"{store.url}/segments", f"{store.url}/_log", f"{store.url}/zarr.json"}
    other.append(metal_frames(1))
    assert [doubt for _, doubt in watched.claims if doubt] == []
    assert watched.doubtful() == []


def test_a_known_key_is_made_durable_before_it_is_acknowledged(watched, tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(1), key="k")
    entry = f"{store.url}/_log/{1:020d}.json"
    for again in (store, ml.open(store.url, "a")):
        watched.names.add(entry)
        watched.files.add(entry)
        assert again.append(metal_frames(1), key="k") == 1
        assert watched.doubtful() == []


def test_a_commit_costs_two_fsyncs_beside_its_data(watched, tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(1))
    before = watched.n_fsyncs
    store.tag("v1")
    assert watched.n_fsyncs - before == 2
