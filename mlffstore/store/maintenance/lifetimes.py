"""Lifetimes of segments: the versions that contain each of them, and the segments that retained versions still need."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.format.entry import Entry
    from mlffstore.format.log import Log
    from mlffstore.format.records import Segment
    from mlffstore.format.state import State


@dataclass(slots=True)
class Lifetime:
    """The versions ``born <= version < died`` that hold a segment; `died` is None if the last version holds it."""

    born: int
    rejected: bool
    died: int | None = None
    #: The segment with its layers as it was when it was replaced.
    last: Segment | None = None


class Lifetimes:
    """The lifetimes of all segments that a log ever named. A layer lives as long as the segment below it.

    They are noted by `apply` while the log is replayed from its beginning.
    """

    def __init__(self) -> None:
        self._lives: dict[str, Lifetime] = {}

    @classmethod
    def of(cls, log: Log) -> tuple[Lifetimes, State]:
        """Replay a log; return the lifetimes and the last state."""
        lifetimes, state = cls(), log.fresh()
        for entry, entry_digest, where in log.entries():
            lifetimes.apply(state, entry, entry_digest, where)
        return lifetimes, state

    def apply(self, state: State, entry: Entry, entry_digest: str, where: str) -> None:
        """Apply an entry to a state, as `State.apply` does, and note what it changes."""
        known = _replaced(state, entry)
        state.apply(entry, entry_digest, where)  # raises if the entry is not what it should be
        for role in ("segments", "quarantine") if entry.operation in ("append", "remove") else ():
            for document in entry.body.get(role, ()):
                self._lives[document["path"]] = Lifetime(entry.version, role == "quarantine")
        for item in entry.body["replacements"] if entry.operation in ("replace", "remove") else ():
            for path in item["inputs"]:
                self._lives[path].died, self._lives[path].last = entry.version, known[path]
            for document in item["outputs"]:
                self._lives[document["path"]] = Lifetime(entry.version, self._lives[item["inputs"][0]].rejected)

    def needed(self, state: State, expired: int | None = None) -> Iterator[tuple[Segment, bool]]:
        """Yield each segment that some retained version needs, and whether it holds rejected samples.

        Parameters
        ----------
        state : State
            State of the last version.
        expired : int, optional
            Versions before this one count as expired.
        """
        before = state.expired if expired is None else max(expired, state.expired)
        kept = {*state.kept, *(version for version in state.tags.values() if version >= state.expired)}
        for segments, rejected in ((state.segments, False), (state.quarantine, True)):
            for segment in segments:
                yield segment, rejected
        for life in self._lives.values():
            if life.died is not None and life.last is not None:
                readable = life.died > before or any(life.born <= version < life.died for version in kept)
                if readable:
                    yield life.last, life.rejected


def _replaced(state: State, entry: Entry) -> dict[str, Segment]:
    """Return the segments that an entry replaces, with their layers; the entry was not checked yet."""
    if entry.operation not in ("replace", "remove"):
        return {}
    known = {}
    with contextlib.suppress(KeyError, TypeError):  # an entry without inputs, which the state refuses
        for path in [path for item in entry.body["replacements"] for path in item["inputs"]]:
            for stored in (state.segments, state.quarantine):
                if (i := stored.find(path)) is not None:
                    known[path] = stored[i]
    return known
