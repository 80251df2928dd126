"""The export `parquet` as a source of samples: files whose schema says that this library wrote them."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.schema import CODED
from mlffstore.data.splits import SPLITS, named_split
from mlffstore.data.vocabulary import encode
from mlffstore.errors import DataError, missing_dependency
from mlffstore.importing.exports.columns import FileColumn, batch_of
from mlffstore.importing.packed import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

#: Key of the metadata of the schema.
METADATA = b"mlffstore"
_WHAT = "the Parquet of an export"


def is_parquet_export(path: Path) -> bool:
    """Return whether a Parquet file, or a folder of them, is an export of this library; False without pyarrow."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        return False
    file = next(iter(_files(path)), None)
    if file is None:
        return False
    try:
        return METADATA in (pq.read_schema(file).metadata or {})
    except Exception:  # whatever a damaged file leads to; the reader of other Parquet says it
        return False


def attributes_of_parquet(path: Path) -> dict[str, Any]:
    """Return what the schema says of where the samples come from."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_dependency("pyarrow", "parquet", "Reading Parquet") from error
    with reading(_WHAT, lambda: str(path), Exception):
        return dict(json.loads(pq.read_schema(_files(path)[0]).metadata[METADATA]))


def blocks_of_parquet(path: Path, teachers: tuple[str, ...], n_samples: int) -> Iterator[tuple[SampleBatch, Array]]:
    """Yield the samples file by file, some at a time, and the split of each, which the names of the files say.

    Raises
    ------
    DataError
        If a file is damaged or its name says no split.
    """
    import pyarrow.parquet as pq

    for path_of_file in _files(path):
        split = named_split(path_of_file.name.partition("-")[0])
        if split is None:
            raise DataError(
                f"{path_of_file}: expected a name that begins with the split, such as train-00000-of-00001.parquet, got "
                f"{path_of_file.name!r}; rename it (one of {', '.join(SPLITS)})"
            )
        with reading(_WHAT, functools.partial(str, path_of_file), Exception), pq.ParquetFile(path_of_file) as file:
            for rows in file.iter_batches(batch_size=n_samples):
                if len(rows):
                    yield batch_of(_columns(rows), teachers), np.full(len(rows), split)


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.parquet")) if path.is_dir() else [path]


def _columns(rows: Any) -> list[FileColumn]:
    """Return the columns of a table with one row per sample."""
    n_atoms = rows.column("n_atoms").to_numpy(zero_copy_only=False).astype(np.int64)
    out = []
    for field, array in zip(rows.schema, rows.columns, strict=True):
        attrs: dict[str, Any] = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        if "axis" not in attrs:
            continue
        if "extensive" in attrs:
            attrs["extensive"] = int(attrs["extensive"])
        there = array.is_valid().to_numpy(zero_copy_only=False)
        if attrs["axis"] == "atom":
            _check_lengths(field.name, array, there, n_atoms)
            there = np.repeat(there, n_atoms)
            array = array.drop_null().flatten()
            inner = array.is_valid().to_numpy(zero_copy_only=False)
            there[there] = inner
        out.append(_column(field.name, array.drop_null(), there, attrs))
    return out


def _check_lengths(name: str, array: Any, there: Array, n_atoms: Array) -> None:
    lengths = array.drop_null().value_lengths().to_numpy(zero_copy_only=False)
    if not np.array_equal(lengths, n_atoms[there]):
        raise DataError(f"{name}: expected one entry for each atom, got lists of another length; the file is damaged")


def _column(name: str, present: Any, there: Array, attrs: dict[str, Any]) -> FileColumn:
    """Return a column from the rows that have a value."""
    import pyarrow as pa

    sizes = []
    while pa.types.is_fixed_size_list(present.type):
        sizes.append(present.type.list_size)
        present = present.flatten()
    words = None
    if pa.types.is_string(present.type) or pa.types.is_large_string(present.type):
        values, words = encode(present.to_pylist())
        words = words or ("",)
    else:
        values = present.to_numpy(zero_copy_only=False).reshape(-1, *sizes)
        values = values.astype(attrs["dtype"]) if "dtype" in attrs else values
    missing = np.nan if values.dtype.kind == "f" else 0
    whole = np.full((len(there), *values.shape[1:]), missing, values.dtype)
    whole[there] = values
    return FileColumn(name, whole, attrs, None if there.all() and name not in CODED else there, words)
