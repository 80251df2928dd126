"""Masks: which rows of a user column hold a value, where the dtype has no NaN to say so.

A mask belongs to a boolean or integer column and is absent when every row has a value. It is never part of a column
with a floating dtype, whose missing values are NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlffstore.data.schema import mask_key
from mlffstore.errors import DataError, problems_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlffstore.data.columns import SampleColumns
    from mlffstore.data.schema import Array, Column

#: CF attribute `flag_meanings` of booleans in files that keep them as numbers.
TRUTH = "false true"
#: Integers up to this are exact as float64.
EXACT = 2**53
Mask = npt.NDArray[np.bool_]


def unmask(name: str, values: npt.ArrayLike, problems: list[str]) -> tuple[Array, Mask | None]:
    """Return the values of a column as a plain array, and its mask if it needs one.

    Parameters
    ----------
    name : str
        The column, for messages.
    values : array_like, shape (rows, ...)
        A `numpy.ma.MaskedArray` says which rows have no value: all of a row is masked, or nothing of it.
    problems : list of str
        A row that is masked in part is added here.

    Returns
    -------
    values : ndarray, shape (rows, ...)
        With NaN or, for other dtypes, 0 in the rows without a value.
    mask : ndarray of bool, shape (rows,), or None
        True where there is a value; None if all rows have one, or if NaN says so.
    """
    if not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values), None
    hidden = np.ma.getmaskarray(values).reshape(len(values), math.prod(values.shape[1:]))
    absent: Mask = np.asarray(hidden.all(axis=1)) if hidden.shape[1] else np.zeros(len(values), bool)
    if (hidden.any(axis=1) & ~absent).any():
        row = int(np.argmax(hidden.any(axis=1) & ~absent))
        problems.append(f"{name}: row {row} is masked in part; mask all of a row, or nothing of it")
    array = np.array(values.data)
    array[absent] = np.nan if array.dtype.kind == "f" else 0
    return array, None if array.dtype.kind == "f" else present(~absent)


def present(mask: Mask) -> Mask | None:
    """Return a mask, or None if it is True everywhere."""
    return None if mask.all() else mask


def missing_rows(column: Column, rows: int) -> Array:
    """Return what stands in a user column for rows without a value, shape (rows, ...): NaN, or 0 beside a mask."""
    return np.full((rows, *column.shape), np.nan if np.dtype(column.dtype).kind == "f" else 0, column.dtype)


def join_masks(column: Column, parts: Sequence[tuple[int, bool, Mask | None]]) -> Mask | None:
    """Return the mask of a column that is joined from parts.

    Parameters
    ----------
    column : Column
    parts : sequence of (int, bool, ndarray or None)
        For each part its rows, whether it has the column at all, and its mask.
    """
    if np.dtype(column.dtype).kind == "f" or all(has_column and mask is None for _, has_column, mask in parts):
        return None
    return present(np.concatenate([np.full(n, has_column) if mask is None else mask for n, has_column, mask in parts]))


def check_masks(masks: Mapping[str, Mask], user: Mapping[str, Column], rows: Mapping[str, int]) -> None:
    """Raise `DataError` if a mask does not fit its column: a batch may have been given masks by hand.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool
    user : mapping of str to Column
        The user columns.
    rows : mapping of str to int
        Samples ("sample") and atoms ("atom") of the batch.
    """
    problems = []
    for name, mask in masks.items():
        column = user.get(name)
        if column is None or np.dtype(column.dtype).kind == "f":
            problems.append(f"{name}: expected a boolean or integer user column, got a mask for something else")
        elif mask.dtype != bool or mask.shape != (rows[column.axis],):
            problems.append(
                f"{name}: expected a bool for each {column.axis}, shape ({rows[column.axis]},), got {mask.dtype} "
                f"{mask.shape}"
            )
    if problems:
        raise DataError(problems_message("these masks do not fit their columns:", problems))


def mask_names(segments: Iterable[Mapping[str, object]], user: Mapping[str, Column]) -> dict[str, str]:
    """Return the user columns that need a mask where whole datasets are handed out, each with the name of its mask.

    Parameters
    ----------
    segments : iterable of mapping
        Columns of each segment by their on-disk names.
    user : mapping of str to Column

    Returns
    -------
    dict of str to str
        ``{"quality": "quality_mask"}``; with more underscores if there is a user column of that name.
    """
    columns = list(segments)
    out = {}
    for name, column in user.items():
        key = mask_key(name)
        if np.dtype(column.dtype).kind != "f" and any(name not in segment or key in segment for segment in columns):
            mask = f"{name}_mask"
            while mask in user:
                mask += "_"
            out[name] = mask
    return out


def user_rows(batch: SampleColumns, column: Column) -> tuple[Array, Mask]:
    """Return a user column of a batch, whether or not the batch has it, and which rows have a value."""
    n = len(batch) if column.axis == "sample" else batch.n_atoms_total
    if column.name not in batch.user:
        return missing_rows(column, n), np.zeros(n, bool)
    values = batch.columns[column.name]
    if values.dtype.kind == "f":
        return values, np.asarray(~np.isnan(values.reshape(n, int(np.prod(column.shape)))).all(axis=1))
    return values, batch.masks.get(column.name, np.ones(n, bool))


def without_mask(name: str, values: Array, mask: Mask) -> Array | None:
    """Return the rows of one sample for a format that has no masks.

    Parameters
    ----------
    name : str
        The column, for messages.
    values : ndarray, shape (rows, ...)
    mask : ndarray of bool, shape (rows,)

    Returns
    -------
    ndarray or None
        None if no row has a value; float64 with NaN if only some atoms have one.

    Raises
    ------
    DataError
        If only some atoms have a value and there are integers that float64 cannot hold.
    """
    if not mask.any():
        return None
    if mask.all() or values.dtype.kind == "f":
        return values
    out = values.astype(np.float64)
    if values.dtype.kind != "b" and (np.abs(out[mask]) > EXACT).any():
        raise DataError(
            f"{name}: some atoms of a sample have no value and others have integers beyond 2^53, which float64 cannot hold; "
            "leave the column out, or give all atoms of a sample a value"
        )
    out[~mask] = np.nan
    return out
