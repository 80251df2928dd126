"""`backup`: a copy of a store that is whole at every moment, also while others append, compact and collect garbage.

The data are copied before the log entries that name them, and entries in order, so that the copy is always the store as of
some version. An interrupted backup is continued by the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlffstore.errors import (
    ConflictError,
    CorruptionError,
    DataError,
    StorageError,
    StoreExistsError,
    StoreNotFoundError,
)
from mlffstore.format.coverage import damaged_parts
from mlffstore.format.entry import LOG_FOLDER, MAX_ENTRY_NBYTES, entry_path
from mlffstore.format.root import read_root
from mlffstore.storage import LocalStorage
from mlffstore.store.arguments import check_new_place
from mlffstore.store.maintenance.lifetimes import Lifetimes

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlffstore.format.log import Log
    from mlffstore.format.records import Segment
    from mlffstore.storage import Storage

#: How often the log is read again when garbage collection removed files that were about to be copied.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Backup:
    """The outcome of a backup.

    Attributes
    ----------
    url : str
        Where the copy is.
    version : int
        The last version that the copy holds.
    n_entries : int
        Log entries that were copied by this call.
    n_files, nbytes : int
        Data files that were copied by this call, and their size.
    n_there : int
        Data files that an earlier backup had copied.
    """

    url: str
    version: int
    n_entries: int
    n_files: int
    nbytes: int
    n_there: int


def backup(storage: Storage, log: Log, target: Storage, progress: Callable[[int, int], None] | None = None) -> Backup:
    """Copy a store to another place, or bring an older copy up to date; see `mlffstore.Store.backup`.

    Raises
    ------
    DataError
        If the target is the store itself or lies in it.
    StoreExistsError
        If another store is at the target.
    ConflictError
        If the copy has commits that this store does not have.
    CorruptionError
        If a file of the store is damaged: it is not copied.
    """
    _check_apart(storage, target)
    root = storage.read("zarr.json")
    try:
        read_root(target)
    except StoreNotFoundError:
        check_new_place(target, allowed=(LOG_FOLDER, "segments", "layers"))
        target.make_root()
    known = _known(storage, target)
    counts = _Counts()
    for attempt in range(_TRIES):
        lifetimes, state = Lifetimes.of(log)
        segments = [segment for segment, _ in lifetimes.needed(state)]
        try:
            for done, segment in enumerate(segments):
                _copy_segment(storage, target, segment, counts)
                if progress is not None:
                    progress(done + 1, len(segments))
            break
        except FileNotFoundError as error:
            # Versions that needed it may have expired meanwhile; if they did not, the file is missing.
            if attempt == _TRIES - 1 or log.refresh().version == state.version:
                raise CorruptionError(
                    f"{error}: the file is missing, though the log names it; the backup is unchanged, "
                    f"version {known}. Run 'mlffstore verify' and restore the file from a copy"
                ) from error
    n_entries = 0
    for version in range(state.version + 1):
        data = storage.read(entry_path(version), 0, MAX_ENTRY_NBYTES + 1)
        if version <= known:
            continue
        if not target.put_if_absent(entry_path(version), data):
            raise _diverged(target, version)
        n_entries += 1
    # Last, so that a first backup that is interrupted is no store yet.
    if known < 0 and not target.put_if_absent("zarr.json", root):
        raise _diverged(target, 0)
    return Backup(target.url, state.version, n_entries, counts.n_files, counts.nbytes, counts.n_there)


def _check_apart(storage: Storage, target: Storage) -> None:
    """Raise `DataError` if the target is the store, or a place in it, which `gc` would empty."""
    ours, theirs = (
        str(Path(one.url).resolve()) if isinstance(one, LocalStorage) else one.url.rstrip("/")
        for one in (storage, target)
    )
    if theirs == ours or theirs.startswith(f"{ours}/"):
        raise DataError(
            f"{target.url}: expected a place outside of the store, got one in {storage.url}; choose another"
        )


@dataclass(slots=True)
class _Counts:
    n_files: int = 0
    nbytes: int = 0
    n_there: int = 0


def _known(storage: Storage, target: Storage) -> int:
    """Return the last version that the target holds, -1 for none, after making sure that it is a copy of this store.

    A copy may not be longer than the store: the store was then set back to an earlier copy, and may have gone another way.
    """
    try:
        ours, theirs = read_root(storage)[0], read_root(target)[0]
    except StoreNotFoundError:
        return -1
    if ours != theirs:
        raise StoreExistsError(
            f"{target.url}: expected a new place or a backup of {storage.url}, got another store; choose another place"
        )
    copied = {file.path for file in target.list(LOG_FOLDER)}
    known = -1
    while entry_path(known + 1) in copied:
        known += 1
    if known >= 0:
        try:
            same = storage.read(entry_path(known)) == target.read(entry_path(known))
        except FileNotFoundError:
            raise ConflictError(
                f"{target.url}: the backup holds version {known}, which {storage.url} does not have: the store was set back "
                "to an earlier copy, or the backup was written to. Nothing was copied. Back up to another place; if the "
                "backup has commits that you miss, make it the store"
            ) from None
        if not same:
            raise _diverged(target, known)
    return known


def _diverged(target: Storage, version: int) -> ConflictError:
    return ConflictError(
        f"{target.url}: version {version} of the backup is not that of the store: the copy was written to, or one of "
        "the two was replaced. Back up to another place"
    )


def _copy_segment(storage: Storage, target: Storage, segment: Segment, counts: _Counts) -> None:
    """Copy the files of a segment and its layers that the target lacks, compared with what the log says of them."""
    for path, file in segment.files.items():
        try:
            there = target.size(path)
        except FileNotFoundError:
            there = -1
        if there == file.nbytes:
            counts.n_there += 1
            continue
        data = storage.read(path)
        damaged = damaged_parts(file, segment.columns.values(), partial(_slice, memoryview(data)))
        if damaged or len(data) != file.nbytes:
            raise _damaged(storage, path)
        if there >= 0:  # what a copy by other means left
            target.delete([path])
        # Another backup to the same place may be at the same file: it appears whole, by one of them.
        if not target.put_if_absent(path, data):
            raise StorageError(
                f"{target.url}/{path}: expected the file of {storage.url}, got another; back up elsewhere"
            )
        counts.n_files, counts.nbytes = counts.n_files + 1, counts.nbytes + len(data)


def _slice(data: memoryview, start: int, nbytes: int) -> memoryview:
    return data[start : start + nbytes]


def _damaged(storage: Storage, path: str) -> CorruptionError:
    return CorruptionError(
        f"{storage.url}/{path}: is not what was committed (SHA-256), so it was not copied. Run 'mlffstore verify --full' "
        "and restore it from a copy"
    )
