"""`Cells`: atomic environments sorted into cells of a given size, one block of environments after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array

#: New cells that are compared one by one before they join the tree.
_RECENT = 4096


class Cells:
    """Cells of environments. The first environment that is in no cell yet is the middle of a new one.

    All environments of a cell are within `radius` of its middle, and so within twice that of each other.

    Parameters
    ----------
    radius : float
        In the unit of the descriptors, 1/angstrom; 0 for cells of equal environments.
    """

    def __init__(self, radius: float) -> None:
        self.radius = radius
        self._middles: list[Array] = []
        self._n_in_tree = 0
        self._tree: cKDTree | None = None

    def __len__(self) -> int:
        return self._n_in_tree + sum(len(part) for part in self._middles)

    def sort(self, descriptors: Array) -> Ints:
        """Return the cell of each environment, shape (N,), int64.

        Parameters
        ----------
        descriptors : ndarray, shape (N, D), float64
        """
        cells = np.full(len(descriptors), -1, np.int64)
        if self._tree is not None:
            # The bound of the tree is exclusive.
            distance, nearest = self._tree.query(descriptors, distance_upper_bound=np.nextafter(self.radius, np.inf))
            found = np.isfinite(distance)
            cells[found] = nearest[found]
        rest = np.flatnonzero(cells < 0)
        if len(rest):
            recent = np.concatenate([np.zeros((0, descriptors.shape[1])), *self._middles])
            own, middles = _assign(np.ascontiguousarray(descriptors[rest]), recent, self.radius**2)
            cells[rest] = own + self._n_in_tree
            self._middles = [recent, descriptors[rest[middles]]]
            if len(recent) + len(middles) > max(_RECENT, self._n_in_tree // 4):
                self._grow()
        return cells

    def _grow(self) -> None:
        """Put all middles into the tree. It grows by a quarter at least, so that the sum of all work stays N log N."""
        everything = [self._tree.data] if self._tree is not None else []
        self._tree = cKDTree(np.concatenate([*everything, *self._middles]))
        self._n_in_tree, self._middles = self._tree.n, []


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _assign(points: Array, known: Array, square: float) -> tuple[Ints, Ints]:
    """Return the cell of each point, and which points are the middles of new cells."""
    n, width = points.shape
    cells = np.empty(n, np.int64)
    middles = np.empty(n, np.int64)
    n_new = 0
    for i in range(n):
        cells[i] = -1
        for k in range(len(known) + n_new):
            distance = 0.0
            for d in range(width):
                other = known[k, d] if k < len(known) else points[middles[k - len(known)], d]
                distance += (points[i, d] - other) ** 2
                if distance > square:
                    break
            if distance <= square:
                cells[i] = k
                break
        if cells[i] < 0:
            cells[i] = len(known) + n_new
            middles[n_new] = i
            n_new += 1
    return cells, middles[:n_new]
