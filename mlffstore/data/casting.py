"""Casting of what a user gives for a column to the dtype of the column, with every change of a value noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
        masked values, or values that are not numbers. The returned array is then a placeholder.

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
        array = np.asarray(values)
        if array.dtype == dtype:
            return np.ascontiguousarray(array) if array.ndim else array
        target = np.dtype(dtype)
        if array.dtype.kind not in "biuf":
            raise TypeError
    except (TypeError, ValueError):
        problems.append(f"{name}: expected numbers of dtype {dtype}, got {type(values).__name__} of something else")
        return np.zeros(np.shape(values) if not isinstance(values, list) else (len(values),), dtype)
    if target.kind in "iu" and array.size:
        limits = np.iinfo(target)
        if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
            problems.append(f"{name}: expected integers, got fractions")
        elif not (limits.min <= array.min() and array.max() <= limits.max):
            problems.append(f"{name}: expected values within {dtype}, got {array.min()} to {array.max()}")
    with np.errstate(invalid="ignore", over="ignore"):
        return np.ascontiguousarray(array.astype(target)) if array.ndim else array.astype(target)
