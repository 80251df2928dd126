"""`Request`: which rows of which segments some samples need, and where these rows go in the answer.

Both readers of a snapshot, batches in memory and lazy variables, divide their rows among segments here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.ragged import Ints, offsets, row_indices
from mlffstore.data.schema import CODED, is_label, mask_key
from mlffstore.data.vocabulary import UNKNOWN_ONLY, merge_words, translate
from mlffstore.errors import DataError
from mlffstore.format.records import is_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlffstore.data.schema import Array, Axis, Column
    from mlffstore.format.reader import ColumnReader
    from mlffstore.format.records import Segment


@dataclass(frozen=True, slots=True)
class SegmentRows:
    """Rows of one segment along one axis, and their places in the answer.

    Attributes
    ----------
    segment : Segment
    rows : slice, or ndarray of int64, shape (R,)
        Rows within the segment. They are a slice where the answer is one run of rows.
    places : slice, or ndarray of int64, shape (R,)
        Rows of the answer.
    """

    segment: Segment
    rows: Ints | slice
    places: Ints | slice

    def holds(self, key: str, column: Column) -> bool:
        """Return whether the segment has a column.

        Raises
        ------
        DataError
            If it is a column of another kind than `column`, as rejected samples of several commits may have it.
        """
        stored = self.segment.columns.get(key)
        if stored is None or stored.column is column or not (is_user(key) or is_label(key)):
            return stored is not None
        # Labels of several teachers side by side are described by the column of one of them.
        if not column.same_values(stored.column):
            what = "user column" if is_user(key) else "labels"
            raise DataError(
                f"{what} {key!r}: these samples have it as {column.kind()} and as {stored.column.kind()}; read them "
                "apart, or leave it out with columns=[...]"
            )
        return True

    def read(self, reader: ColumnReader, key: str) -> Array:
        """Return the rows of a column that the segment has, shape (R, ...)."""
        stored = self.segment.columns[key]
        if isinstance(self.rows, slice):
            out = np.empty((self.rows.stop - self.rows.start, *stored.column.shape), stored.column.dtype)
            reader.read(stored, self.rows.start, self.rows.stop, out)
            return out
        return reader.gather(stored, self.rows)

    def read_codes(self, reader: ColumnReader, key: str, vocabulary: tuple[str, ...]) -> Array:
        """Return the rows of a coded column as codes of another vocabulary, shape (R,), uint32.

        Parameters
        ----------
        reader : ColumnReader
        key : str
        vocabulary : tuple of str
            It contains every string of the segment's own vocabulary, as that of `joint_vocabulary` does.

        Raises
        ------
        DataError
            If a code has no meaning.
        """
        words = self.segment.vocabulary.get(key, UNKNOWN_ONLY)
        return translate(self.read(reader, key), words, vocabulary, f"{self.segment.path}/{key}")

    def read_mask(self, reader: ColumnReader, name: str) -> Array | bool:
        """Return which rows of a user column have a value, shape (R,), bool; one bool if all rows agree."""
        if mask_key(name) in self.segment.columns:
            return self.read(reader, mask_key(name))
        return name in self.segment.columns


def divide_rows(segments: Sequence[Segment], starts: Ints, index: Ints) -> list[SegmentRows]:
    """Divide rows of an axis of a snapshot among the segments that hold them.

    Parameters
    ----------
    segments : sequence of Segment, length N
        Only those that hold some of the rows are looked at.
    starts : ndarray, shape (N+1,), int64
        First row of each segment and, last, the total.
    index : ndarray, shape (R,), int64
        Rows in any order, duplicates allowed, none of them negative.
    """
    if not len(index):
        return []
    out: list[SegmentRows] = []
    first, last = int(index[0]), int(index[-1])
    if last - first == len(index) - 1 and bool(np.all(np.diff(index) == 1)):
        begin, end = (int(i) for i in np.searchsorted(starts, (first, last), side="right"))
        for i in range(begin - 1, end):
            start, low, high = int(starts[i]), max(int(starts[i]), first), min(int(starts[i + 1]), last + 1)
            if high > low:
                places = slice(low - first, high - first)
                out.append(SegmentRows(segments[i], slice(low - start, high - start), places))
        return out
    owner = np.searchsorted(starts, index, side="right") - 1
    order = np.argsort(owner, kind="stable")
    owner = owner[order]
    cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(order)]
    for low, high in itertools.pairwise(cuts):
        i, chosen = int(owner[low]), order[low:high]
        out.append(SegmentRows(segments[i], index[chosen] - starts[i], chosen))
    return out


class Request:
    """Samples that are read together, with their atoms.

    Parameters
    ----------
    segments : sequence of Segment, length N
        The segments of a snapshot.
    starts : ndarray, shape (N+1,), int64
        First sample of each segment and, last, the number of samples.
    index : ndarray, shape (S,), int64
        The samples in any order, duplicates allowed, none of them negative.
    reader : ColumnReader
        It reads `n_atoms`, which says where atoms lie.

    Attributes
    ----------
    n_atoms : ndarray, shape (S,), int32
        Number of atoms of each sample.
    sizes : dict of str to int
        Rows of the answer along "sample" and along "atom".
    rows : dict of str to list of SegmentRows
        For each axis the rows of each segment that holds some of the samples, segments in the same order.
    """

    def __init__(self, segments: Sequence[Segment], starts: Ints, index: Ints, reader: ColumnReader) -> None:
        samples = divide_rows(segments, starts, index)
        self.n_atoms = np.empty(len(index), np.int32)
        for part in samples:
            self.n_atoms[part.places] = part.read(reader, "n_atoms")
        begins = offsets(self.n_atoms)
        self.sizes: dict[Axis, int] = {"sample": len(index), "atom": int(begins[-1])}
        atoms = [_atoms(part, begins, reader) for part in samples]
        self.rows: dict[Axis, list[SegmentRows]] = {"sample": samples, "atom": atoms}

    @property
    def segments(self) -> list[Segment]:
        """The segments that hold some of the samples."""
        return [part.segment for part in self.rows["sample"]]


def _atoms(samples: SegmentRows, begins: Ints, reader: ColumnReader) -> SegmentRows:
    """Return the atoms of some samples of a segment; `begins` are the first atoms of samples in the answer."""
    segment = samples.segment
    counts = np.empty(segment.n_samples, np.int32)
    reader.read(segment.columns["n_atoms"], 0, segment.n_samples, counts)
    starts = offsets(counts)
    if starts[-1] != segment.n_atoms or counts.min() < 1:
        raise DataError(f"{segment.path}: n_atoms does not add up to what the log says; the store is damaged")
    if isinstance(samples.rows, slice) and isinstance(samples.places, slice):
        return SegmentRows(
            segment,
            slice(int(starts[samples.rows.start]), int(starts[samples.rows.stop])),
            slice(int(begins[samples.places.start]), int(begins[samples.places.stop])),
        )
    counts = counts[samples.rows]
    places = row_indices(begins[:-1][samples.places], counts)
    return SegmentRows(segment, row_indices(starts[:-1][samples.rows], counts), places)


def joint_vocabulary(segments: Iterable[Segment], key: str) -> tuple[str, ...]:
    """Return the strings of a coded column in all of some segments, in order of appearance."""
    default = UNKNOWN_ONLY if key in CODED else ()
    return merge_words(segment.vocabulary.get(key, default) for segment in segments) or ("",)
