"""Distances between the atoms of many samples, over all periodic images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlffstore.data.ragged import reduce_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array


#: Images of a cell within the cutoff beyond which no pairs are looked for: heights of 0.2 angstrom for 3.2 angstrom.
MAX_IMAGES = 30_000
#: Smallest determinant of the Gram matrix of unit vectors along the cell, the square of its relative volume.
_FLATTEST = 1e-14


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
    Samples with positions or cells that are not finite, or without a volume where they are periodic, have no pairs here, and
    nor have those that are `too_flat`: other checks name them.
    """
    from mlffstore.data.kernels import find_pairs

    return Pairs(*find_pairs(*_columns(starts, positions, cell, pbc, cutoff), np.array([cutoff], np.float64)))


def neighbour_counts(starts: Ints, positions: Array, cell: Array, pbc: Array, cutoffs: Sequence[float]) -> Ints:
    """Return the neighbours of all atoms of each sample within each cutoff (angstrom), shape (S, len(cutoffs)).

    The pairs themselves, thirty an atom at 6 angstrom, are never kept.
    """
    from mlffstore.data.kernels import count_pairs

    counted: Ints = count_pairs(*_columns(starts, positions, cell, pbc, max(cutoffs)), np.array(cutoffs, np.float64))
    return 2 * counted


def too_flat(cell: Array, pbc: Array, cutoff: float) -> Array:
    """Return which cells have more than `MAX_IMAGES` images within a cutoff (angstrom), shape (S,), bool.

    A cell in metres taken for angstrom has 1e30 of them. So are cells whose periodic vectors lie in one plane or on a line;
    a periodic vector of no length is no case for this.
    """
    finite = np.asarray(np.isfinite(cell).all(axis=(1, 2)))
    vectors = np.where(pbc[:, :, None] & finite[:, None, None], cell.astype(np.float64), 0.0)
    largest = np.abs(vectors).max(axis=2)  # squares of tiny and of huge vectors are 0 and infinite
    unit = vectors / np.where(largest > 0, largest, 1.0)[:, :, None]
    norm = np.linalg.norm(unit, axis=2)
    unit /= np.where(norm > 0, norm, 1.0)[:, :, None]
    scale = np.where(pbc, largest * norm, 1.0)
    some = np.asarray((scale > 0).all(axis=1))
    # The inverse of the Gram matrix has the squares of 1/height on its diagonal.
    gram = np.einsum("sik,sjk->sij", unit, unit) + np.where(pbc, 0.0, 1.0)[:, :, None] * np.eye(3)
    scaled = np.where(some[:, None, None], gram, np.eye(3))
    scale = np.where(some[:, None], scale, 1.0)
    flat = np.linalg.det(scaled) <= _FLATTEST
    inverse = np.linalg.inv(np.where(flat[:, None, None], np.eye(3), scaled))
    reach = cutoff * np.sqrt(np.einsum("sii->si", inverse)) / scale
    with np.errstate(over="ignore"):
        images = np.prod(np.where(pbc, 2 * reach + 1, 1.0), axis=1)
    return np.asarray(some & (flat | (images > MAX_IMAGES)))


def _columns(starts: Ints, positions: Array, cell: Array, pbc: Array, cutoff: float) -> tuple[Array, ...]:
    """Return the columns as the kernels take them, with which samples have pairs."""
    sound = reduce_rows(np.logical_and, np.asarray(np.isfinite(positions).all(axis=1)), starts)
    sound = sound & np.asarray(np.isfinite(cell).all(axis=(1, 2)))
    # Relative to the lengths, as in `mlffstore.data.rules`: lattice vectors in one plane, or none where one is needed.
    vectors = np.where(pbc[:, :, None] & sound[:, None, None], cell, np.eye(3))
    length = np.linalg.norm(vectors, axis=2)
    periodic = np.where(pbc, length, 1.0).min(axis=1) > 0
    full = pbc.all(axis=1)
    volume = np.abs(np.linalg.det(vectors)) > 1e-6 * np.prod(length, axis=1)
    sound &= periodic & (volume | ~full) & ~too_flat(cell, pbc, cutoff)
    return starts, np.ascontiguousarray(positions), np.ascontiguousarray(cell, np.float64), pbc, sound


def invertible_cells(cell: Array, pbc: Array) -> Array:
    """Return the cells with unit vectors across the others where they are not periodic, shape (S, 3, 3), float64.

    Cells of which a periodic vector has no length, or that are not finite, keep a volume of zero or are not finite.
    """
    out = np.where(pbc[:, :, None], cell, np.eye(3)).astype(np.float64)
    partial = np.flatnonzero(pbc.any(axis=1) & ~pbc.all(axis=1))
    two = pbc[partial].sum(axis=1) == 2
    with np.errstate(invalid="ignore", divide="ignore"):
        for k in range(3):
            a, b = (k + 1) % 3, (k + 2) % 3
            index = partial[two & ~pbc[partial, k]]
            across = np.cross(out[index, a], out[index, b])
            out[index, k] = across / np.linalg.norm(across, axis=1)[:, None]
            index = partial[~two & pbc[partial, k]]
            axis = out[index, k]
            other = np.eye(3)[np.argmin(np.abs(axis), axis=1)]
            for m, across in ((a, np.cross(axis, other)), (b, np.cross(axis, np.cross(axis, other)))):
                out[index, m] = across / np.linalg.norm(across, axis=1)[:, None]
    return out


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
    close = pairs(batch.offsets, batch.positions, batch.cell, batch.pbc, cutoff)
    return reduce_pairs(close.distance, close.counts, np.inf)
