"""Casting of what a user gives for a column to the dtype of the column, with every change of a value noted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from mlffstore.data.schema import Array


def float_dtype(values: npt.ArrayLike) -> str:
    """Return "float32" for an array of float32, "float64" for anything else."""
    return "float32" if getattr(values, "dtype", None) == np.float32 else "float64"


def cast(name: str, values: npt.ArrayLike, dtype: str, problems: list[str]) -> Array:
    """Return values as a contiguous array of a dtype.

    Parameters
    ----------
    name : str
        The column, for messages.
    values : array_like
        Booleans, integers or floats.
    dtype : str
        NumPy name of the dtype.
    problems : list of str
        A message is added here if the cast would change values: fractions or numbers out of range for an integer dtype,
        anything but 0 and 1 for bool, masked values, or values that are not numbers. The returned array is then a
        placeholder.

    Returns
    -------
    ndarray
        C-contiguous, the same object if nothing had to change.
    """
    if np.ma.is_masked(values):
        problems.append(
            f"{name}: expected a value everywhere, got a masked array with masked values; fill or drop them"
        )
    try:
        array, target = np.asarray(values), np.dtype(dtype)
        if array.dtype == target:
            return np.ascontiguousarray(array) if array.ndim else array
        if target.kind == "u" and array.dtype.kind == "f" and not hasattr(values, "dtype"):
            array = _integers(values, array)
        if array.dtype.kind not in "biuf":
            raise TypeError
    except (TypeError, ValueError):
        problems.append(f"{name}: expected numbers of dtype {dtype}, got {type(values).__name__} of something else")
        return np.zeros(np.shape(values) if not isinstance(values, list) else (len(values),), dtype)
    if target.kind in "iu" and array.size:
        limits, low, high = np.iinfo(target), array.min().item(), array.max().item()
        if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
            problems.append(f"{name}: expected integers, got fractions")
        elif not (limits.min <= low and high <= limits.max):
            problems.append(f"{name}: expected values within {dtype}, got {low} to {high}")
    elif target.kind == "b" and not np.isin(array, (0, 1)).all():
        bad = array[~np.isin(array, (0, 1))][0]
        problems.append(f"{name}: expected True and False, or 1 and 0, got {bad}; compare the values yourself")
    with np.errstate(invalid="ignore", over="ignore"):
        return np.ascontiguousarray(array.astype(target)) if array.ndim else array.astype(target)


def exactly(name: str, values: npt.ArrayLike, dtype: str, where: str) -> Array:
    """Return values as `cast` does.

    Raises
    ------
    DataError
        If a value would change; the message begins with `where`.
    """
    problems: list[str] = []
    array = cast(name, values, dtype, problems)
    if problems:
        raise DataError(f"{where}: {problems[0]}")
    return array


def _integers(values: npt.ArrayLike, array: Array) -> Array:
    """Return Python integers as uint64, where NumPy makes rounded floats of large and small ones beside each other."""
    try:
        exact = np.asarray(values, object)
        whole = all(isinstance(one, (int, np.integer)) and one >= 0 for one in exact.flat)
        return exact.astype(np.uint64) if whole else array
    except (OverflowError, ValueError):
        return array


def integer(name: str, value: Any, expected: str = "", *, least: int | None = None) -> int:
    """Return an argument as a Python integer.

    Parameters
    ----------
    name : str
        The argument, for messages.
    value : object
        An integer of Python or NumPy.
    expected : str, optional
        What to give instead, for messages; an integer, and the smallest one, by default.
    least : int, optional
        The smallest that is allowed.

    Raises
    ------
    DataError
        If it is something else; a fraction, a string or a bool is never taken for an integer.

    Examples
    --------
    >>> integer("version", np.int64(3))
    3
    """
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or (least is not None and value < least):
        expected = expected or ("an integer" if least is None else f"an integer, at least {least}")
        raise DataError(f"{name}: expected {expected}, got {value!r}")
    return int(value)
