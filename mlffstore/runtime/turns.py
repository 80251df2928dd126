"""Locks of the cache's folder: which process builds a cache, and which unfinished folders are still in use.

A lock ends with the process that holds it, however that ends. Without locks, on a file system or platform that has none,
every process builds for itself, and the caches are right all the same.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Suffix of the files that `BuildTurn` locks.
SUFFIX = ".lock"


def lock(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder until the file descriptor that is returned is closed. None where there are no locks.

    Raises
    ------
    BlockingIOError
        If another process has it and `wait` is False.
    """
    return _locked(os.open(folder, os.O_RDONLY), wait=wait)


def _locked(descriptor: int, *, wait: bool) -> int | None:
    """Lock an open file and return its descriptor; close it and return None where there are no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise
    except (ImportError, OSError):  # no POSIX, or a file system without locks
        os.close(descriptor)
        return None
    return descriptor


class BuildTurn:
    """The right to build one cache: one process has it at a time, and reports its progress to those that wait.

    Parameters
    ----------
    folder : Path
        The cache. The file that is locked lies beside it and is removed at the end.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder.with_name(f"{folder.name}{SUFFIX}")
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Return whether the cache may be built now: False if another process has the turn."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # the build raises the error that names the folder
            return True
        try:
            locked = _locked(descriptor, wait=False)
        except BlockingIOError:
            return False
        if locked is None:
            return True
        if not _is_file_at(locked, self.path):  # the process before removed it after it was opened here
            os.close(locked)
            return False
        self._descriptor = locked
        return True

    def report(self, done: int, total: int) -> None:
        """Say how many samples are decoded, and of how many."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # a full disk is found by the build
                os.pwrite(self._descriptor, f"{done} {total}\n".ljust(48).encode(), 0)

    def reported(self) -> tuple[int, int] | None:
        """Return what the process that has the turn reported last."""
        with contextlib.suppress(OSError, ValueError):
            match = re.match(r"(\d+) (\d+)\n", self.path.read_text(encoding="ascii"))
            return None if match is None else (int(match[1]), int(match[2]))
        return None

    def release(self) -> None:
        """Let another process have the turn."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                self.path.unlink()  # while it is locked, so that no other process locks it and loses it
            os.close(descriptor)


def remove_unused(path: Path) -> None:
    """Remove the lock file of a process that was killed."""
    with contextlib.suppress(OSError):  # locked, or gone
        locked = lock(path, wait=False)
        if locked is not None:
            try:
                if _is_file_at(locked, path):
                    path.unlink()
            finally:
                os.close(locked)


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        there, opened = path.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)
