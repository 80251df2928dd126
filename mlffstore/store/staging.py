"""`Staged`: segments and layers that were written and wait for the log entry that names them.

The log does not name such files yet, so garbage collection may remove them once they are older than its grace period.
Every commit of files calls `Staged.check` just before it claims a version, mostly through `commit_staged`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mlffstore.errors import StorageError
from mlffstore.format.log import Attempt
from mlffstore.format.segment import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlffstore.format.log import Log
    from mlffstore.format.records import Layer, Segment
    from mlffstore.format.state import State
    from mlffstore.storage import Storage

#: On an object store, files that waited less than this need no look: garbage collection spares younger ones. Seconds.
SURELY_THERE_SECONDS = 600.0


def clock() -> float:
    """Return seconds on a clock that also counts the time during which the machine is suspended, where there is one."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class Staged:
    """Files that wait for their commit.

    Parameters
    ----------
    storage : Storage
    parts : Segment or Layer
        Segments and layers that were written just now.
    """

    def __init__(self, storage: Storage, *parts: Segment | Layer) -> None:
        self._storage = storage
        self._parts: dict[str, Segment | Layer] = {}
        self._since = clock()
        for part in parts:
            self.add(part)

    def add(self, part: Segment | Layer) -> None:
        """Count a segment or layer that was written just now."""
        if not self._parts:
            self._since = clock()
        self._parts[part.path] = part

    def discard(self, path: str | None = None) -> None:
        """Remove the files of one part, or of all."""
        for name in list(self._parts) if path is None else [path]:
            discard(self._storage, name)
            self._parts.pop(name, None)

    def check(self) -> None:
        """Renew the times of the files, so that garbage collection spares them until the log names them.

        Raises
        ------
        StorageError
            If garbage collection removed some of them already.
        """
        remote = self._storage.remote
        if remote and clock() - self._since < SURELY_THERE_SECONDS:
            return
        for path in self._parts:
            try:
                self._storage.touch(path)
            except FileNotFoundError as error:
                raise StorageError(
                    f"{self._storage.url}/{path}: written too long before its commit, and garbage collection removed it; "
                    "nothing was committed. Write the data again"
                ) from error
        self._since = clock()


def commit_staged(
    log: Log, operation: str, body: Mapping[str, Any], staged: Staged, check: Callable[[State], None]
) -> int:
    """Name files that were written in the log and return the version; remove them if they may not be committed.

    Parameters
    ----------
    log : Log
    operation, body
        Operation and body of the entry, see `Log.commit`.
    staged : Staged
        The files that the body names.
    check : callable
        It raises if the entry may not follow a state.
    """
    attempt = Attempt()

    def check_all(state: State) -> None:
        check(state)
        staged.check()

    try:
        return log.commit(operation, None, body, check_all, attempt)[0]
    except BaseException:
        if attempt.unclear is None:  # else they may be named already
            staged.discard()
        raise
