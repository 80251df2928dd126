"""The operations that a store needs of the place where it lies.

Nothing here knows what the bytes mean. Nothing ever discovers data by listing a folder; `list` is for garbage collection
only. Paths are relative, with '/' between parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlffstore.errors import FormatError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: How the names of temporary files begin.
TEMPORARY = ".tmp-"
#: How the names of files begin that `Storage.delete_old` has set aside; the name that a file had follows.
SET_ASIDE = ".tmp-aside-"


class NotDurableError(StorageError):
    """A claim is visible, but whether it survives a power loss is unknown."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One object of a listing."""

    path: str
    nbytes: int
    #: When it was written, seconds on the clock of the storage, the one that `Storage.clock` reads.
    modified: float


class Storage(Protocol):
    """A place for named bytes."""

    @property
    def url(self) -> str:
        """Where it is, for people and for opening it again."""
        ...

    @property
    def remote(self) -> bool:
        """Whether each call is a request over a network."""
        ...

    def make_root(self) -> None:
        """Make the place of a new store, durably, if places have to be made."""
        ...

    def read(self, path: str, start: int = 0, nbytes: int | None = None) -> bytes:
        """Return bytes of an object, fewer at its end. Raise `FileNotFoundError` if there is none."""
        ...

    def size(self, path: str) -> int:
        """Return the size of an object in bytes. Raise `FileNotFoundError` if there is none."""
        ...

    def modified(self, path: str) -> float:
        """Return when an object was written, see `clock`. Raise `FileNotFoundError` if there is none."""
        ...

    def write(self, path: str, parts: Iterable[bytes]) -> None:
        """Write a new object under a name that no other process writes; when this returns it survives a power loss.

        `parts` make up the object; they may be made while the first ones are being written.
        """
        ...

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create an object, atomically and durably; return False, changing nothing, if there is another one already.

        After an unclear failure (a lost reply) it finds out whether the object there holds `data`. If that cannot be
        found out it raises `StorageError`: the object may then appear, or not.
        """
        ...

    def settle(self, path: str) -> None:
        """Make sure that an existing object survives a power loss, also if another process made it."""
        ...

    def touch(self, path: str) -> None:
        """Make an object as young as a new one, see `clock`. Raise `FileNotFoundError` if there is none."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Create or replace an object atomically; not durable. For hints that may be lost."""
        ...

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Yield all objects below a folder, temporary ones too. For garbage collection only."""
        ...

    def list_top(self) -> Iterator[ListedObject]:
        """Yield the objects of the store's own folder, not those below. For garbage collection only."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects; absent ones are no error. For garbage collection only."""
        ...

    def delete_old(self, path: str, before: float, needed: Callable[[], bool]) -> bool:
        """Remove an object unless it was touched after a time or is needed; return whether it was removed.

        `needed` is asked at the last moment. Where `remote` is false, a `touch` that comes at any moment either keeps the
        object or fails. If this is interrupted, the object may be left under another name, see `SET_ASIDE` and `restore`.
        """
        ...

    def restore(self, path: str) -> bool:
        """Give an object its name back that an interrupted `delete_old` set aside; return whether there was one."""
        ...

    def clock(self) -> float:
        """Return the time now in seconds, on the clock that stamps objects, so that clock skew does no harm."""
        ...

    def check_claims(self) -> None:
        """Raise `StorageError` if `put_if_absent` cannot be trusted here. Called when a store is opened for writing."""
        ...


def is_there(storage: Storage, path: str) -> bool:
    """Return whether there is an object. It may be gone or made a moment later: `put_if_absent` claims names."""
    try:
        storage.size(path)
    except FileNotFoundError:
        return False
    return True


def check_path(path: str) -> str:
    """Return a relative path of plain names; raise `FormatError` for anything that could lead out of the store."""
    parts = path.split("/")
    if not all(part and part not in (".", "..") and "\\" not in part and "\0" not in part for part in parts):
        raise FormatError(
            f"path in the store: expected plain names separated by '/', got {path!r}; the store is damaged"
        )
    return path
