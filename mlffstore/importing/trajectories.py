"""`Trajectories`: recognises consecutive samples that barely move, which are no independent structures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import reduce_rows, row_indices

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.importing.wording import Wording

#: Neighbours in a file are near if no atom moved further, angstrom, and the cell no more than by this share. Frames of a
#: trajectory that are 10 to 100 fs apart move by 0.05 to 0.5 angstrom, and so do copies of one structure that were rattled.
NEAR, NEAR_CELL = 0.5, 0.05
#: So many near neighbours, and so large a share of all neighbours, make a trajectory.
LEAST_PAIRS, LEAST_SHARE = 10, 0.5


class Trajectories:
    """Counts near neighbours among the samples of one file, in their order.

    Parameters
    ----------
    splits : callable
        It returns the splits of roots.
    """

    def __init__(self, splits: Callable[[Any], Any]) -> None:
        self._splits = splits
        self._last: SampleBatch | None = None
        self._n_pairs = self._n_near = self._n_torn = 0

    def add(self, batch: SampleBatch) -> None:
        """Count the neighbours of the next samples."""
        if self._last is not None:
            self._count(*(self._last, batch[:1]))
        if len(batch) > 1:
            self._count(batch, batch, 1)
        self._last = batch[len(batch) - 1 :].structures()

    def _count(self, first: SampleBatch, second: SampleBatch, shift: int = 0) -> None:
        """Count the pairs of sample i of one batch and sample i + shift of another."""
        n = len(second) - shift
        left, right = np.arange(n), np.arange(n) + shift
        self._n_pairs += n
        cells = np.abs(first.cell[left] - second.cell[right]).max(axis=(1, 2))
        size = np.maximum(np.abs(first.cell[left]).max(axis=(1, 2)), 1.0)
        alike = (
            (first.n_atoms[left] == second.n_atoms[right])
            & (first.pbc[left] == second.pbc[right]).all(axis=1)
            & (cells <= NEAR_CELL * size)
        )
        left, right = left[alike], right[alike]
        if not len(left):
            return
        counts = first.n_atoms[left]
        a, b = row_indices(first.offsets[left], counts), row_indices(second.offsets[right], counts)
        starts = np.concatenate([[0], np.cumsum(counts)])
        same = reduce_rows(np.logical_and, first.numbers[a] == second.numbers[b], starts)
        moved = first.positions[a].astype(np.float64) - second.positions[b]
        moved = _through_boundaries(moved, first.cell[left], first.pbc[left], counts)
        near = same & (reduce_rows(np.maximum, np.linalg.norm(moved, axis=1), starts) <= NEAR)
        self._n_near += int(near.sum())
        ours, theirs = first.root[left[near]], second.root[right[near]]
        self._n_torn += int((self._splits(ours) != self._splits(theirs)).sum())

    def remarks(self, path: Path, wording: Wording) -> list[str]:
        """Return a warning if the file looks like a trajectory, or nothing."""
        if self._n_near < max(LEAST_PAIRS, LEAST_SHARE * self._n_pairs) or not self._n_torn:
            return []
        return [
            f"{path}: looks like a trajectory, or like copies of one structure: {self._n_near} of {self._n_pairs} "
            f"neighbours have the same composition and no atom moves by more than {NEAR} angstrom. As independent samples "
            f"{self._n_torn / self._n_near:.0%} of these neighbours straddle splits, so that the test set is no test; "
            f"{wording.option('root', 'file')} keeps the file together, {wording.option('root', 'info:KEY')} what has one "
            "value of a key"
        ]


def _through_boundaries(moved: Any, cells: Any, pbc: Any, counts: Any) -> Any:
    """Return displacements through the nearest periodic boundary, shape (A, 3)."""
    periodic = pbc.all(axis=1) & (np.abs(np.linalg.det(cells)) > 1e-6)
    if not periodic.any():
        return moved
    basis = np.where(periodic[:, None, None], cells, np.eye(3))
    per_atom = np.repeat(np.arange(len(counts)), counts)
    scaled = np.einsum("ai,aij->aj", moved, np.linalg.inv(basis)[per_atom])
    scaled -= np.where(periodic[per_atom, None], np.round(scaled), 0.0)
    return np.einsum("ai,aij->aj", scaled, basis[per_atom])
