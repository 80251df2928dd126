"""`dataset`: a snapshot as a lazy Dataset with dask chunks on sample boundaries and the accessor ``.mlff``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import mask_names
from mlffstore.data.properties import attributes_of, ordered
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import (
    CODED,
    COMPONENTS,
    STANDARD,
    Column,
    is_label,
    label_key,
    mask_column,
    split_key,
)
from mlffstore.data.splits import SPLITS, assign
from mlffstore.data.vocabulary import flag_word
from mlffstore.lazy import accessor as _accessor  # noqa: F401  registers Dataset.mlff
from mlffstore.lazy.chunks import segment_chunks
from mlffstore.store.request import divide_rows, joint_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.format.reader import ColumnReader
    from mlffstore.format.records import Segment
    from mlffstore.store.request import SegmentRows


class StoredSamples(Protocol):
    """What a dataset needs of a snapshot; see `mlffstore.Snapshot`."""

    @property
    def url(self) -> str:
        """URL of the store."""
        ...

    @property
    def store_uuid(self) -> str:
        """UUID of the store."""
        ...

    @property
    def version(self) -> int:
        """Version of the store."""
        ...

    @property
    def precision(self) -> str:
        """dtype of the stored positions."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Split fractions and seed."""
        ...

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers."""
        ...

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments, in order."""
        ...

    @property
    def user_columns(self) -> dict[str, Column]:
        """The user columns."""
        ...

    @property
    def column_reader(self) -> ColumnReader:
        """The reader of stored columns."""
        ...

    def teacher_info(self, teacher: str) -> dict[str, Any]:
        """Return what was recorded of a teacher."""
        ...


def dataset(
    snapshot: StoredSamples,
    teachers: str | Sequence[str] | None = None,
    drop_variables: str | Iterable[str] | None = None,
) -> xr.Dataset:
    """Return the columns of a snapshot as lazily indexed variables; nothing but the log is read.

    Parameters
    ----------
    snapshot : Snapshot
        The samples.
    teachers : str or sequence of str, optional
        Teachers whose labels are variables, in this order; all by default.
    drop_variables : str or iterable of str, optional
        Variables to leave out.
    """
    if teachers is None:
        chosen = snapshot.teachers
    else:
        chosen = tuple(
            choose_teacher(snapshot.teachers, t) for t in ([teachers] if isinstance(teachers, str) else teachers)
        )
    dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
    rows = _Axes(snapshot)
    chunks = dict(zip(("sample", "atom"), segment_chunks(rows.segments, snapshot.column_reader), strict=True))
    variables: dict[str, xr.Variable] = {}

    def add(name: str, array: _StoredVariable, dims: tuple[str, ...], attributes: dict[str, Any]) -> None:
        if name not in dropped:
            encoding = {"preferred_chunks": {dims[0]: chunks[dims[0]]} if rows.starts["sample"][-1] else {}}
            variables[name] = xr.Variable(dims, indexing.LazilyIndexedArray(array), attributes, encoding)

    masks = mask_names((segment.columns for segment in rows.segments), snapshot.user_columns)
    for name, column in {**STANDARD, **snapshot.user_columns}.items():
        stored = column.with_dtype(snapshot.precision) if name == "positions" else column
        attributes: dict[str, Any] = {"units": column.unit, "long_name": column.long_name}
        if name == "n_atoms":
            attributes["sample_dimension"] = "atom"
        vocabulary: tuple[str, ...] | None = None
        if name in CODED or column.coded:
            vocabulary = joint_vocabulary(rows.segments, name)
            attributes |= _flags(vocabulary, np.uint32) | {"meanings": json.dumps(vocabulary)}
        if name in masks:
            attributes["ancillary_variables"] = masks[name]
            about_mask = {"units": "1", "long_name": f"whether {name} has a value"}
            add(masks[name], _Mask(rows, column), (column.axis,), about_mask)
        add(name, _StoredVariable(rows, stored, (name,), vocabulary), column.dims, attributes)
    roots = _StoredVariable(rows, STANDARD["root"], ("root",), None)
    about_split = {"long_name": "split, a hash of the root", **_flags(SPLITS, np.uint8)}
    add("split", _Splits(roots, snapshot.settings), ("sample",), about_split)
    columns = label_columns(rows.segments)
    for name in ordered(dict.fromkeys(split_key(key)[0] for key in columns)):
        keys = tuple(label_key(name, t) for t in chosen)
        there = [columns[key] for key in keys if key in columns]
        if not there:
            continue
        if all((column.shape, column.dtype) == (there[0].shape, there[0].dtype) for column in there):
            array = _StoredVariable(rows, there[0], keys, None, teacher=True)
            add(name, array, (there[0].axis, "teacher", *there[0].inner), _attributes(there[0]))
        else:  # the widths of teachers differ
            for column in there:
                teacher = str(split_key(column.name)[1])
                dims = (column.axis, *(f"{dim}.{teacher}" if dim not in COMPONENTS else dim for dim in column.inner))
                add(column.name, _StoredVariable(rows, column, (column.name,), None), dims,
                    _attributes(column) | {"teacher": teacher})  # fmt: skip
    used = {dim for variable in variables.values() for dim in variable.dims}
    components = {dim: COMPONENTS[known] for dim in used if (known := re.sub(r"_\d+$", "", str(dim))) in COMPONENTS}
    names = {"teacher": list(chosen)} if "teacher" in used else {}
    coordinates = {dim: (dim, values) for dim, values in [*components.items(), *names.items()]}
    about = {
        "title": snapshot.url,
        "store_uuid": snapshot.store_uuid,
        "store_version": snapshot.version,
        "precision": snapshot.precision,
        "teachers": json.dumps({t: snapshot.teacher_info(t) for t in chosen}, sort_keys=True),
    }
    return xr.Dataset(variables, coordinates, about)


