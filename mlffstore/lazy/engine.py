"""The xarray engine ``mlffstore``: a snapshot as a lazy Dataset with dask chunks on sample boundaries.

>>> import xarray as xr
>>> ds = xr.open_dataset("d.zarr", engine="mlffstore", chunks={})  # doctest: +SKIP
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from mlffstore.data import ragged
from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import mask_names
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import CODED, COMPONENTS, LABELS, STANDARD, Column, label_key, mask_column, mask_key
from mlffstore.data.splits import SPLITS, assign
from mlffstore.data.vocabulary import UNKNOWN_ONLY, flag_word, merge_words, translate
from mlffstore.lazy import accessor as _accessor  # noqa: F401  registers Dataset.mlff

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.format.records import Segment
    from mlffstore.store.snapshot import Snapshot


class MlffstoreBackend(BackendEntrypoint):
    """Opens stores: ``xr.open_dataset(path, engine="mlffstore", chunks={})``."""

    description = "Open stores of labelled atomistic samples as lazy ragged columns"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "version", "tag", "teachers", "storage_options")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        version: int | None = None,
        tag: str | None = None,
        teachers: str | Sequence[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Open a version of a store; xarray passes on what is not its own option."""
        from mlffstore.store.facade import open as open_store

        store = open_store(filename_or_obj, storage_options=storage_options)
        return dataset(store.snapshot(version=version, tag=tag), teachers, drop_variables)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return False: a bare ``.zarr`` may be anything, so the engine has to be named."""
        return False


def dataset(
    snapshot: Snapshot, teachers: str | Sequence[str] | None = None, drop_variables: str | Iterable[str] | None = None
) -> xr.Dataset:
    """Return the columns of a snapshot as lazily indexed variables; nothing but the log is read.

    Parameters
    ----------
    snapshot : Snapshot
    teachers : str or sequence of str, optional
        Whose labels, in this order; all by default.
    drop_variables : str or iterable of str, optional
        Variables to leave out.
    """
    if teachers is None:
        who = snapshot.teachers
    else:
        who = tuple(
            choose_teacher(snapshot.teachers, t) for t in ([teachers] if isinstance(teachers, str) else teachers)
        )
    dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
    rows = _Rows(snapshot)
    chunks = dict(zip(("sample", "atom"), rows.chunks(), strict=True))
    variables: dict[str, xr.Variable] = {}

    def add(name: str, array: _Rows2D, dims: tuple[str, ...], attributes: dict[str, Any]) -> None:
        if name not in dropped:
            encoding = {"preferred_chunks": {dims[0]: chunks[dims[0]]} if rows.starts["sample"][-1] else {}}
            variables[name] = xr.Variable(dims, indexing.LazilyIndexedArray(array), attributes, encoding)

    masks = mask_names((segment.columns for segment in rows.segments), snapshot.user_columns)
    for name, column in {**STANDARD, **snapshot.user_columns}.items():
        stored = column.with_dtype(snapshot.precision) if name == "positions" else column
        attributes: dict[str, Any] = {"units": column.unit, "long_name": column.long_name}
        if name == "n_atoms":
            attributes["sample_dimension"] = "atom"
        words: tuple[str, ...] | None = None
        if name in CODED:
            words = merge_words(segment.vocabulary.get(name, UNKNOWN_ONLY) for segment in rows.segments)
            attributes |= _flags(words, np.uint16) | {"meanings": json.dumps(words)}
        if name in masks:
            attributes["ancillary_variables"] = masks[name]
            about_mask = {"units": "1", "long_name": f"whether {name} has a value"}
            add(masks[name], _Mask(rows, column), (column.axis,), about_mask)
        add(name, _Rows2D(rows, stored, (name,), words), column.dims, attributes)
    roots = _Rows2D(rows, STANDARD["root"], ("root",), None)
    about_split = {"long_name": "split, a hash of the root", **_flags(SPLITS, np.uint8)}
    add("split", _Splits(roots, snapshot.settings), ("sample",), about_split)
    for name, column in LABELS.items():
        keys = tuple(label_key(name, t) for t in who)
        if any(key in segment.columns for segment in rows.segments for key in keys):
            array = _Rows2D(rows, column, keys, None, teacher=True)
            attributes = {"units": column.unit, "long_name": column.long_name}
            add(name, array, (column.axis, "teacher", *column.inner), attributes)
    found = {dim for variable in variables.values() for dim in variable.dims}
    coordinates = {dim: (dim, values) for dim, values in {**COMPONENTS, "teacher": list(who)}.items() if dim in found}
    about = {
        "title": snapshot.url,
        "store_uuid": snapshot.store_uuid,
        "store_version": snapshot.version,
        "precision": snapshot.precision,
        "teachers": json.dumps({t: snapshot.teacher_info(t) for t in who}, sort_keys=True),
    }
    return xr.Dataset(variables, coordinates, about)


def _flags(words: Sequence[str], dtype: Any) -> dict[str, Any]:
    return {
        "flag_values": np.arange(len(words), dtype=dtype),
        "flag_meanings": " ".join(flag_word(word) for word in words),
    }


class _Rows:
    """Where the rows of a snapshot lie: shared by all its variables."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot, self.segments = snapshot, snapshot.segments
        self.starts: dict[str, Ints] = {
            "sample": offsets([segment.n_samples for segment in self.segments]),
            "atom": offsets([segment.n_atoms for segment in self.segments]),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Rows, (self.snapshot,))

    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return chunk sizes along samples and along atoms: whole samples, about `ragged.TARGET_ATOMS` atoms each."""
        samples: list[int] = []
        atoms: list[int] = []
        full = True
        for segment in self.segments:
            if segment.n_atoms <= ragged.TARGET_ATOMS:
                pieces = [(segment.n_samples, segment.n_atoms)]
            else:  # where to cut a large segment, only its sizes can say
                counts = np.empty(segment.n_samples, np.int32)
                self.snapshot._reader.read(segment.columns["n_atoms"], 0, segment.n_samples, counts)
                pieces = list(zip(*ragged.cut(counts), strict=True))
            for n_samples, n_atoms in pieces:
                if full or atoms[-1] + n_atoms > ragged.TARGET_ATOMS:
                    samples.append(0)
                    atoms.append(0)
                samples[-1] += n_samples
                atoms[-1] += n_atoms
                full = atoms[-1] >= ragged.TARGET_ATOMS
        return tuple(samples), tuple(atoms)


class _Rows2D(BackendArray):
    """One variable: a column of every segment one after another, or one column a teacher side by side."""

    def __init__(
        self,
        rows: _Rows,
        column: Column,
        keys: tuple[str, ...],
        words: tuple[str, ...] | None,
        *,
        teacher: bool = False,
    ) -> None:
        self.rows, self.column, self.keys, self.words, self.teacher = rows, column, keys, words, teacher
        self.n = int(rows.starts[column.axis][-1])
        self.shape = (self.n, len(keys), *column.shape) if teacher else (self.n, *column.shape)
        self.dtype = np.dtype(column.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> Array:
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

    def _absent(self, segment: Segment) -> Any:
        """Return what stands where a segment lacks the column."""
        return np.nan if self.dtype.kind == "f" else 0

    def _column(self, key: str, index: Ints) -> Array:
        """Return rows of one stored column."""
        starts, reader = self.rows.starts[self.column.axis], self.rows.snapshot._reader
        out = np.empty((len(index), *self.column.shape), self.dtype)
        if not len(index):
            return out
        owner = np.searchsorted(starts, index, side="right") - 1
        run = bool(np.all(np.diff(index) == 1))
        for i in np.unique(owner):
            segment = self.rows.segments[int(i)]
            where: Any = np.flatnonzero(owner == i)
            if run:
                where = slice(int(where[0]), int(where[-1]) + 1)
            stored = segment.columns.get(key)
            if stored is None:
                out[where] = self._absent(segment)
                continue
            mine = index[where] - starts[i]
            if run:
                values = np.empty((len(mine), *stored.column.shape), stored.column.dtype)
                reader.read(stored, int(mine[0]), int(mine[-1]) + 1, values)
            else:
                values = reader.gather(stored, mine)
            if self.words is not None:
                words = segment.vocabulary.get(key, UNKNOWN_ONLY)
                values = translate(values, words, self.words, f"{segment.path}/{key}")
            out[where] = values
        return out


class _Mask(_Rows2D):
    """Where a user column has a value."""

    def __init__(self, rows: _Rows, column: Column) -> None:
        super().__init__(rows, mask_column(column), (mask_key(column.name),), None)
        self.name = column.name

    def _absent(self, segment: Segment) -> Any:
        return self.name in segment.columns  # a segment that has the column and no mask has a value everywhere


class _Splits(_Rows2D):
    """The split of every sample, worked out from its root."""

    def __init__(self, roots: _Rows2D, settings: Mapping[str, Any]) -> None:
        self.roots, self.settings = roots, settings
        self.shape, self.dtype = roots.shape, np.dtype("uint8")

    def _outer(self, key: tuple[Any, ...]) -> Array:
        root = self.roots._outer(key)
        return assign(np.atleast_1d(root), self.settings["splits"], self.settings["split_seed"]).reshape(np.shape(root))
