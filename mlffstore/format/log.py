"""The log: numbered JSON entries, each created only if absent, that together say what a store holds.

`Log` reads entries, claims the next one, and keeps the state that they add up to. One entry is a
`mlffstore.format.entry.Entry`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mlffstore.errors import ConflictError, CorruptionError, DataError, FormatError, MlffstoreError, StorageError
from mlffstore.format import checkpoint, history
from mlffstore.format.codec import digest
from mlffstore.format.commit import Record
from mlffstore.format.entry import MAX_ENTRY_NBYTES, Entry, decode_entry, entry_path, now
from mlffstore.format.read_ahead import Sized, read_ahead
from mlffstore.format.readable_entry import check_readable
from mlffstore.format.state import State
from mlffstore.runtime.threads import io_pool
from mlffstore.storage.base import NotDurableError, is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlffstore.storage import Storage

_log = logging.getLogger(__name__)
#: Waits between attempts at a version, seconds: doubled each time, with jitter (Brooker, "Exponential backoff and jitter").
_BACKOFF, _BACKOFF_MAX = 0.001, 0.25


@dataclass(slots=True)
class Attempt:
    """One attempt to commit, which may be repeated after an unclear failure: it takes effect once at most.

    Attributes
    ----------
    transaction : str
        UUID that its entry holds.
    unclear : int or None
        The version that was claimed last without a clear answer.
    """

    transaction: str = field(default_factory=lambda: uuid.uuid4().hex)
    unclear: int | None = None


class ReadEntry(NamedTuple):
    """An entry as it was read: the entry, the digest of its file, and the place of the file for messages."""

    entry: Entry
    digest: str
    where: str


class Log:
    """The log of one store, and the state that its entries add up to as far as they were read.

    Parameters
    ----------
    storage : Storage
    empty : State
        The state before entry 0: uuid, precision and settings of the store.
    """

    def __init__(self, storage: Storage, empty: State) -> None:
        self.storage, self._empty = storage, empty
        self._state: State | None = None
        self._lock, self._pid = threading.RLock(), os.getpid()

    def guard(self) -> threading.RLock:
        """Return the lock of the state."""
        if self._pid != os.getpid():  # a fork may have copied the lock in a locked state, and the state half changed
            self._lock, self._pid, self._state = threading.RLock(), os.getpid(), None
        return self._lock

    def fresh(self) -> State:
        """Return the state before entry 0."""
        return State(self._empty.store, self._empty.precision, self._empty.settings)

    def read(self, version: int) -> ReadEntry | None:
        """Return the entry of a version; None if there is no such version."""
        sized = self._read_sized(version)
        return None if sized is None else sized.value

    def _read_sized(self, version: int) -> Sized[ReadEntry] | None:
        """Return the entry of a version and the size of its file; None if there is no such version."""
        path = entry_path(version)
        where = f"{self.storage.url}/{path}"
        try:
            data = self.storage.read(path, 0, MAX_ENTRY_NBYTES + 1)
        except FileNotFoundError:
            return None
        if len(data) > MAX_ENTRY_NBYTES:
            raise FormatError(f"{where}: expected at most {MAX_ENTRY_NBYTES} bytes; the store is damaged")
        return Sized(ReadEntry(decode_entry(data, version, self._empty.store, where), digest(data), where), len(data))

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[ReadEntry]:
        """Yield the entries from `start` up to the last one, or up to `stop`, which is not included.

        Of many entries the next ones are read in parallel; see `mlffstore.format.read_ahead`.
        """
        return read_ahead(self._read_sized, start, stop)

    def replay(self, state: State, stop: int | None = None) -> State:
        """Apply the entries after `state.version` up to the last one, or up to `stop`, which is not included."""
        for entry, entry_digest, where in self.entries(state.version + 1, stop):
            state.apply(entry, entry_digest, where)
        return state

    def _start(self, at_most: int | None = None) -> State:
        """Return the state of a checkpoint that agrees with the log, or the empty one."""
        for state in checkpoint.load(self.storage, self._empty, at_most):
            last = None
            with contextlib.suppress(FormatError, CorruptionError):  # the replay reports the damage
                last = self.read(state.version)
            if last is not None and last.digest == state.parent:
                return state
            _log.warning(
                "%s: the checkpoint of version %d does not fit the log, ignored", self.storage.url, state.version
            )
        return self.fresh()

    def entry(self, version: int) -> Entry:
        """Return the entry of a version that exists."""
        result = self.read(version)
        if result is None:
            raise CorruptionError(f"{self.storage.url}/{entry_path(version)}: is missing; restore it from a copy")
        return result.entry

    def settle(self, version: int) -> None:
        """Make sure that the entry of a version that another process may have claimed survives a power loss."""
        self.storage.settle(entry_path(version))

    def refresh(self) -> State:
        """Read what was committed since and return the state, which only `commit` and `refresh` change.

        Other threads may change it too: hold `guard` from here to the last use of what is returned.
        """
        with self.guard():
            if self._state is None:
                self._state = self._start()
            try:
                return self.replay(self._state)
            except BaseException:  # an entry may have been applied in part
                self._state = None
                raise

    def recent(self) -> State:
        """Return a state that may lack the last commits of other processes; `commit` finds out. Hold `guard` meanwhile.

        On a disk it is the newest one. Where looking for new entries is a request over a network, it is the one that was
        read last.
        """
        with self.guard():
            return self._state if self.storage.remote and self._state is not None else self.refresh()

    def at(self, version: int) -> State:
        """Return the state as of a version that exists; each call makes a new one."""
        return self.replay(self._start(version), version + 1)

    def commit(
        self,
        operation: str,
        key: str | None,
        body: Mapping[str, Any],
        check: Callable[[State], None],
        attempt: Attempt | None = None,
    ) -> tuple[int, bool]:
        """Claim the next version for an entry; return the version that has it and whether this call wrote it.

        `check` is called with the state that the entry would follow and raises if it may not. A lost race costs another
        small file, never the data again. The same `attempt` again finds out whether it took effect before.

        Raises
        ------
        DataError
            If the entry would be too large, or is not what readers accept.
        ConflictError
            If the folder is not the one that was opened any more, or the log has a gap.
        StorageError
            If the storage fails. The entry may then be there or appear: `attempt` knows.
        """
        attempt, wait = attempt or Attempt(), _BACKOFF
        with self.guard():
            # A claim fails if the state is not the newest one, so over a network it need not be asked for first.
            again = attempt.unclear is not None
            state = self.refresh() if again else self.recent()
            while True:
                if again:
                    # A request that got no answer may arrive at any time, also just before the claim that repeats it.
                    own = self._own(attempt, state)
                    if own is not None:
                        self.settle(own)
                        return own, True
                    if attempt.unclear is None:
                        again = False
                if key is not None and key in state.keys:
                    self.settle(state.keys[key])
                    return state.keys[key], False
                check(state)
                entry = Entry(
                    version=state.version + 1,
                    store=self._empty.store,
                    transaction=attempt.transaction,
                    parent=state.parent,
                    time=now(),
                    operation=operation,
                    key=key,
                    body=body,
                )
                data = entry.encode()
                if len(data) > MAX_ENTRY_NBYTES:
                    raise DataError(
                        f"the log entry would be {len(data)} bytes; append fewer samples, user columns or provenance"
                    )
                check_readable(data, entry, state)
                self._check_in_place(state)
                attempt.unclear = entry.version
                if self._claim(entry_path(entry.version), data):
                    self._advance(state, entry, data)
                    return entry.version, True
                if not again:
                    attempt.unclear = None
                time.sleep(random.uniform(0, wait))
                wait = min(2 * wait, _BACKOFF_MAX)
                state = self.refresh()

    def _own(self, attempt: Attempt, state: State) -> int | None:
        """Return the version that an attempt got without an answer, None if it has none so far.

        If another entry has the version that was claimed, there is nothing unclear any more.
        """
        if attempt.unclear is None or state.version < attempt.unclear:
            return None
        for version in range(attempt.unclear, state.version + 1):
            if self.entry(version).transaction == attempt.transaction:
                return version
        attempt.unclear = None
        return None

    def _check_in_place(self, state: State) -> None:
        """Raise unless the log that lies there now is the one that was read, and ends where it ended.

        A folder may have been removed and made anew, renamed, restored or unmounted since it was opened. An entry that is
        claimed there would be lost, and would make the other store unreadable once its own log gets that far.
        """
        path, beyond = entry_path(state.version), entry_path(state.version + 2)
        try:
            # On a network both questions are on the way at the same time.
            asked = io_pool().submit(is_there, self.storage, beyond) if self.storage.remote else None
            last = digest(self.storage.read(path))
            gap = is_there(self.storage, beyond) if asked is None else asked.result()
            # Two commits since the log was read are no gap: the claim will find the next version taken.
            gap = gap and not is_there(self.storage, entry_path(state.version + 1))
        except FileNotFoundError:
            last, gap = "", False
        if last != state.parent:
            raise ConflictError(
                f"{self.storage.url}: expected entry {state.version} of the log as it was read before, got "
                f"{'another one' if last else 'none'}: the store was moved, replaced or unmounted. Nothing was committed; "
                "open the store again"
            )
        if gap:
            raise ConflictError(
                f"{self.storage.url}: expected version {state.version} to be the last, got {beyond} without the entry "
                "before it. Nothing was committed; restore the missing entry from a copy, see 'mlffstore verify'"
            )

    def _advance(self, state: State, entry: Entry, data: bytes) -> None:
        """Add an entry that this log wrote to the state."""
        try:
            state.apply(
                replace(entry, nbytes=len(data)), digest(data), f"{self.storage.url}/{entry_path(entry.version)}"
            )
            self._maybe_checkpoint(state)
        except BaseException:  # an interrupt may have come in the middle: read everything again
            self._state = None
            raise

    def _claim(self, path: str, data: bytes) -> bool:
        """Create the entry's file. After a failure ask once more: if the same bytes lie there already, that is success."""
        try:
            return self.storage.put_if_absent(path, data)
        except NotDurableError:
            self.storage.settle(path)
            return True
        except (StorageError, TimeoutError):
            return self.storage.put_if_absent(path, data)

    def _maybe_checkpoint(self, state: State) -> None:
        """Write a checkpoint every so many commits. It is a help for opening, so a failure is only noted."""
        if checkpoint.due(state.version):
            try:
                base = checkpoint.save(self.storage, state)
                own = {record.commit.version: record.line() for record in state.recent}
                first = state.version - checkpoint.EVERY + 1
                lines = [
                    *(record.line() for record in self.history(0 if base is None else base + 1, first)),
                    *(own[version] for version in range(first, state.version + 1)),
                ]
                data = history.encode(state.store, state.version, base, state.parent, lines)
                self.storage.replace(history.path_of(state.version), data)
                superfluous = checkpoint.superfluous(state.version)
                self.storage.delete(
                    [path(version) for version in superfluous for path in (checkpoint.path_of, history.path_of)]
                )
            except (OSError, StorageError, KeyError) as error:
                _log.warning("%s: no checkpoint was written (%s); it can be rebuilt", self.storage.url, error)

    def history(self, start: int = 0, stop: int | None = None) -> list[Record]:
        """Return the records of the commits from `start` up to the last one, or up to `stop`, which is not included.

        They come from the files beside the checkpoints as far as these fit the log, and from the log.
        """
        parts: list[list[Record]] = []
        try:
            version = checkpoint.newest(self.storage) if stop is None else stop - 1
        except (OSError, MlffstoreError):
            version = -1
        version = (version + 1) // checkpoint.EVERY * checkpoint.EVERY - 1
        after = version + 1
        while version >= start:
            if version - start < checkpoint.EVERY:  # of a long file only a few commits
                parts.append(self._records(start, version + 1))
                break
            try:
                base, lines = self._read_history(version)
                records = [Record.parse(line) for line in lines]
            except FileNotFoundError:
                base, records = version - checkpoint.EVERY, self._records(version - checkpoint.EVERY + 1, version + 1)
            except (OSError, ValueError, MlffstoreError) as error:
                _log.warning("%s: the history as of version %d is ignored (%s)", self.storage.url, version, error)
                base, records = version - checkpoint.EVERY, self._records(version - checkpoint.EVERY + 1, version + 1)
            parts.append(records)
            version = -1 if base is None else base
        out = [record for part in reversed(parts) for record in part if record.commit.version >= start]
        return out + self._records(max(start, after), stop)

    def _records(self, start: int, stop: int | None) -> list[Record]:
        return [Record.of(result.entry) for result in self.entries(max(0, start), stop)]

    def _read_history(self, version: int) -> tuple[int | None, list[bytes]]:
        """Return where the history beside a checkpoint begins, and its lines."""
        path = history.path_of(version)
        base, parent, lines = history.decode(
            self.storage.read(path), version, self._empty.store, f"{self.storage.url}/{path}"
        )
        last = self.read(version)
        if last is None or last.digest != parent:
            raise FormatError(f"{self.storage.url}/{path}: does not fit the log")
        return base, lines