def label_columns(segments: Iterable[Segment]) -> dict[str, Column]:
    """Return the columns of all labels in some segments by their on-disk names."""
    out: dict[str, Column] = {}
    for segment in segments:
        for key, stored in segment.columns.items():
            if key not in out and is_label(key):
                out[key] = stored.column
    return out


def _attributes(column: Column) -> dict[str, Any]:
    assert column.quantity is not None
    return {**attributes_of(column.quantity)}


def _flags(words: Sequence[str], dtype: Any) -> dict[str, Any]:
    return {
        "flag_values": np.arange(len(words), dtype=dtype),
        "flag_meanings": " ".join(flag_word(word) for word in words),
    }


class _Axes:
    """The segments of a snapshot and the rows where they begin, shared by all variables of its dataset."""

    def __init__(self, snapshot: StoredSamples) -> None:
        self.snapshot, self.segments = snapshot, snapshot.segments
        self.starts: dict[str, Ints] = {
            "sample": offsets([segment.n_samples for segment in self.segments]),
            "atom": offsets([segment.n_atoms for segment in self.segments]),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Axes, (self.snapshot,))

    @property
    def reader(self) -> ColumnReader:
        """The reader of the snapshot."""
        return self.snapshot.column_reader


class _StoredVariable(BackendArray):
    """One variable: a column of all segments one after another, or such a column for each teacher side by side."""

    def __init__(
        self,
        axes: _Axes,
        column: Column,
        keys: tuple[str, ...],
        vocabulary: tuple[str, ...] | None,
        *,
        teacher: bool = False,
    ) -> None:
        self.axes, self.column, self.keys, self.vocabulary, self.teacher = axes, column, keys, vocabulary, teacher
        self.n = int(axes.starts[column.axis][-1])
        self.shape = (self.n, len(keys), *column.shape) if teacher else (self.n, *column.shape)
        self.dtype = np.dtype(column.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self.outer)

    def outer(self, key: tuple[Any, ...]) -> Array:
        """Read the values of an orthogonal index: for each axis an integer, a slice or an array of integers."""
        first, rest = key[0], list(key[1:])
        keys = self.keys
        if self.teacher:
            chosen = np.arange(len(keys))[rest[0]]
            keys = tuple(self.keys[i] for i in np.atleast_1d(chosen))
            rest[0] = 0 if np.ndim(chosen) == 0 else slice(None)
        # Not arange(n)[first]: that would be as long as the whole dataset, for every chunk of it.
        index = np.arange(*first.indices(self.n)) if isinstance(first, slice) else np.asarray(first)
        flat = np.atleast_1d(index).astype(np.int64)
        flat = np.where(flat < 0, flat + self.n, flat)
        several = [self._column(name, flat) for name in keys]
        out = np.stack(several, axis=1) if self.teacher else several[0]
        for axis, part in reversed(list(enumerate(rest, start=1))):
            out = out[(slice(None),) * axis + (part,)]
        return np.asarray(out[0] if np.ndim(index) == 0 else out)

    def _column(self, key: str, index: Ints) -> Array:
        """Return rows of one stored column."""
        out = np.empty((len(index), *self.column.shape), self.dtype)
        for part in divide_rows(self.axes.segments, self.axes.starts[self.column.axis], index):
            out[part.places] = self._values(part, key)
        return out

    def _values(self, part: SegmentRows, key: str) -> Any:
        """Return the rows of one segment, or the one value that stands for all of them."""
        if key not in part.segment.columns:
            return np.nan if self.dtype.kind == "f" else 0
        if self.vocabulary is not None:
            return part.read_codes(self.axes.reader, key, self.vocabulary)
        return part.read(self.axes.reader, key)


class _Mask(_StoredVariable):
    """Which rows of a user column have a value."""

    def __init__(self, axes: _Axes, column: Column) -> None:
        super().__init__(axes, mask_column(column), (column.name,), None)

    def _values(self, part: SegmentRows, key: str) -> Any:
        return part.read_mask(self.axes.reader, key)


class _Splits(_StoredVariable):
    """The split of every sample, which its root decides."""

    def __init__(self, roots: _StoredVariable, settings: Mapping[str, Any]) -> None:
        self.roots, self.settings = roots, settings
        self.shape, self.dtype = roots.shape, np.dtype("uint8")

    def outer(self, key: tuple[Any, ...]) -> Array:
        root = self.roots.outer(key)
        return assign(np.atleast_1d(root), self.settings["splits"], self.settings["split_seed"]).reshape(np.shape(root))
