"""Distances between the atoms of many samples, over all periodic images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlffstore.ragged import reduce_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.batch import SampleBatch
    from mlffstore.ragged import Ints
    from mlffstore.schema import Array


class Pairs(NamedTuple):
    """Pairs of atoms, or of an atom and an image, that are closer than a cutoff; each once.

    Attributes
    ----------
    first, second : ndarray, shape (P,), int64
        Rows of the atoms in the flat columns.
    distance : ndarray, shape (P,), float64
        Angstrom.
    counts : ndarray, shape (S,), int64
        Pairs of each sample; they follow one another in the order of the samples.
    """

    first: Ints
    second: Ints
    distance: Array
    counts: Ints


def pairs(starts: Ints, positions: Array, cell: Array, pbc: Array, cutoff: float) -> Pairs:
    """Return the pairs of every sample.

    Parameters
    ----------
    starts : ndarray, shape (S+1,), int64
        Rows of the first atoms.
    positions : ndarray, shape (A, 3)
        Angstrom.
    cell : ndarray, shape (S, 3, 3)
        Angstrom, rows are lattice vectors.
    pbc : ndarray, shape (S, 3), bool
    cutoff : float
        Angstrom.

    Notes
    -----
    Samples with positions or cells that are not finite, or without a volume where they are periodic, have no pairs here:
    other checks name them.
    """
    from mlffstore.kernels import find_pairs

    return Pairs(*find_pairs(*_columns(starts, positions, cell, pbc), np.array([cutoff], np.float64)))


def neighbour_counts(starts: Ints, positions: Array, cell: Array, pbc: Array, cutoffs: Sequence[float]) -> Ints:
    """Return the neighbours of all atoms of each sample within each cutoff (angstrom), shape (S, len(cutoffs)).

    The pairs themselves, thirty an atom at 6 angstrom, are never kept.
    """
    from mlffstore.kernels import count_pairs

    counted: Ints = count_pairs(*_columns(starts, positions, cell, pbc), np.array(cutoffs, np.float64))
    return 2 * counted


def _columns(starts: Ints, positions: Array, cell: Array, pbc: Array) -> tuple[Array, ...]:
    """Return the columns as the kernels take them, with which samples have pairs."""
    sound = reduce_rows(np.logical_and, np.asarray(np.isfinite(positions).all(axis=1)), starts)
    sound = sound & np.asarray(np.isfinite(cell).all(axis=(1, 2)))
    # Relative to the lengths, as in `mlffstore.rules`: lattice vectors in one plane, or none where one is needed.
    vectors = np.where(pbc[:, :, None], np.nan_to_num(cell), np.eye(3))
    length = np.linalg.norm(vectors, axis=2)
    periodic = np.where(pbc, length, 1.0).min(axis=1) > 0
    full = pbc.all(axis=1)
    volume = np.abs(np.linalg.det(vectors)) > 1e-6 * np.prod(length, axis=1)
    sound &= periodic & (volume | ~full)
    return starts, np.ascontiguousarray(positions), np.ascontiguousarray(cell, np.float64), pbc, sound


def reduce_pairs(values: Array, counts: Ints, empty: float, ufunc: np.ufunc = np.minimum) -> Array:
    """Reduce a quantity of pairs to samples; `empty` for samples without pairs."""
    out = np.full(len(counts), empty)
    some = counts > 0
    if some.any():
        begin = np.concatenate([[0], np.cumsum(counts)])[:-1]
        out[some] = ufunc.reduceat(values, begin[some])
    return out


def smallest_distances(batch: SampleBatch, cutoff: float) -> Array:
    """Return the smallest distance between two atoms, over all periodic images, of every sample.

    Parameters
    ----------
    batch : SampleBatch
    cutoff : float
        Angstrom. Larger distances are not looked for.

    Returns
    -------
    ndarray, shape (S,), float64
        Angstrom; infinity where no pair is closer than `cutoff`.
    """
    found = pairs(batch.offsets, batch.positions, batch.cell, batch.pbc, cutoff)
    return reduce_pairs(found.distance, found.counts, np.inf)
