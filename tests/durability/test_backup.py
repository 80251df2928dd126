"""A backup is a whole store at every moment, whatever others do to the original meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, CorruptionError, DataError, StoreExistsError
from tests.command import cli, shell
from tests.processes import fresh_processes
from tests.samples import metal_frames, molecule_frames
from tests.stored import shards

if TYPE_CHECKING:
    import multiprocessing
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> ml.Store:
    store = ml.create(tmp_path / "d.zarr")
    for i in range(4):
        store.append(molecule_frames(3, seed=i), key=f"k{i}")
    store.tag("four")
    return store


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hashes(store: ml.Store, version: int | None = None) -> list[int]:
    return store.snapshot(version).read().content_hash.tolist()


def test_backups_grow_with_the_store(store: ml.Store, tmp_path: Path) -> None:
    first = store.backup(tmp_path / "b.zarr")
    assert (first.version, first.n_entries, first.n_there) == (5, 6, 0)
    copy = ml.open(tmp_path / "b.zarr")
    assert hashes(copy) == hashes(store)
    assert (copy.uuid, copy.tags) == (store.uuid, store.tags)
    assert copy.verify(full=True).ok
    again = store.backup(tmp_path / "b.zarr")
    assert (again.n_entries, again.n_files, again.n_there) == (0, 0, first.n_files)
    store.append(metal_frames(4), teacher="emt")
    store.add_labels("emt")  # layers over some of the segments: EMT knows no molecules with oxygen
    store.compact()
    later = store.backup(tmp_path / "b.zarr")
    assert later.version == store.version
    copy = ml.open(tmp_path / "b.zarr")
    assert copy.verify(full=True).ok
    for version in range(store.version + 1):
        assert hashes(copy, version) == hashes(store, version)
    store.gc(dry_run=False, grace=0, expire_before=store.version)
    store.backup(tmp_path / "b.zarr")
    assert ml.open(tmp_path / "b.zarr").verify(full=True).ok
    fresh = store.backup(tmp_path / "c.zarr")  # the tagged version is kept, the others are not copied any more
    assert fresh.n_files < later.n_there + later.n_files
    assert hashes(ml.open(tmp_path / "c.zarr"), 4) == hashes(store, 4)


def test_what_is_refused(store: ml.Store, tmp_path: Path) -> None:
    ml.create(tmp_path / "other.zarr")
    with pytest.raises(StoreExistsError, match="another store"):
        store.backup(tmp_path / "other.zarr")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(StoreExistsError, match="other files"):
        store.backup(tmp_path / "full")
    store.backup(tmp_path / "b.zarr")
    ml.open(tmp_path / "b.zarr", "a").append(molecule_frames(1))
    store.append(metal_frames(1))
    with pytest.raises(ConflictError, match="the copy was written to"):
        store.backup(tmp_path / "b.zarr")


@pytest.mark.parametrize("place", [".", "segments/copy", "../link"])
def test_a_store_is_not_backed_up_into_itself(store: ml.Store, tmp_path: Path, place: str) -> None:
    (tmp_path / "link").symlink_to(store.url, target_is_directory=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="expected a place outside of the store"):
        store.backup(f"{store.url}/{place}")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("appends", [0, 1, 2, 3])
def test_a_store_that_was_set_back_is_not_backed_up_over_its_longer_copy(
    store: ml.Store, tmp_path: Path, appends: int
) -> None:
    """The copy has two commits that the store lost, and the store as many others, fewer or more."""
    store.backup(tmp_path / "early.zarr")
    for seed in (11, 12):
        store.append(metal_frames(2, seed=seed))
    store.backup(tmp_path / "b.zarr")
    before = files(tmp_path / "b.zarr")
    shutil.rmtree(tmp_path / "d.zarr")
    shutil.copytree(tmp_path / "early.zarr", tmp_path / "d.zarr")
    restored = ml.open(tmp_path / "d.zarr", "a")
    for seed in range(appends):
        restored.append(molecule_frames(2, seed=50 + seed))
    with pytest.raises(ConflictError, match="Back up to another place"):
        restored.backup(tmp_path / "b.zarr")
    assert files(tmp_path / "b.zarr") == before
    assert "Back up to another place" in shell("backup", restored.url, tmp_path / "b.zarr", code=3).stderr


def test_a_store_that_was_opened_long_ago_is_backed_up_as_it_is_now(store: ml.Store, tmp_path: Path) -> None:
    old = ml.open(store.url)
    store.append(metal_frames(2))
    store.backup(tmp_path / "b.zarr")
    store.append(metal_frames(2, seed=7))
    assert old.backup(tmp_path / "b.zarr").version == store.version


def test_damage_is_not_copied(store: ml.Store, tmp_path: Path) -> None:
    store.backup(tmp_path / "b.zarr")
    before = hashes(store)
    store.append(metal_frames(3))
    shard = shards(store, "positions")[-1]
    data = bytearray(shard.read())
    data[len(data) // 2] ^= 1
    shard.write(data)
    with pytest.raises(CorruptionError, match="not what was committed"):
        store.backup(tmp_path / "b.zarr")
    assert hashes(ml.open(tmp_path / "b.zarr")) == before
    shard.path.unlink()
    with pytest.raises(CorruptionError, match="is missing"):
        store.backup(tmp_path / "b.zarr")
    assert hashes(ml.open(tmp_path / "b.zarr")) == before


_KILLED = """
import os, signal, sys
import mlffstore as ml
def progress(done, n):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
ml.open(sys.argv[1]).backup(sys.argv[2], progress=progress)
"""


def test_a_killed_backup_goes_on(store: ml.Store, tmp_path: Path) -> None:
    target = tmp_path / "b.zarr"
    for done in (1, 3):
        killed = subprocess.run([sys.executable, "-c", _KILLED, store.url, str(target), str(done)], check=False)
        assert killed.returncode == -signal.SIGKILL
        with pytest.raises(ml.errors.StoreNotFoundError):
            ml.open(target)
    finished = store.backup(target)
    assert finished.n_there > 0
    assert hashes(ml.open(target)) == hashes(store)
    assert ml.open(target).verify(full=True).ok


def _busy(url: str, seed: int, stop: multiprocessing.synchronize.Event) -> None:
    store, i = ml.open(url, "a"), 0
    while not stop.is_set():
        store.append(molecule_frames(2, seed=1000 * seed + i))
        i += 1
        if seed == 0 and i % 5 == 0:
            store.compact()
            store.gc(dry_run=False, grace=600, expire_before=store.version - 1)


def test_backups_of_a_store_that_others_change(store: ml.Store, tmp_path: Path) -> None:
    context = fresh_processes()
    stop = context.Event()
    workers = [context.Process(target=_busy, args=(store.url, seed, stop)) for seed in range(2)]
    for worker in workers:
        worker.start()
    try:
        versions = []
        while len(versions) < 6 or versions[-1] < 25:
            versions.append(store.backup(tmp_path / "b.zarr").version)
            copy = ml.open(tmp_path / "b.zarr")
            assert copy.version == versions[-1]
            assert copy.verify(full=True).ok
            assert hashes(copy, versions[-1])
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    store.backup(tmp_path / "b.zarr")
    assert hashes(ml.open(tmp_path / "b.zarr")) == hashes(store)
    assert os.path.isdir(tmp_path / "b.zarr")


def test_the_verb(store: ml.Store, tmp_path: Path) -> None:
    assert "version 5; 6 log entries" in cli("backup", store.url, tmp_path / "b.zarr").stdout
