"""`dataset`: samples as a lazy Dataset with dask chunks on sample boundaries and the accessor ``.mlff``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from dask.base import tokenize
from xarray.backends import BackendArray
from xarray.core import indexing

from mlffstore.data.labels import choose_teacher
from mlffstore.data.properties import attributes_of, ordered
from mlffstore.data.schema import (
    CODED,
    COMPONENTS,
    STANDARD,
    Column,
    label_key,
    mask_column,
    split_key,
)
from mlffstore.data.splits import SPLITS
from mlffstore.data.vocabulary import flag_word
from mlffstore.lazy import accessor as _accessor  # noqa: F401  registers Dataset.mlff
from mlffstore.lazy.versioned import VERSION, VersionedVariable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.store.rows import ColumnRows


class LazySamples(Protocol):
    """What a dataset needs of samples; see `mlffstore.store.samples.Samples`."""

    digest: str

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
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers."""
        ...

    @property
    def user_columns(self) -> dict[str, Column]:
        """The user columns."""
        ...

    def teacher_info(self, teacher: str) -> dict[str, Any]:
        """Return what was recorded of a teacher."""
        ...

    def label_columns(self) -> dict[str, Column]:
        """Return the columns of labels by their on-disk names."""
        ...

    def mask_names(self) -> dict[str, str]:
        """Return the user columns that need a mask, each with the name of its mask."""
        ...

    def vocabulary(self, name: str) -> tuple[str, ...]:
        """Return the strings of a coded column."""
        ...

    def rows(self) -> ColumnRows:
        """Return the rows of the columns."""
        ...


def dataset(
    samples: LazySamples,
    teachers: str | Sequence[str] | None = None,
    drop_variables: str | Iterable[str] | None = None,
) -> xr.Dataset:
    """Return the columns of samples as lazily indexed variables; of a snapshot nothing but the log is read.

    Parameters
    ----------
    samples : Samples
    teachers : str or sequence of str, optional
        Teachers whose labels are variables, in this order; all by default.
    drop_variables : str or iterable of str, optional
        Variables to leave out.
    """
    if teachers is None:
        chosen = samples.teachers
    else:
        chosen = tuple(
            choose_teacher(samples.teachers, t) for t in ([teachers] if isinstance(teachers, str) else teachers)
        )
    dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
    rows = samples.rows()
    n_samples = rows.sizes["sample"]
    chunks = dict(zip(("sample", "atom"), rows.chunks(), strict=True))
    variables: dict[str, xr.Variable] = {}
    version = tokenize(samples.store_uuid, samples.digest)

    def add(name: str, array: _StoredVariable, dims: tuple[str, ...], attributes: dict[str, Any]) -> None:
        if name not in dropped:
            encoding = {"preferred_chunks": {dims[0]: chunks[dims[0]]} if n_samples else {}, VERSION: version}
            variables[name] = VersionedVariable(dims, indexing.LazilyIndexedArray(array), attributes, encoding)

    masks = samples.mask_names()
    for name, column in {**STANDARD, **samples.user_columns}.items():
        stored = column.with_dtype(samples.precision) if name == "positions" else column
        attributes: dict[str, Any] = {"units": column.unit, "long_name": column.long_name}
        if name == "n_atoms":
            attributes["sample_dimension"] = "atom"
        vocabulary: tuple[str, ...] | None = None
        if name in CODED or column.coded:
            vocabulary = samples.vocabulary(name)
            attributes |= _flags(vocabulary, np.uint32) | {"meanings": json.dumps(vocabulary)}
        if name in masks:
            attributes["ancillary_variables"] = masks[name]
            about_mask = {"units": "1", "long_name": f"whether {name} has a value"}
            add(masks[name], _Mask(rows, column), (column.axis,), about_mask)
        add(name, _StoredVariable(rows, stored, (name,), vocabulary), column.dims, attributes)
    about_split = {"long_name": "split, a hash of the root", **_flags(SPLITS, np.uint8)}
    add("split", _Splits(rows), ("sample",), about_split)
    columns = samples.label_columns()
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
        "title": samples.url,
        "store_uuid": samples.store_uuid,
        "store_version": samples.version,
        "precision": samples.precision,
        "teachers": json.dumps({t: samples.teacher_info(t) for t in chosen}, sort_keys=True),
    }
    return xr.Dataset(variables, coordinates, about)


def _attributes(column: Column) -> dict[str, Any]:
    assert column.quantity is not None
    return {**attributes_of(column.quantity)}


def _flags(words: Sequence[str], dtype: Any) -> dict[str, Any]:
    return {
        "flag_values": np.arange(len(words), dtype=dtype),
        "flag_meanings": " ".join(flag_word(word) for word in words),
    }


class _StoredVariable(BackendArray):
    """One variable: a column, or such a column for each teacher side by side."""

    def __init__(
        self,
        rows: ColumnRows,
        column: Column,
        keys: tuple[str, ...],
        vocabulary: tuple[str, ...] | None,
        *,
        teacher: bool = False,
    ) -> None:
        self.rows, self.column, self.keys, self.vocabulary, self.teacher = rows, column, keys, vocabulary, teacher
        self.n = rows.sizes[column.axis]
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
        several = [self.values(name, flat) for name in keys]
        if self.teacher:
            empty = np.empty((len(flat), 0, *self.column.shape), self.dtype)  # of no teacher
            out = np.stack(several, axis=1) if several else empty
        else:
            out = several[0]
        for axis, part in reversed(list(enumerate(rest, start=1))):
            out = out[(slice(None),) * axis + (part,)]
        return np.asarray(out[0] if np.ndim(index) == 0 else out)

    def values(self, key: str, index: Ints) -> Array:
        """Return rows of one stored column."""
        if self.vocabulary is not None:
            return self.rows.read_codes(key, self.column, index, self.vocabulary)
        return self.rows.read(key, self.column, index)


class _Mask(_StoredVariable):
    """Which rows of a user column have a value."""

    def __init__(self, rows: ColumnRows, column: Column) -> None:
        super().__init__(rows, mask_column(column), (column.name,), None)
        self.masked = column

    def values(self, key: str, index: Ints) -> Array:
        """Return rows of the mask."""
        return self.rows.read_mask(self.masked, index)


class _Splits(_StoredVariable):
    """The split of every sample."""

    def __init__(self, rows: ColumnRows) -> None:
        super().__init__(rows, STANDARD["root"], ("split",), None)
        self.dtype = np.dtype("uint8")

    def values(self, key: str, index: Ints) -> Array:
        """Return splits."""
        return self.rows.read_splits(index)
