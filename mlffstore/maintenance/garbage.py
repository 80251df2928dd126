"""`gc`: remove files that no retained version needs: of writers that were killed, of lost races, of expired versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlffstore import checkpoint
from mlffstore.errors import DataError
from mlffstore.log import LOG_FOLDER
from mlffstore.maintenance.lifetimes import Lifetimes
from mlffstore.storage.base import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.log import Log
    from mlffstore.state import State
    from mlffstore.storage import Found, Storage

#: Seconds that a file must be old. A writer that takes longer between its data and its commit is told to write again.
GRACE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Garbage:
    """What `gc` found, and removed unless it was a dry run.

    Attributes
    ----------
    dry_run : bool
    paths : tuple of str
        Folders and files that no retained version needs, relative to the store.
    n_files, nbytes : int
        Files in them, and their size.
    n_young : int
        Files that nothing needs either, but which are younger than the grace period: they may belong to a commit that is
        being made.
    expired : int
        Versions before this one can no longer be read, unless they are tagged.
    """

    dry_run: bool
    paths: tuple[str, ...]
    n_files: int
    nbytes: int
    n_young: int
    expired: int


@dataclass(slots=True)
class _Heap:
    """The files of one folder, or one file."""

    n_files: int = 0
    nbytes: int = 0
    newest: float = 0.0

    def add(self, found: Found) -> None:
        self.n_files, self.nbytes = self.n_files + 1, self.nbytes + found.nbytes
        self.newest = max(self.newest, found.modified)


def collect(
    storage: Storage, log: Log, *, dry_run: bool = True, grace: float = GRACE_SECONDS, expire_before: int | None = None
) -> Garbage:
    """Remove what nothing needs; see `mlffstore.Store.gc`."""
    if not grace >= 0:
        raise DataError(f"grace: expected seconds, 0 or more, got {grace}")
    if expire_before is not None:
        _check_expiry(log.refresh(), expire_before)
        if not dry_run and expire_before > log.refresh().expired:
            log.commit("expire", None, {"before": expire_before}, lambda state: _check_expiry(state, expire_before))
    # First the files, then the log: whatever is committed in between is in the log that is read afterwards.
    now = storage.clock()
    heaps: dict[str, _Heap] = {}
    for found in _candidates(storage):
        parts = found.path.split("/")
        whole = parts[0] in ("segments", "layers") and len(parts) > 2
        heaps.setdefault("/".join(parts[:2]) if whole else found.path, _Heap()).add(found)
    lifetimes, state = Lifetimes.of(log)
    needed = {folder for segment, _ in lifetimes.needed(state, expire_before) for folder in segment.metadata}
    old = {
        path: heap
        for path, heap in heaps.items()
        if path not in needed and not _is_kept_checkpoint(path, state.version) and heap.newest <= now - grace
    }
    young = sum(
        heap.n_files
        for path, heap in heaps.items()
        if path not in needed and path not in old and not _is_kept_checkpoint(path, state.version)
    )
    if not dry_run:
        for folder in ("segments", "layers"):
            storage.prune(folder, now - grace)
        for path in sorted(old):
            if path.startswith(("segments/", "layers/")):
                storage.delete([found.path for found in storage.list(path)])
            else:
                storage.delete([path])
    return Garbage(
        dry_run=dry_run,
        paths=tuple(sorted(old)),
        n_files=sum(heap.n_files for heap in old.values()),
        nbytes=sum(heap.nbytes for heap in old.values()),
        n_young=young,
        expired=max(state.expired, expire_before or 0),
    )


def _candidates(storage: Storage) -> Iterator[Found]:
    """Yield every file that might be garbage: segments, layers, temporary files, old checkpoints."""
    for folder in ("segments", "layers"):
        yield from storage.list(folder)
    for found in storage.list(LOG_FOLDER):
        if _is_temporary(found.path):
            yield found
    for found in storage.list(checkpoint.FOLDER):
        if _is_temporary(found.path) or re.fullmatch(r"\d{20}\.json", found.path.rpartition("/")[2]):
            yield found
    for found in storage.list_top():
        if _is_temporary(found.path):
            yield found


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(TEMPORARY)


def _is_kept_checkpoint(path: str, last: int) -> bool:
    """Return whether a file is a checkpoint that opening a version may use."""
    folder, _, name = path.rpartition("/")
    if folder != checkpoint.FOLDER or _is_temporary(path):
        return False
    return checkpoint.wanted(int(name[:-5]), last)


def _check_expiry(state: State, before: int) -> None:
    if not 0 <= before <= state.version:
        raise DataError(f"expire_before: expected 0 to {state.version} (the last version cannot expire), got {before}")
