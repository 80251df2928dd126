"""Checkpoints: the state as of some versions, so that opening does not read the whole log.

They only save time: any may be missing, and one that does not fit the log is ignored. Every `EVERY` commits the writer makes
one. Checkpoint number m, of version ``m * EVERY - 1``, holds what changed since the checkpoint whose number is m without its
lowest binary digit that is 1 (Fenwick, Software: Practice and Experience 24, 327, 1994): so each segment is written about
log2(m)/2 times, and a state is read from at most log2(m) files.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mlffstore.errors import CorruptionError, MlffstoreError
from mlffstore.format.fields import Fields
from mlffstore.format.increment import base_of, decode, encode, unseal
from mlffstore.format.sealing import seal
from mlffstore.format.state import RECENT, State
from mlffstore.storage.base import is_there

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.storage import Storage

FOLDER = "_checkpoint"
#: Names the newest checkpoint. It may be old or missing.
HINT = f"{FOLDER}/last.json"
#: Commits between checkpoints, and checkpoints between those that stay for reading old versions.
EVERY, STAYING = RECENT, 8
_MAX_NBYTES = 4 << 30


def due(version: int) -> bool:
    """Return whether the writer of this version writes a checkpoint."""
    return (version + 1) % EVERY == 0


def chain(version: int) -> list[int]:
    """Return the versions of the checkpoints that make up the one of `version`, which is the first."""
    number, out = (version + 1) // EVERY, []
    while number:
        out.append(number * EVERY - 1)
        number &= number - 1
    return out


def wanted(version: int, last: int) -> bool:
    """Return whether a checkpoint helps while `last` is the last version.

    Those are the ones that make up the newest one and the one before, and those that stay.
    """
    newest = (last + 1) // EVERY * EVERY - 1
    return (version + 1) % (STAYING * EVERY) == 0 or version in chain(newest) or version in chain(newest - EVERY)


def path_of(version: int) -> str:
    """Return the path of the checkpoint of a version."""
    return f"{FOLDER}/{version:020d}.json"


def save(storage: Storage, state: State) -> int | None:
    """Write the checkpoint of a state and point the hint at it; return the version of the one that it counts from."""
    base = next((earlier for earlier in chain(state.version)[1:] if is_there(storage, path_of(earlier))), None)
    storage.replace(path_of(state.version), encode(state, base))
    if _hinted(storage) < state.version:  # a slow writer does not set it back
        storage.replace(HINT, seal(json.dumps({"version": state.version}).encode()[:-1]))
    return base


def _hinted(storage: Storage) -> int:
    try:
        return newest(storage)
    except (OSError, MlffstoreError):
        return -1


def superfluous(version: int) -> list[int]:
    """Return the checkpoints that the one of `version` makes superfluous, some of which may be gone already."""
    # They are not far behind: others went when they became so.
    behind = range(version, max(-1, version - 4 * STAYING * EVERY), -EVERY)
    return [earlier for earlier in behind if not wanted(earlier, version)]


def newest(storage: Storage) -> int:
    """Return the version of the newest checkpoint according to the hint. Raise if there is none or it is damaged."""
    try:
        data = storage.read(HINT, 0, 4096)
        return Fields(json.loads(data[: unseal(data, HINT)] + b"}"), HINT).integer("version")
    except ValueError as error:
        raise CorruptionError(f"{HINT}: not a JSON document; it may be deleted, the log has everything") from error


def load(storage: Storage, empty: State, at_most: int | None = None) -> Iterator[State]:
    """Yield the states of the readable checkpoints that are not newer than `at_most`, the newest first.

    If one cannot be read, an older one that is part of it may still be.
    """
    try:
        version = newest(storage)
    except (OSError, MlffstoreError):
        return
    if at_most is not None and version > at_most:
        version = (at_most + 1) // EVERY * EVERY - 1
    for candidate in chain(version):
        try:
            yield read(storage, candidate, empty)
        except (OSError, MlffstoreError):
            continue


def read(storage: Storage, version: int, empty: State) -> State:
    """Return the state of a checkpoint, from its file and those that it counts from.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    CorruptionError, FormatError
        If a file is damaged or not what it should be.
    """
    files: list[tuple[int, bytes]] = []
    current: int | None = version
    while current is not None:
        data = storage.read(path_of(current), 0, _MAX_NBYTES)
        files.append((current, data))
        base = base_of(data, f"{storage.url}/{path_of(current)}")
        if base is not None and base >= current:
            raise CorruptionError(f"{storage.url}/{path_of(current)}: counts from itself; delete the folder {FOLDER}")
        current = base
    state: State | None = None
    for current, data in reversed(files):
        state = decode(data, current, empty, f"{storage.url}/{path_of(current)}", state)
    assert state is not None  # there is one file at least
    return state
