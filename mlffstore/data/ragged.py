"""Index arithmetic for contiguous ragged arrays: rows of samples in one flat axis of atoms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
#: Atoms of one chunk of samples, about: 12 MB of positions and forces.
TARGET_ATOMS = 1 << 19


def offsets(counts: npt.ArrayLike) -> Ints:
    """Return the start of each row and, last, the total: shape (S+1,), int64.

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


def cut(counts: npt.ArrayLike) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cut a range of samples into chunks of whole samples with about `TARGET_ATOMS` atoms each.

    Parameters
    ----------
    counts : array_like, shape (S,)
        Number of atoms of each sample.

    Returns
    -------
    samples, atoms : tuple of int
        Samples and atoms of each chunk, in order. A chunk has more than `TARGET_ATOMS` atoms only if it is a single sample.

    Examples
    --------
    >>> cut([3, 4])
    ((2,), (7,))
    """
    starts = offsets(counts)
    edges = [0]
    while edges[-1] < len(starts) - 1:
        edges.append(max(int(np.searchsorted(starts, starts[edges[-1]] + TARGET_ATOMS, "right")) - 1, edges[-1] + 1))
    return tuple(np.diff(edges).tolist()), tuple(np.diff(starts[edges]).tolist())


def reduce_rows(ufunc: np.ufunc, values: npt.NDArray[Any], starts: Ints) -> npt.NDArray[Any]:
    """Reduce the rows of the atoms of each sample with `ufunc`.

    Parameters
    ----------
    ufunc : numpy.ufunc
        Such as ``np.add`` or ``np.maximum``.
    values : ndarray, shape (A, ...)
        One row per atom.
    starts : ndarray, shape (S+1,), int64
        As `offsets` returns them; no sample may be empty (``reduceat`` is wrong for empty spans, and
        a sample has at least one atom).
    """
    if np.any(np.diff(starts) < 1):
        raise ValueError("expected at least one atom in every sample; got an empty one")
    return np.asarray(ufunc.reduceat(values, starts[:-1], axis=0))


def normalise_indices(index: npt.NDArray[Any], n: int) -> Ints:
    """Return indices of samples with negative ones counted from the end.

    Parameters
    ----------
    index : ndarray, shape (k,)
        Integers from -n to n - 1.
    n : int
        Number of samples.

    Returns
    -------
    ndarray, shape (k,), int64

    Raises
    ------
    IndexError
        If an index is not an integer or outside the samples.
    """
    if index.ndim != 1:
        raise IndexError(f"indices: expected one dimension, got shape {index.shape}")
    if len(index) and index.dtype.kind not in "iu":
        raise IndexError(f"indices: expected integers, got {index.dtype}")
    low, high = (index.min().item(), index.max().item()) if len(index) else (0, -1)
    if low < -n or high >= n:
        raise IndexError(f"index {high if high >= n else low} is outside the {n} samples")
    index = index.astype(np.int64)
    return np.where(index < 0, index + n, index)


def as_indices(indices: npt.ArrayLike, n: int) -> Ints:
    """Return the indices of samples that a caller names by indices or by a boolean mask.

    Parameters
    ----------
    indices : array_like, shape (k,) or (n,), int or bool
        Integers from -n to n - 1 in any order, or a boolean mask. A single integer is one sample.
    n : int
        Number of samples.

    Returns
    -------
    ndarray, shape (k,), int64
        In the same order, negative ones counted from the end.

    Raises
    ------
    IndexError
        If an index is not an integer or outside the samples, or the mask has another length.
    """
    index = np.asarray(indices)
    if index.dtype == bool:
        if index.shape != (n,):
            raise IndexError(f"boolean mask: expected shape ({n},), got {index.shape}")
        index = np.flatnonzero(index)
    return normalise_indices(np.atleast_1d(index) if index.size else index.reshape(-1), n)
