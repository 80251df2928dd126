"""The folder of the caches: where it is, what lies in it, how much it may take, and what processes left in it.

A cache that is being built, or removed, has a name that ends in ``.tmp``. The process that builds one holds a lock on it; an
unfinished one without a lock was left by a process that was killed, and is removed. Beside it lies a ``.lock`` file, see
`mlffstore.runtime.turns`. What is in a cache is not known here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from mlffstore.errors import DataError, StorageError
from mlffstore.runtime.paths import local_path
from mlffstore.runtime.turns import SUFFIX, lock, remove_unused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)
#: Bytes that all caches together may take, unless MLFFSTORE_CACHE_GB says otherwise.
_LIMIT = 50_000_000_000
#: An empty folder that is younger, in seconds, is one whose builder has not locked it yet.
_YOUNG = 60
#: Without locks (not on POSIX), an unfinished folder that is older, in seconds, is one whose builder was killed.
_OLD = 86400
#: A file that changed longer ago, in seconds, shows any later change in its times.
_SETTLED = 2
#: Names of caches, and of those that are being built or removed.
_NAME = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{32}\.tmp)?")


def unfinished(folder: Path) -> Path:
    """Return a name for a cache that is being built or removed."""
    return folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")


def cache_folder() -> Path:
    """Return where caches lie: MLFFSTORE_CACHE, or ``mlffstore`` in the user's cache folder of the operating system."""
    chosen = os.environ.get("MLFFSTORE_CACHE")
    return local_path(chosen) if chosen else user_cache_path("mlffstore", appauthor=False)


def limit() -> int:
    """Return how many bytes all caches together may take: MLFFSTORE_CACHE_GB, or 50 GB."""
    text = os.environ.get("MLFFSTORE_CACHE_GB")
    if text is None:
        return _LIMIT
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError) as error:
        raise DataError(f"MLFFSTORE_CACHE_GB: expected a number of gigabytes, got {text!r}") from error


@dataclass(frozen=True, slots=True)
class Cached:
    """One cache folder: what it holds, its size in bytes, and when it was used last (seconds since 1970).

    The kind is "columns" for decoded samples, which training reads, and "table" for a table of samples.
    """

    path: Path
    title: str
    samples: int
    nbytes: int
    used: float
    kind: str = "columns"


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a new folder with a lock on it, and remove it in the end if it is still there."""
    while True:
        temporary = unfinished(folder)
        temporary.mkdir(parents=True)
        held = lock(temporary, wait=True)
        if temporary.is_dir():  # a process that cleaned up could have had it before the lock
            break
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if held is not None:
            os.close(held)


def cached() -> list[Cached]:
    """Return the caches that are there, the one used last first."""
    out = []
    for folder in _folders(finished=True):
        try:
            document = json.loads((folder / "about.json").read_text().partition("\n")[2])
            title, samples = str(document["title"]), int(document["samples"])
            kind = str(document.get("kind", "columns"))
        except (OSError, ValueError, KeyError, TypeError):
            title, samples, kind = "unreadable", 0, "columns"
        with contextlib.suppress(OSError):  # another process removed it
            out.append(Cached(folder, title, samples, _nbytes(folder), folder.stat().st_mtime, kind))
    return sorted(out, key=lambda cache: -cache.used)


def make_room(nbytes: int) -> list[Cached]:
    """Remove the caches that were not used for longest, so that `nbytes` more stay within the limit; return them.

    What killed processes left goes first. A process that maps a removed cache goes on with it: the file system keeps it
    until the last one is done.
    """
    most = limit()
    if nbytes > most:
        raise DataError(
            f"the cache would take {nbytes / 1e9:.1f} GB, more than the {most / 1e9:.1f} GB allowed; set "
            "MLFFSTORE_CACHE_GB, or read without it: cache='memory', or TorchDataset.stream"
        )
    sweep()
    kept, removed = cached(), []
    used = sum(cache.nbytes for cache in kept) + sum(_nbytes(folder) for folder in _folders(finished=False))
    while kept and used + nbytes > most:
        oldest = kept.pop()
        if problem := remove(oldest.path):
            _log.warning("%s: this cache cannot be removed to make room for another (%s)", oldest.path, problem)
            continue
        used -= oldest.nbytes
        removed.append(oldest)
    return removed


def sweep() -> None:
    """Remove what processes left that were killed while they built or removed a cache."""
    for folder in _folders(finished=False):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        for path in cache_folder().glob(f"*{SUFFIX}"):
            if _NAME.fullmatch(path.name.removesuffix(SUFFIX)):
                remove_unused(path)


def clear() -> dict[Path, str]:
    """Remove all caches, also damaged ones, but none that a process is building.

    Returns
    -------
    dict of Path to str
        Those that could not be removed, such as caches of another user, and why.
    """
    sweep()
    kept = {folder: problem for folder in _folders(finished=True) if (problem := remove(folder))}
    shutil.rmtree(cache_folder() / "checksums", ignore_errors=True)
    return kept


def remove(folder: Path) -> str:
    """Remove a cache; return why not, if that is not possible. Other processes see it whole or not at all."""
    aside = unfinished(folder)
    try:
        folder.rename(aside)
        shutil.rmtree(aside)
    except FileNotFoundError:  # another process was faster
        return ""
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        return error.strerror or str(error)
    return ""


def _folders(*, finished: bool) -> list[Path]:
    """Return the folders that are ours: those with a cache, or those that are being built or removed."""
    try:
        return [path for path in cache_folder().iterdir() if _NAME.fullmatch(path.name) and path.is_dir()
                and finished != path.name.endswith(".tmp")]  # fmt: skip
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(
            f"{cache_folder()}: the folder of caches cannot be read ({error.strerror}); check its owner and permissions, "
            "or choose another with MLFFSTORE_CACHE"
        ) from error


def _is_abandoned(folder: Path) -> bool:
    try:
        age, empty = time.time() - folder.stat().st_mtime, not any(folder.iterdir())
        if empty and age < _YOUNG:
            return False
        held = lock(folder, wait=False)
    except OSError:  # locked, or gone
        return False
    if held is None:
        return age > _OLD
    os.close(held)
    return True


def _nbytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            total += path.stat().st_size
    return total


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file. It is kept in the cache's folder until the file changes, by inode and times.

    The time of change of the inode is the system's, so that a copy with the size and times of another file is not taken
    for it.
    """
    before = path.stat()
    named = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    name = " ".join([str(path.absolute()), *(str(getattr(before, field)) for field in named)])
    note = cache_folder() / "checksums" / hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        text = note.read_text(encoding="ascii")
        if re.fullmatch(r"[0-9a-f]{64}", text):
            return text
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    after = path.stat()
    # Times have a resolution: a file that was changed just now can be changed again without another time.
    if (
        all(getattr(after, field) == getattr(before, field) for field in named)
        and time.time() - after.st_ctime > _SETTLED
    ):
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            temporary = note.with_name(f"{note.name}.{uuid.uuid4().hex}")
            temporary.write_text(digest, encoding="ascii")
            temporary.replace(note)
    return digest
