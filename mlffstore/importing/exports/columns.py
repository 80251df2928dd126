"""`FileColumn`: rows of a column of an export with what describes them, and `batch_of`, which makes samples of columns."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.batch import SampleBatch
from mlffstore.data.masks import TRUTH
from mlffstore.data.properties import ordered
from mlffstore.data.schema import CODED, STANDARD
from mlffstore.errors import DataError
from mlffstore.release.labels import property_in
from mlffstore.release.reading import user_column_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Array

#: Standard columns that follow from the others.
_DERIVED = ("content_hash",)


@dataclass(frozen=True, slots=True)
class FileColumn:
    """Rows of one column of a file.

    Attributes
    ----------
    name : str
        Its name in the file: a standard name, a property (of several teachers with the teacher behind a dot), a user column.
    values : ndarray, shape (R, ...)
    attrs : mapping
        What describes it, as `mlffstore_exporters.columns.FileColumns.attributes` says it.
    there : ndarray, shape (R,), bool, or None
        Which rows have a value; None if all of them have one, or if what is missing is NaN.
    words : tuple of str or None
        What the codes of a column of strings stand for.
    """

    name: str
    values: Array
    attrs: Mapping[str, Any]
    there: Array | None = None
    words: tuple[str, ...] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the values."""
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions of the values."""
        return self.values.ndim


def batch_of(columns: Sequence[FileColumn], teachers: Sequence[str]) -> SampleBatch:
    """Return the samples whose columns these are.

    Parameters
    ----------
    columns : sequence of FileColumn
    teachers : sequence of str
        With one teacher its labels have the names of the properties, with several ``energy.NAME`` and so on.

    Raises
    ------
    DataError
        If the columns are not those of samples.
    """
    structure: dict[str, Any] = {}
    labels: dict[str, dict[str, Array]] = {teacher: {} for teacher in teachers}
    properties: dict[str, Property] = {}
    extra: dict[str, tuple[Any, str, str]] = {}
    long_names: dict[str, str] = {}
    for column in columns:
        spec = property_in(column.name, column)
        if spec is not None:
            teacher = column.name.partition(".")[2] or teachers[0]
            if teacher not in labels:
                raise DataError(
                    f"{column.name}: expected labels of {', '.join(teachers)}, got others; the file is damaged"
                )
            labels[teacher][spec.name] = _missing_as_nan(column)
            properties[spec.name] = spec
        elif column.name in CODED:
            structure[column.name] = (column.values, ("",) if column.words is None else column.words)
        elif column.name in STANDARD:
            structure[column.name] = column.values
        elif column.there is None or column.there.any():
            described = user_column_of(column.name, column)
            extra[column.name] = (_user_values(column), described.unit, described.axis)
            long_names[column.name] = described.long_name
    for name in _DERIVED:
        structure.pop(name, None)
    if lacking := [name for name in STANDARD if name not in structure and name not in _DERIVED]:
        raise DataError(f"expected the columns {', '.join(lacking)}, got none; the file is damaged")
    given = {teacher: {name: named[name] for name in ordered(named)} for teacher, named in labels.items() if named}
    batch = SampleBatch(**structure, labels=given, extra=extra, properties=tuple(properties.values()))
    for name, text in long_names.items():
        batch.user[name] = replace(batch.user[name], long_name=text)
    return batch


def words_of(attrs: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the strings that the codes of a column stand for, from its attribute `meanings`."""
    try:
        words = json.loads(attrs["meanings"])
    except (TypeError, ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{name}: expected a JSON list of strings in the attribute meanings; the file is damaged")
    return tuple(words)


def _missing_as_nan(column: FileColumn) -> Array:
    if column.there is None or column.there.all():
        return column.values
    values = column.values.copy()
    values[~column.there] = np.nan
    return values


def _user_values(column: FileColumn) -> Any:
    """Return a user column as `SampleBatch` takes it."""
    values, there = column.values, column.there
    if column.words is not None:
        codes = values.astype(np.int64)
        if len(codes) and not (codes.min() >= 0 and codes.max() < max(len(column.words), 1)):
            raise DataError(f"{column.name}: a code without a meaning; the file is damaged")
        strings = np.array([*column.words, None], object)[:-1] if column.words else np.array([""], object)
        out = strings[codes]
        if there is not None:
            out[~there] = None
        return out
    if str(column.attrs.get("flag_meanings")) == TRUTH:
        values = values.astype(bool)
    if there is None or there.all() or values.dtype.kind == "f":
        return values if there is None or values.dtype.kind != "f" else _missing_as_nan(column)
    return np.ma.MaskedArray(values, np.broadcast_to(~there.reshape(-1, *(1,) * (values.ndim - 1)), values.shape))
