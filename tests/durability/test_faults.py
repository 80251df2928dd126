"""An append meets an error at every single call to the operating system, one after another."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import MlffstoreError, StorageError
from mlffstore.storage import local
from tests.durability.faults import FaultyOs, LossyStorage
from tests.samples import metal_frames

if TYPE_CHECKING:
    from mlffstore.store.facade import Store


def count_calls(monkeypatch, tmp_path, batch) -> int:
    """Return how many calls an append makes."""
    store = ml.create(tmp_path / "count.zarr")
    store.append(batch)
    probe = FaultyOs()
    monkeypatch.setattr(local, "os", probe)
    store.append(batch)
    monkeypatch.setattr(local, "os", os)
    assert {"open", "write", "fsync", "link", "unlink"} <= set(probe.calls)
    return len(probe.calls)


@pytest.mark.parametrize(
    ("code", "after"),
    [(errno.ENOSPC, False), (errno.EIO, False), (errno.EACCES, False), (errno.EIO, True)],
    ids=["no space", "input/output error", "permission denied", "error after the effect"],
)
def test_every_call_of_an_append_may_fail(code, after, tmp_path, monkeypatch):
    batch = ml.SampleBatch.from_ase(metal_frames(2))
    n_calls = count_calls(monkeypatch, tmp_path, batch)
    assert n_calls > 15
    store = ml.create(tmp_path / "d.zarr")
    store.append(batch)
    failures = 0
    for fail_at in range(n_calls):
        before = len(store)
        key = f"call {fail_at}"
        monkeypatch.setattr(local, "os", FaultyOs(fail_at, code, after=after))
        acknowledged, message = None, store.url
        try:
            acknowledged = store.append(batch, key=key)
        except MlffstoreError as error:  # anything else would be a bug
            failures, message = failures + 1, str(error)
        assert store.url in message
        monkeypatch.setattr(local, "os", os)
        seen = ml.open(store.url)
        assert len(seen) in (before, before + 2)  # all of it or nothing
        if acknowledged is not None:
            assert seen.keys()[key] == acknowledged
        # The same writer goes on as if nothing had happened, and no sample lands twice.
        version = store.append(batch, key=key)
        assert version == (acknowledged or version)
        assert len(store) == before + 2
    assert failures > n_calls // 3
    energies = ml.open(store.url).snapshot().read(columns=["energy"]).energy
    assert np.array_equal(energies, np.tile(batch.energy, len(energies) // 2))
    assert store.verify(full=True).ok
    store.gc(grace=0, dry_run=False)
    assert store.verify(full=True).ok


@pytest.mark.parametrize("code", [errno.EIO, errno.EEXIST, errno.ETIMEDOUT])
def test_a_link_whose_reply_is_lost_counts(code, tmp_path, monkeypatch):
    """NFS repeats a request whose reply was lost, and the second answer is "exists"; the link count tells (open(2))."""
    store = ml.create(tmp_path / "d.zarr")
    monkeypatch.setattr(local, "os", FaultyOs(0, code, after=True, only="link"))
    assert store.append(metal_frames(2)) == 1
    assert len(store) == 2


def test_a_name_that_somebody_else_took_is_a_lost_race(tmp_path, monkeypatch):
    store = ml.create(tmp_path / "d.zarr")
    other = ml.open(store.url, mode="a")
    claim, stolen = store._log._claim, []

    def late(path, data):
        if not stolen:
            stolen.append(other.append(metal_frames(1, seed=5)))
        return claim(path, data)

    monkeypatch.setattr(store._log, "_claim", late)
    assert store.append(metal_frames(2)) == 2
    assert stolen == [1]
    assert len(store) == 3


def test_a_file_system_without_links_says_so(tmp_path, monkeypatch):
    store = ml.create(tmp_path / "d.zarr")
    for attempt in (0, 1):
        monkeypatch.setattr(local, "os", FaultyOs(0, errno.EPERM, only="link"))
        with pytest.raises(StorageError, match="no hard links"):
            local._link(str(tmp_path / "d.zarr" / "zarr.json"), str(tmp_path / f"other{attempt}"))
    monkeypatch.setattr(local, "os", os)
    assert len(store) == 0


def lossy(store: Store, plan: list[str]) -> Store:
    """Return the store as seen over a connection that loses what `plan` says."""
    other = ml.open(store.url, mode="a")
    other._log.storage = LossyStorage(other._storage, plan)
    return other


@pytest.mark.parametrize("what", ["request", "reply"])
def test_a_lost_message_is_made_good(what, tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    assert lossy(store, [what]).append(metal_frames(2)) == 1
    assert len(store) == 2


@pytest.mark.parametrize("what", ["request", "reply"])
def test_an_unclear_commit_is_made_clear_by_its_key(what, tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    writer = lossy(store, [what, what])
    with pytest.raises(TimeoutError):
        writer.append(metal_frames(2), key="a")
    assert len(store) == (2 if what == "reply" else 0)
    assert writer.append(metal_frames(2), key="a") == 1
    assert len(store) == 2
    assert store.verify(full=True).ok


def test_a_failed_checkpoint_fails_no_commit(tmp_path, monkeypatch, caplog):
    from mlffstore.format import checkpoint

    monkeypatch.setattr(checkpoint, "EVERY", 2)
    store = ml.create(tmp_path / "d.zarr")
    monkeypatch.setattr(local, "os", FaultyOs(0, errno.ENOSPC, only="replace"))
    assert store.append(metal_frames(1)) == 1
    assert "no checkpoint was written" in caplog.text
    monkeypatch.setattr(local, "os", os)
    assert len(ml.open(store.url)) == 1
