"""`gc`: remove files that no retained version needs: of writers that were killed, of lost races, of expired versions."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from mlffstore.data.casting import integer
from mlffstore.errors import DataError, MlffstoreError
from mlffstore.format import checkpoint
from mlffstore.format.entry import LOG_FOLDER
from mlffstore.storage.base import SET_ASIDE, TEMPORARY
from mlffstore.store.maintenance.lifetimes import Lifetimes
from mlffstore.store.staging import SURELY_THERE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.format.entry import Entry
    from mlffstore.format.log import Log
    from mlffstore.format.state import State
    from mlffstore.storage import ListedObject, Storage

#: Age in seconds below which a file stays. A writer that takes longer between data and commit has to write again.
GRACE_SECONDS = 24 * 3600.0
#: Seconds below which a grace period needs the argument `short_grace`.
SHORTEST_SECONDS = SURELY_THERE_SECONDS


@dataclass(frozen=True, slots=True)
class Garbage:
    """The files that `gc` removes, or would remove.

    Attributes
    ----------
    dry_run : bool
    paths : tuple of str
        Files that no retained version needs, relative to the store.
    n_files, nbytes : int
        Number of these files, and their size.
    n_young : int
        Files that are not needed either, but are younger than the grace period: they may belong to a commit that is being
        made.
    expired : int
        Versions before this one can no longer be read, unless they are tagged.
    """

    dry_run: bool
    paths: tuple[str, ...]
    n_files: int
    nbytes: int
    n_young: int
    expired: int


def collect(
    storage: Storage,
    log: Log,
    *,
    dry_run: bool = True,
    grace: float = GRACE_SECONDS,
    short_grace: bool = False,
    expire_before: int | None = None,
) -> Garbage:
    """Remove files that no retained version needs; see `mlffstore.Store.gc`."""
    if isinstance(grace, bool) or not isinstance(grace, Real) or not grace >= 0:
        raise DataError(f"grace: expected seconds, 0 or more, got {grace!r}")
    if 0 < grace < SHORTEST_SECONDS and not (dry_run or short_grace):
        raise DataError(
            f"grace: expected at least {SHORTEST_SECONDS:.0f} s, got {grace:g} s: the data of a writer that takes longer to "
            "commit them would be removed, on an object store unnoticed. Use short_grace=True (--short-grace) if no writer "
            "takes that long, or grace=0 if no process writes"
        )
    if expire_before is not None:
        expire_before = integer("expire_before", expire_before)
        _check_expiry(log.refresh(), expire_before)
        if not dry_run and expire_before > log.refresh().expired:
            with contextlib.suppress(_ExpiredMeanwhileError):
                log.commit("expire", None, {"before": expire_before}, lambda state: _check_new(state, expire_before))
    # First the files, then the log: whatever is committed in between is in the log that is read afterwards.
    now = storage.clock()
    files = {file.path: file for file in _candidates(storage)}
    needed = _Needed(log, expire_before)
    unneeded = [file for path, file in sorted(files.items()) if path not in needed]
    if not dry_run:
        unneeded = [file for file in unneeded if not _restore(storage, needed, file.path)]
    old = [file for file in unneeded if file.modified <= now - grace]
    n_young = len(unneeded) - len(old)
    if not dry_run:
        old = [file for file in old if _remove(storage, needed, file.path, now - grace)]
    return Garbage(
        dry_run=dry_run,
        paths=tuple(file.path for file in old),
        n_files=len(old),
        nbytes=sum(file.nbytes for file in old),
        n_young=n_young,
        expired=max(needed.state.expired, expire_before or 0),
    )


class _Needed:
    """Files that the retained versions need, as far as the log was read."""

    def __init__(self, log: Log, expire_before: int | None) -> None:
        self._log, self._expire_before = log, expire_before
        # From the entries, not from a checkpoint: what is removed cannot be made again, and only the log is the truth.
        self._lifetimes, self.state = Lifetimes.of(log)
        self._files = self._find()

    def _find(self) -> set[str]:
        needed = self._lifetimes.needed(self.state, self._expire_before)
        return {path for segment, _ in needed for path in segment.files}

    def _update(self) -> None:
        """Read the commits since the last call."""
        for entry, entry_digest, where in self._log.entries(self.state.version + 1):
            self._lifetimes.apply(self.state, entry, entry_digest, where)
            self._files |= _named(entry)

    def updated_with(self, path: str) -> bool:
        """Read the commits since the last call, and return whether a file is needed."""
        self._update()
        return path in self

    def __contains__(self, path: str) -> bool:
        return path in self._files or _is_kept_checkpoint(path, self.state.version)


def _named(entry: Entry) -> set[str]:
    """Return the files that an entry, which was checked, brings into the store."""
    parts = [entry.body.get(name, ()) for name in ("segments", "quarantine", "layers")]
    parts += [item["outputs"] for item in entry.body.get("replacements", ())]
    return {document["path"] for part in parts for document in part}


def _remove(storage: Storage, needed: _Needed, path: str, before: float) -> bool:
    """Remove a file unless its times were renewed or the log named it meanwhile; return whether it was removed.

    A slow writer renews the times of its files and then names them in the log, so the times are read first and the log
    afterwards. A writer whose file was removed notices it when it renews the times.
    """
    if path.startswith(("segments/", "layers/")):
        return storage.delete_old(path, before, lambda: needed.updated_with(path))
    storage.delete([path])
    return True


def _restore(storage: Storage, needed: _Needed, path: str) -> bool:
    """Give a file its name back if an interrupted collection set it aside and the log names it."""
    folder, _, name = path.rpartition("/")
    original = f"{folder}/{name.removeprefix(SET_ASIDE)}"
    return name.startswith(SET_ASIDE) and original in needed and storage.restore(original)


def _candidates(storage: Storage) -> Iterator[ListedObject]:
    """Yield every file that might be garbage: segments, layers, temporary files, old checkpoints."""
    for folder in ("segments", "layers"):
        yield from storage.list(folder)
    for file in storage.list(LOG_FOLDER):
        if _is_temporary(file.path):
            yield file
    for file in storage.list(checkpoint.FOLDER):
        if _is_temporary(file.path) or re.fullmatch(r"\d{20}(\.history)?\.json", file.path.rpartition("/")[2]):
            yield file
    for file in storage.list_top():
        if _is_temporary(file.path):
            yield file


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(TEMPORARY)


def _is_kept_checkpoint(path: str, last: int) -> bool:
    """Return whether a file is a checkpoint that opening a version may use."""
    folder, _, name = path.rpartition("/")
    if folder != checkpoint.FOLDER or _is_temporary(path):
        return False
    return checkpoint.wanted(int(name[:20]), last)


class _ExpiredMeanwhileError(MlffstoreError):
    """Another process gave up as many versions; never leaves `collect`."""


def _check_new(state: State, before: int) -> None:
    """Raise unless versions before one can be given up, and have not been."""
    _check_expiry(state, before)
    if before <= state.expired:
        raise _ExpiredMeanwhileError


def _check_expiry(state: State, before: int) -> None:
    if not 0 <= before <= state.version:
        raise DataError(f"expire_before: expected 0 to {state.version} (the last version cannot expire), got {before}")
