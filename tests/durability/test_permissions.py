"""A store that several people share: files follow the permissions of zarr.json, whatever the umask of who writes."""

from __future__ import annotations

import multiprocessing
import os
import stat
import tempfile
import uuid
from pathlib import Path

import pytest

import mlffstore as ml
from tests.samples import molecule_frames

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fchown"), reason="needs POSIX permissions"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def _append(path: Path, umasks: str, user: int, group: int) -> None:
    if user:
        os.setgroups([group])
        os.setresgid(user, user, user)  # a private group first, the shared one among the others
        os.setresuid(user, user, user)
    for umask in umasks.split(","):
        os.umask(int(umask, 8))
        store = ml.open(path, "a")
        for i in range(2):
            store.append(molecule_frames(2, seed=user + i))
        store.tag(f"{user}-{umask}-{len(store)}")
    assert ml.open(path).verify(full=True).ok


def append(path: Path, umasks: str, user: int = 0, group: int = 0) -> None:
    """Append and verify as a user of a group, in a process forked from this one."""
    warm = ml.create(f"memory://{uuid.uuid4().hex}")  # everything is imported before it may become unreadable
    warm.append(molecule_frames(2))
    warm.verify(full=True)
    child = multiprocessing.get_context("fork").Process(target=_append, args=(path, umasks, user, group))
    child.start()
    child.join()
    assert child.exitcode == 0


def make(path: Path, mode: int) -> None:
    before = os.umask(0o777 & ~mode)
    try:
        ml.create(path).append(molecule_frames(1))
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o775, 0o750, 0o700])
def test_modes_follow_zarr_json(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "d.zarr"
    make(path, mode)
    append(path, "077,000,022")
    for file in path.rglob("*"):
        found = stat.S_IMODE(file.stat().st_mode)
        assert found == (mode if file.is_dir() else mode & 0o666), file


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to be two people")
def test_two_people_share_a_store() -> None:
    group = 4321
    with tempfile.TemporaryDirectory() as folder:  # not pytest's own, which is its user's alone
        os.chmod(folder, 0o755)
        path = Path(folder) / "d.zarr"
        make(path, 0o775)
        for file in (path, *path.rglob("*")):
            os.chown(file, -1, group)
        for user in (1234, 1235, 1234):
            append(path, "077", user, group)
        store = ml.open(path, "a")
        assert len(store) == 1 + 3 * 4
        assert {file.stat().st_gid for file in path.rglob("*")} == {group}
        assert {file.stat().st_uid for file in path.rglob("*.json")} == {0, 1234, 1235}
        store.compact()
        append(path, "077", 1235, group)
