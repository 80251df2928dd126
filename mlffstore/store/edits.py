"""Edits: what becomes of the samples of a segment that a correction touches.

There are four: samples go to the quarantine or come back from it, and values are taken off samples or put back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from mlffstore.data.blanks import has_values, with_values, without_values
from mlffstore.data.schema import is_mask, split_key
from mlffstore.errors import ConflictError
from mlffstore.store.quarantine import with_reasons, without_reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.format.records import Segment
    from mlffstore.format.segment_list import SegmentList
    from mlffstore.format.state import State

#: Names of the edits, as a correction shows them.
Action = Literal["remove", "restore", "clear", "refill"]


class Edit(Protocol):
    """What becomes of the samples of a segment."""

    @property
    def action(self) -> Action:
        """Name of the edit."""
        ...

    def segments(self, state: State) -> SegmentList:
        """Return the segments that the edit is about: the accepted or the rejected ones."""
        ...

    def columns(self, segment: Segment) -> list[str]:
        """Return the on-disk names of the columns of which samples lose or get values; empty if samples move."""
        ...

    def touched(self, batch: SampleBatch, columns: Collection[str], rows: Ints, numbers: Ints) -> Ints:
        """Return those of some samples of a segment, with these numbers, that the edit changes.

        The batch has at least the columns.
        """
        ...

    def apply(
        self, batch: SampleBatch, columns: Collection[str], rows: Ints, numbers: Ints
    ) -> tuple[SampleBatch | None, SampleBatch | None]:
        """Return what takes the place of the samples of a segment, and what goes elsewhere.

        Parameters
        ----------
        batch : SampleBatch
            All samples of the segment.
        columns : collection of str
            As `columns` returns them.
        rows : ndarray, shape (T,), int64
            The samples that are changed, ascending.
        numbers : ndarray, shape (T,), int64
            Their numbers among all samples of the correction.
        """
        ...


def _apart(batch: SampleBatch, rows: Ints) -> tuple[SampleBatch | None, SampleBatch]:
    """Return the other samples, None if there are none, and these."""
    rest = np.ones(len(batch), bool)
    rest[rows] = False
    return batch.take(rest) if rest.any() else None, batch.take(rows)


class _Move:
    """Samples go from one list to the other, whole."""

    __slots__ = ()

    def columns(self, segment: Segment) -> list[str]:
        """Return nothing: samples move."""
        return []

    def touched(self, batch: SampleBatch, columns: Collection[str], rows: Ints, numbers: Ints) -> Ints:
        """Return all of them."""
        return rows


@dataclass(frozen=True, slots=True)
class Remove(_Move):
    """Accepted samples go to the quarantine, each with the reason."""

    reason: str
    action: Action = field(default="remove", init=False)

    def segments(self, state: State) -> SegmentList:
        """Return the accepted samples."""
        return state.segments

    def apply(
        self, batch: SampleBatch, columns: Collection[str], rows: Ints, numbers: Ints
    ) -> tuple[SampleBatch | None, SampleBatch | None]:
        """Return the other samples, and these with the reason."""
        rest, gone = _apart(batch, rows)
        return rest, with_reasons(gone, [self.reason] * len(gone))


@dataclass(frozen=True, slots=True)
class Restore(_Move):
    """Samples of the quarantine become accepted ones again, without the reason."""

    action: Action = field(default="restore", init=False)

    def segments(self, state: State) -> SegmentList:
        """Return the rejected samples."""
        return state.quarantine

    def apply(
        self, batch: SampleBatch, columns: Collection[str], rows: Ints, numbers: Ints
    ) -> tuple[SampleBatch | None, SampleBatch | None]:
        """Return the other samples, and these without the reason."""
        rest, back = _apart(batch, rows)
        return rest, without_reasons(back)


@dataclass(frozen=True, slots=True)
class Clear:
    """Accepted samples lose labels of a teacher, or values of user columns.

    Attributes
    ----------
    teacher : str or None
        The teacher that loses all labels of the samples; None if `names` says which columns it is about.
    names : tuple of str
        On-disk names of columns.
    others : callable or None
        It returns, for a column, the numbers of the samples whose value of it is not meant.
    """

    teacher: str | None
    names: tuple[str, ...] = ()
    others: Callable[[str], Ints] | None = None
    action: Action = field(default="clear", init=False)

    def segments(self, state: State) -> SegmentList:
        """Return the accepted samples."""
        return state.segments

    def columns(self, segment: Segment) -> list[str]:
        """Return those columns of the segment that the edit is about."""
        if self.teacher is None:
            return [key for key in segment.columns if key in self.names]
        return [key for key in segment.columns if not is_mask(key) and split_key(key)[1] == self.teacher]

    def touched(self, batch: SampleBatch, columns: Collection[str], rows: Ints, numbers: Ints) -> Ints:
        """Return the samples with some value that is meant.

        Raises
        ------
        ConflictError
            If one has another value too, in another column.
        """
        if self.others is None:
            return rows[has_values(batch, columns)[rows]]
        meant, other = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        for key in columns:
            there, theirs = has_values(batch, (key,))[rows], np.isin(numbers, self.others(key))
            meant |= there & ~theirs
            other |= there & theirs
        if n := int((meant & other).sum()):
            raise ConflictError(
                f"{n} of the samples have values of {', '.join(columns)} by other commits too, which would go as well; take "
                "these back first, see 'mlffstore log'"
            )
        return rows[meant]

    def apply(
        self, batch: SampleBatch, columns: Collection[str], rows: Ints, numbers: Ints
    ) -> tuple[SampleBatch | None, SampleBatch | None]:
        """Return all samples, these without the values."""
        return without_values(batch, columns, rows), None


@dataclass(frozen=True, slots=True)
class Refill:
    """Accepted samples get values back that they had in an earlier version.

    Attributes
    ----------
    names : tuple of str
        On-disk names of the columns.
    values : callable
        It returns, for numbers of samples, a batch with their values.
    """

    names: tuple[str, ...]
    values: Callable[[Ints], SampleBatch]
    action: Action = field(default="refill", init=False)

    def segments(self, state: State) -> SegmentList:
        """Return the accepted samples."""
        return state.segments

    def columns(self, segment: Segment) -> list[str]:
        """Return all columns of the edit, since those that a segment lacks are made."""
        return list(self.names)

    def touched(self, batch: SampleBatch, columns: Collection[str], rows: Ints, numbers: Ints) -> Ints:
        """Return all of them.

        Raises
        ------
        ConflictError
            If one has a value.
        """
        n = int(has_values(batch, columns)[rows].sum())
        if n:
            raise ConflictError(
                f"{n} of the samples have other values of {', '.join(columns)} by now, and nothing is overwritten; remove "
                "these first"
            )
        return rows

    def apply(
        self, batch: SampleBatch, columns: Collection[str], rows: Ints, numbers: Ints
    ) -> tuple[SampleBatch | None, SampleBatch | None]:
        """Return all samples, these with the values."""
        return with_values(batch, self.values(numbers), columns, rows), None
