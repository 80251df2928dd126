"""`CommitGuard`: what must still hold when a commit about stored segments claims its version.

Between reading segments and naming the files that were made of them, another process may have merged, labelled or extended
them. The guard is asked with the state that the log entry would follow, just before the claim; see `Log.commit`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlffstore.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from mlffstore.data.schema import Column
    from mlffstore.format.records import Segment
    from mlffstore.format.state import State


class SegmentsChangedError(ConflictError):
    """Other commits changed the segments since they were read. Work that can be done again may read them again."""


class ColumnTakenError(ConflictError):
    """Some of the segments have a column that the commit would add."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitGuard:
    """Checks that a commit about some segments may follow a state.

    Attributes
    ----------
    segments : sequence of Segment
        The segments as they were read. They must be in the store.
    new_columns : collection of str
        Names on disk of the columns that the commit adds as layers. None of the segments may have one of them.
    replaces : bool
        Whether the commit replaces the segments. They must then be without a layer that was not read.
    neighbours : bool
        Whether segments that are replaced must be neighbours in this order.
    teachers : mapping of str to mapping
        JSON about the teachers of the commit, which must not contradict what the log says of them.
    user_columns : sequence of Column
        User columns of the commit, which must not contradict those of the store.
    labels : sequence of Column
        Columns of the labels of the commit, likewise.
    """

    segments: Sequence[Segment]
    new_columns: Collection[str] = ()
    replaces: bool = False
    neighbours: bool = True
    teachers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    user_columns: Sequence[Column] = ()
    labels: Sequence[Column] = ()

    def __call__(self, state: State) -> None:
        """Raise `ConflictError` if the commit may not follow a state."""
        state.check_append(self.teachers, self.user_columns, self.labels)
        if self.replaces:
            for run in [self.segments] if self.neighbours else [[segment] for segment in self.segments]:
                _check_unchanged(state, run)
        else:
            self._check_free(state)

    def _check_free(self, state: State) -> None:
        for segment in self.segments:
            i = state.segments.find(segment.path)
            if i is None:
                raise SegmentsChangedError(
                    f"{segment.path}: another process merged it or removed samples of it meanwhile; take a new snapshot and "
                    "try again"
                )
            columns = state.segments[i].columns
            taken = [name for name in self.new_columns if name in columns]
            if taken:
                raise ColumnTakenError(
                    f"column {taken[0]!r}: {segment.path} has it already, and columns never change; choose another name"
                )


def _check_unchanged(state: State, segments: Sequence[Segment]) -> None:
    """Raise unless segments are there as they were read, one after another."""
    paths = [segment.path for segment in segments]
    for stored in (state.segments, state.quarantine):
        start = stored.find(paths[0])
        if start is not None:
            stop = start + len(paths)
            same = stored.paths[start:stop] == paths
            if same and all(
                now.files == before.files for now, before in zip(stored[start:stop], segments, strict=True)
            ):
                return
    raise SegmentsChangedError(
        f"{paths[0]} or its neighbours: another process merged them, added labels or removed samples meanwhile; try again"
    )
