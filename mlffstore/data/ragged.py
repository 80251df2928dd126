"""Index arithmetic for contiguous ragged arrays: rows of samples in one flat axis of atoms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def offsets(counts: npt.ArrayLike) -> Ints:
    """Return the start of every row and, last, the total: shape (S+1,), int64.

    Examples
    --------
    >>> offsets([2, 3])
    array([0, 2, 5])
    """
    counts = np.asarray(counts)
    out = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=out[1:])
    return out


def row_indices(starts: npt.ArrayLike, counts: npt.ArrayLike) -> Ints:
    """Return the flat indices of the rows that start at `starts` and have `counts` entries, one after another.

    Examples
    --------
    >>> row_indices([5, 0], [2, 3])
    array([5, 6, 0, 1, 2])
    """
    starts, counts = np.asarray(starts, dtype=np.int64), np.asarray(counts, dtype=np.int64)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    indices: Ints = np.repeat(starts - ends + counts, counts)
    indices += np.arange(total, dtype=np.int64)
    return indices


def reduce_rows(ufunc: np.ufunc, values: npt.NDArray[Any], starts: Ints) -> npt.NDArray[Any]:
    """Reduce the atoms of every sample with `ufunc`.

    Parameters
    ----------
    ufunc : numpy.ufunc
        Such as ``np.add`` or ``np.maximum``.
    values : ndarray, shape (A, ...)
        One row an atom.
    starts : ndarray, shape (S+1,), int64
        As `offsets` returns them; no sample may be empty (``reduceat`` is wrong for empty spans, and
        a sample has at least one atom).
    """
    if np.any(np.diff(starts) < 1):
        raise ValueError("expected at least one atom in every sample; got an empty one")
    return np.asarray(ufunc.reduceat(values, starts[:-1], axis=0))
