"""Reductions of the atoms of every sample, of plain arrays; `Mlff` applies them to blocks of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import offsets, reduce_rows
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from mlffstore.data.schema import Array

#: Atomic numbers 0 to 118.
N_ELEMENTS = 119
_UFUNCS = {"max": np.maximum, "min": np.minimum, "sum": np.add, "mean": np.add, "rms": np.add}
#: What `Mlff.reduce` can do; with ``norm_`` before it, to the Euclidean norm of the last dimension.
REDUCTIONS = (*_UFUNCS, *(f"norm_{how}" for how in _UFUNCS))


def count_elements(counts: Array, numbers: Array) -> Array:
    """Return how many atoms of each element every sample has, shape (S, N_ELEMENTS), int32.

    Parameters
    ----------
    counts : ndarray, shape (S,)
        Number of atoms of each sample.
    numbers : ndarray, shape (A,)
        Atomic numbers.
    """
    if not len(counts):
        return np.zeros((0, N_ELEMENTS), np.int32)
    key = np.repeat(np.arange(len(counts)), counts) * N_ELEMENTS + numbers
    return np.bincount(key, minlength=len(counts) * N_ELEMENTS).reshape(-1, N_ELEMENTS).astype(np.int32)


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
    starts = offsets(counts)
    if starts[-1] != len(values):
        raise DataError(
            f"reduce: {starts[-1]} atoms by n_atoms, but {len(values)} rows; plain isel was used: use .mlff.isel"
        )
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
