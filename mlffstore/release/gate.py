"""The gate of release files: one of any origin is refused before a row is read, unless it has the layout of a release.

Links that leave the group, storage outside the file, types that are no plain numbers, shapes for which the file holds no
data: all of these would make a reader read elsewhere, run out of memory, or fail with an unrelated error.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.schema import STANDARD, USER_DTYPES, check_teacher_name
from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError
from mlffstore.release.labels import property_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py

    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Array

#: Bytes that deflate makes of one, at most (1032, RFC 1951), and a bound for the other codecs.
_DEFLATE, _OTHER = 1100, 1 << 17


def problems(file: h5py.File) -> Iterator[str]:
    """Yield what is no release's in an open file; nothing but names, attributes and sizes is read."""
    yield from _attributes(dict(file.attrs))
    for split in (name for name in SPLITS if name in file):
        if not _is_hard(file, split) or not hasattr(file[split], "keys"):
            yield f"{split}: expected a group of this file, got something else"
            continue
        yield from _group(file[split], split)


def _attributes(attributes: dict[str, Any]) -> Iterator[str]:
    try:
        teachers = json.loads(attributes["teachers"]) if "teachers" in attributes else [attributes["teacher"]]
        for teacher in teachers:
            check_teacher_name(teacher)
        if not isinstance(teachers, list) or not teachers or len(set(teachers)) != len(teachers):
            yield f"teachers: expected different names, got {str(teachers)[:60]!r}"
    except (ValueError, TypeError, KeyError, DataError) as error:
        yield f"teachers: expected a JSON list of names ({str(error)[:80]})"
    try:
        settings = json.loads(attributes["settings"])
        fractions = [float(settings["splits"][split]) for split in SPLITS]
        if not all(fraction >= 0 for fraction in fractions) or not isinstance(settings["split_seed"], int):
            yield "settings: expected fractions of the splits and a whole number as their seed"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        yield f"settings: expected the fractions of {', '.join(SPLITS)} and split_seed, as JSON ({str(error)[:80]})"
    precision = attributes.get("precision", "float32")
    if not isinstance(precision, str) or precision not in ("float32", "float64"):
        yield f"precision: expected float32 or float64, got {str(precision)[:60]!r}"
    for name in ("store_uuid", "store_version"):
        if name not in attributes:
            yield f"{name}: expected this attribute, got none"


def _group(group: h5py.Group, split: str) -> Iterator[str]:
    rows: dict[str, int] = {}
    for axis, name in (("sample", "n_atoms"), ("atom", "numbers")):
        if name not in group or not _is_hard(group, name) or getattr(group[name], "ndim", None) != 1:
            yield f"{split}/{name}: expected a column, got none"
            return
        rows[axis] = len(group[name])
    for name in group:
        text = _dataset(group, name, rows)
        if text:
            yield f"{split}/{name}: {text}"


def _dataset(group: h5py.Group, name: str, rows: dict[str, int]) -> str:
    """Return what is wrong with a member of a group, or nothing."""
    if not _is_hard(group, name):
        return "expected a dataset of this file, got a link that may lead elsewhere"
    dataset = group[name]
    if not hasattr(dataset, "dtype"):
        return "expected a dataset, got a group"
    if dataset.is_virtual or dataset.external:
        return "expected data in this file, got a reference to another one"
    if "axis" not in dataset.attrs:  # a dimension scale, which is never read
        return ""
    key = name.partition(".")[0]
    axis = str(dataset.attrs["axis"])
    try:
        label = property_in(name, dataset)
    except DataError as error:
        return str(error)
    if label is not None:
        return _label(label, dataset, axis, rows) or _size(dataset)
    column = STANDARD.get(key)
    if axis not in rows or (column is not None and axis != column.axis):
        return f"expected the axis sample or atom, got {axis[:20]!r}"
    if dataset.shape[:1] != (rows[axis],) or (column is not None and dataset.shape[1:] != column.shape):
        return (
            f"expected {rows[axis]} rows{f' of shape {column.shape}' if column else ''}, got the shape {dataset.shape}"
        )
    allowed: tuple[str, ...] = USER_DTYPES if column is None else (column.dtype.replace("bool", "uint8"),)
    if key == "positions":
        allowed = ("float32", "float64")
    if dataset.dtype.name not in allowed or not dataset.dtype.isnative:
        return f"expected the dtype {' or '.join(allowed)}, got {str(dataset.dtype)[:40]}"
    return _size(dataset)


def _label(label: Property, dataset: h5py.Dataset, axis: str, rows: dict[str, int]) -> str:
    """Return what is wrong with a dataset of labels, or nothing."""
    if axis != label.axis:
        return f"expected the axis {label.axis}, got {axis[:20]!r}"
    if dataset.shape[:1] != (rows[axis],) or not label.fits(dataset.shape[1:]):
        return f"expected {rows[axis]} rows of {label.describe()}, got the shape {dataset.shape}"
    allowed = (label.dtype, "float16") if label.half else (label.dtype,)
    if dataset.dtype.name not in allowed or not dataset.dtype.isnative:
        return f"expected the dtype {' or '.join(allowed)}, got {str(dataset.dtype)[:40]}"
    return ""


def _size(dataset: h5py.Dataset) -> str:
    """Return what is wrong with the bytes that the file has for a dataset, or nothing."""
    most = dataset.id.get_storage_size() * (_DEFLATE if dataset.compression == "gzip" else _OTHER)
    if dataset.size * dataset.dtype.itemsize > most:
        return f"expected data for the shape {dataset.shape}, got {dataset.id.get_storage_size()} bytes"
    return ""


def _is_hard(group: h5py.Group, name: str) -> bool:
    import h5py

    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def atoms_per_sample(group: h5py.Group) -> Array:
    """Return the atoms of each sample of a group, shape (S,), int32.

    Raises
    ------
    DataError
        If they are not those of as many atoms as the group has.
    """
    counts = np.asarray(group["n_atoms"][...])
    if (len(counts) and counts.min() < 1) or int(counts.sum(dtype=np.int64)) != len(group["numbers"]):
        raise DataError(
            f"{group.name}/n_atoms: expected at least 1 everywhere and {len(group['numbers'])} in all; the file is damaged"
        )
    return counts


def strings(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Return the strings that the codes of a column stand for.

    Raises
    ------
    DataError
        If there are none.
    """
    try:
        words = json.loads(dataset.attrs["meanings"])
    except (KeyError, TypeError, ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(
            f"{dataset.name}: expected a JSON list of strings in the attribute meanings; the file is damaged"
        )
    return tuple(words)
