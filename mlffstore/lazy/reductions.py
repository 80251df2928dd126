"""Reductions of the atoms of every sample, and the like, of plain arrays; `Mlff` applies them to blocks of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import offsets, reduce_rows
from mlffstore.errors import DataError
from mlffstore.lazy.inputs import TOGETHER

if TYPE_CHECKING:
    import numpy.typing as npt
    import xarray as xr

    from mlffstore.data.schema import Array

#: Atomic numbers 0 to 118.
N_ELEMENTS = 119
#: What chunks must be, and what to do.
UNPAIRED = "Chunks of atoms and samples must hold the same samples: open with chunks={}, or use .mlff.isel"
_UFUNCS = {"max": np.maximum, "min": np.minimum, "sum": np.add, "mean": np.add, "rms": np.add}
#: What `Mlff.reduce` can do; with ``norm_`` before it, to the Euclidean norm of the last dimension.
REDUCTIONS = (*_UFUNCS, *(f"norm_{how}" for how in _UFUNCS))


def check_total(counts: Array, total: int) -> None:
    """Raise `DataError` if there are not as many rows of atoms as the samples have atoms, in a block or in all."""
    expected = int(counts.sum(dtype=np.int64))
    if expected != total:
        raise DataError(f"expected {expected} rows of atoms by n_atoms, got {total}; {TOGETHER}. {UNPAIRED}")


def repeat_rows(counts: Array, values: Array, total: Array) -> Array:
    """Return the row of every sample for each of its atoms, shape (A, ...).

    Parameters
    ----------
    counts : ndarray, shape (S,)
        Number of atoms of each sample.
    values : ndarray, shape (S, ...)
    total : ndarray, shape (1,)
        Rows along ``atom``, A.
    """
    check_total(counts, int(total[0]))
    return np.repeat(values, counts, axis=0)


def bin_edges(array: xr.DataArray, bins: int | npt.ArrayLike) -> Array:
    """Return the edges of bins, shape (n + 1,); those of a number of bins from the smallest to the largest value.

    From 0 to 1 if there are no values but NaN.
    """
    if np.ndim(bins):
        edges = np.asarray(bins, float)
        if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) >= 0).all():
            raise DataError(f"hist: bins: expected a number, or at least two edges in ascending order, got {bins!r}")
        return edges
    number = int(np.asarray(bins))
    if number < 1:
        raise DataError(f"hist: bins: expected at least one, got {number}")
    low, high = (float(array.min()), float(array.max())) if array.size else (np.nan, np.nan)
    if np.isinf([low, high]).any():
        raise DataError(f"hist: expected finite values, got {low} to {high}; give the edges of the bins")
    if np.isnan(low):
        low, high = 0.0, 1.0
    return np.linspace(low, high if high > low else low + 1, number + 1)


def count_elements(counts: Array, numbers: Array) -> Array:
    """Return how many atoms of each element every sample has, shape (S, N_ELEMENTS), int32.

    Parameters
    ----------
    counts : ndarray, shape (S,)
        Number of atoms of each sample.
    numbers : ndarray, shape (A,)
        Atomic numbers.
    """
    check_total(counts, len(numbers))
    if not len(counts):
        return np.zeros((0, N_ELEMENTS), np.int32)
    key = np.repeat(np.arange(len(counts)), counts) * N_ELEMENTS + known_elements(numbers)
    return np.bincount(key, minlength=len(counts) * N_ELEMENTS).reshape(-1, N_ELEMENTS).astype(np.int32)


def known_elements(numbers: Array) -> Array:
    """Return atomic numbers with 0, the symbol X, for those that are no element; samples of the quarantine may have them."""
    return np.where(numbers < N_ELEMENTS, numbers, 0)


def reduce_atoms(values: Array, counts: Array, how: str, dtype: Any) -> Array:
    """Reduce the atoms of every sample, shape (S, ...).

    Parameters
    ----------
    values : ndarray, shape (A, ...)
        One row per atom.
    counts : ndarray, shape (S,)
        Number of atoms of each sample.
    how : str
        One of `REDUCTIONS`.
    dtype : dtype
        The dtype of the computation and of the result.
    """
    check_total(counts, len(values))
    starts = offsets(counts)
    kind = how.removeprefix("norm_")
    values = values.astype(dtype, copy=False)
    if how != kind:
        values = np.sqrt((values**2).sum(axis=-1))
    if not len(counts):
        return values[:0]
    if kind == "rms":
        values = values**2
    out = reduce_rows(_UFUNCS[kind], values, starts)
    if kind in ("mean", "rms"):
        out = out / counts.reshape(-1, *(1,) * (out.ndim - 1))
    return np.asarray(np.sqrt(out) if kind == "rms" else out, dtype)
