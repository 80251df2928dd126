"""Rows of the columns of some samples, by index: what a lazy Dataset reads of a snapshot or of a selection."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlffstore.data import ragged
from mlffstore.data.ragged import Ints, offsets
from mlffstore.data.schema import STANDARD
from mlffstore.data.splits import assign
from mlffstore.store.request import divide_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlffstore.data.schema import Array, Axis, Column
    from mlffstore.format.reader import ColumnReader
    from mlffstore.format.records import Segment
    from mlffstore.store.request import SegmentRows

Chunks = tuple[tuple[int, ...], tuple[int, ...]]


class ColumnRows(Protocol):
    """Rows of the columns of S samples with A atoms. It can be pickled."""

    @property
    def sizes(self) -> Mapping[Axis, int]:
        """Rows along "sample" and along "atom"."""
        ...

    def chunks(self) -> Chunks:
        """Return sizes of chunks of whole samples: along samples and along atoms."""
        ...

    def read(self, key: str, column: Column, index: Ints) -> Array:
        """Return rows of a column by its on-disk name, shape (len(index), ...); NaN or 0 where there is no value."""
        ...

    def read_codes(self, key: str, column: Column, index: Ints, vocabulary: tuple[str, ...]) -> Array:
        """Return rows of a coded column as codes of a vocabulary that has all of its strings."""
        ...

    def read_mask(self, column: Column, index: Ints) -> Array:
        """Return which rows of a user column have a value, bool."""
        ...

    def read_splits(self, index: Ints) -> Array:
        """Return the splits of samples, uint8, indices into `mlffstore.data.splits.SPLITS`."""
        ...


class SegmentedSamples(Protocol):
    """What rows need of a snapshot."""

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments, in order."""
        ...

    @property
    def column_reader(self) -> ColumnReader:
        """The reader of stored columns."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Split fractions and seed."""
        ...


class StoredRows:
    """Rows of the columns of a snapshot: those of its segments one after another."""

    def __init__(self, snapshot: SegmentedSamples) -> None:
        self.snapshot, self.segments = snapshot, snapshot.segments
        self.starts: dict[Axis, Ints] = {
            "sample": offsets([segment.n_samples for segment in self.segments]),
            "atom": offsets([segment.n_atoms for segment in self.segments]),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return (StoredRows, (self.snapshot,))

    @property
    def sizes(self) -> Mapping[Axis, int]:
        """See `ColumnRows`."""
        return {axis: int(starts[-1]) for axis, starts in self.starts.items()}

    def chunks(self) -> Chunks:
        """See `ColumnRows`. Small segments are not read."""
        return segment_chunks(self.segments, self.snapshot.column_reader)

    def read(self, key: str, column: Column, index: Ints) -> Array:
        """See `ColumnRows`."""
        missing: Any = np.nan if np.dtype(column.dtype).kind == "f" else 0
        reader = self.snapshot.column_reader
        return self._gather(
            column, column.dtype, column.shape, index,
            lambda part: part.read(reader, key) if part.holds(key, column) else missing,
        )  # fmt: skip

    def read_codes(self, key: str, column: Column, index: Ints, vocabulary: tuple[str, ...]) -> Array:
        """See `ColumnRows`."""
        reader = self.snapshot.column_reader
        return self._gather(
            column, "uint32", (), index,
            lambda part: part.read_codes(reader, key, vocabulary) if part.holds(key, column) else 0,
        )  # fmt: skip

    def read_mask(self, column: Column, index: Ints) -> Array:
        """See `ColumnRows`."""
        reader = self.snapshot.column_reader
        return self._gather(column, "bool", (), index, lambda part: part.read_mask(reader, column.name))

    def read_splits(self, index: Ints) -> Array:
        """See `ColumnRows`."""
        settings = self.snapshot.settings
        return assign(self.read("root", STANDARD["root"], index), settings["splits"], settings["split_seed"])

    def _gather(
        self, column: Column, dtype: str, shape: tuple[int, ...], index: Ints, values: Callable[[SegmentRows], Any]
    ) -> Array:
        """Return the rows of all segments that hold some of them, or one value that stands for all rows of a segment."""
        out = np.empty((len(index), *shape), dtype)
        for part in divide_rows(self.segments, self.starts[column.axis], index):
            out[part.places] = values(part)
        return out


class ChosenRows:
    """Rows of the columns of some samples of others.

    Parameters
    ----------
    base : ColumnRows
    indices : ndarray, shape (S,), int64
        Samples of `base`, in any order.
    """

    def __init__(self, base: ColumnRows, indices: Ints) -> None:
        self.base, self.indices = base, indices

    def __reduce__(self) -> tuple[Any, ...]:
        return (ChosenRows, (self.base, self.indices))

    @cached_property
    def _atoms(self) -> tuple[Ints, Ints]:
        """Return where the atoms of each sample begin here, shape (S+1,), and in `base`, shape (S,)."""
        n_atoms = self.base.read("n_atoms", STANDARD["n_atoms"], np.arange(self.base.sizes["sample"]))
        return offsets(n_atoms[self.indices]), offsets(n_atoms)[:-1][self.indices]

    @property
    def sizes(self) -> Mapping[Axis, int]:
        """See `ColumnRows`."""
        return {"sample": len(self.indices), "atom": int(self._atoms[0][-1])}

    def chunks(self) -> Chunks:
        """See `ColumnRows`."""
        return ragged.cut(np.diff(self._atoms[0]))

    def read(self, key: str, column: Column, index: Ints) -> Array:
        """See `ColumnRows`."""
        return self.base.read(key, column, self._rows(column.axis, index))

    def read_codes(self, key: str, column: Column, index: Ints, vocabulary: tuple[str, ...]) -> Array:
        """See `ColumnRows`."""
        return self.base.read_codes(key, column, self._rows(column.axis, index), vocabulary)

    def read_mask(self, column: Column, index: Ints) -> Array:
        """See `ColumnRows`."""
        return self.base.read_mask(column, self._rows(column.axis, index))

    def read_splits(self, index: Ints) -> Array:
        """See `ColumnRows`."""
        return self.base.read_splits(self.indices[index])

    def _rows(self, axis: Axis, index: Ints) -> Ints:
        """Return the rows of `base` that rows here are."""
        if axis == "sample":
            return self.indices[index]
        starts, begins = self._atoms
        owner = np.searchsorted(starts, index, side="right") - 1
        return np.asarray(begins[owner] + index - starts[owner], np.int64)


def segment_chunks(segments: Sequence[Segment], reader: ColumnReader) -> Chunks:
    """Return chunk sizes of a snapshot along samples and along atoms, without reading small segments.

    Parameters
    ----------
    segments : sequence of Segment
    reader : ColumnReader
        It reads `n_atoms` of the segments that are larger than a chunk.
    """
    samples: list[int] = []
    atoms: list[int] = []
    full = True
    for segment in segments:
        if segment.n_atoms <= ragged.TARGET_ATOMS:
            pieces = [(segment.n_samples, segment.n_atoms)]
        else:  # a large segment is cut between samples, so their sizes are needed
            counts = np.empty(segment.n_samples, np.int32)
            reader.read(segment.columns["n_atoms"], 0, segment.n_samples, counts)
            pieces = list(zip(*ragged.cut(counts), strict=True))
        for n_samples, n_atoms in pieces:
            if full or atoms[-1] + n_atoms > ragged.TARGET_ATOMS:
                samples.append(0)
                atoms.append(0)
            samples[-1] += n_samples
            atoms[-1] += n_atoms
            full = atoms[-1] >= ragged.TARGET_ATOMS
    return tuple(samples), tuple(atoms)
