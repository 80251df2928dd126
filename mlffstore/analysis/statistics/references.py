"""Energies of the elements by least squares, from blocks: triangular factors that merge instead of all rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.schema import Array

#: Atomic numbers 0 to 118.
N_ELEMENTS = 119
#: Singular values below this share of the largest count as zero.
_RCOND = 1e-10


@dataclass(frozen=True, slots=True)
class Rows:
    """The triangular factor of rows ``[composition, energy]``, which is all that least squares needs of them.

    Attributes
    ----------
    n : int
        Number of rows.
    columns : ndarray
        Atomic numbers of the columns.
    factor : ndarray, shape (k, len(columns) + 1)
        R of the QR decomposition, the energy last.
    total : ndarray, shape (len(columns) + 1,)
        Sum of the rows.

    Notes
    -----
    Merged by decomposing the factors on top of one another (TSQR; Demmel et al., SIAM J. Sci. Comput. 34, A206 (2012)). The
    condition number is that of the rows, where normal equations would square it.
    """

    n: int
    columns: Array
    factor: Array
    total: Array

    @classmethod
    def of(cls, composition: Array, energy: Array) -> Rows:
        """Return the factor of rows: composition (S, 119), energy (S,); rows without an energy are left out."""
        good = np.isfinite(energy)
        present = np.flatnonzero(composition[good].any(axis=0)) if good.any() else np.zeros(0, np.int64)
        rows = np.concatenate([composition[good][:, present], energy[good, None]], axis=1).astype(np.float64)
        return cls(int(good.sum()), present, np.asarray(np.linalg.qr(rows, mode="r")), rows.sum(axis=0))

    @classmethod
    def merge(cls, parts: Sequence[Rows]) -> Rows:
        """Return the factor of all rows together."""
        present = np.unique(np.concatenate([part.columns for part in parts]))

        def spread(part: Rows, array: Array) -> Array:
            out = np.zeros((*array.shape[:-1], len(present) + 1))
            out[..., np.searchsorted(present, part.columns)] = array[..., :-1]
            out[..., -1] = array[..., -1]
            return out

        stacked = np.concatenate([spread(part, part.factor) for part in parts])
        total = np.sum([spread(part, part.total) for part in parts], axis=0)
        return cls(sum(part.n for part in parts), present, np.asarray(np.linalg.qr(stacked, mode="r")), total)

    @property
    def mean_energy(self) -> float:
        """Energy of all rows over their atoms; 0 without rows."""
        atoms = float(self.total[:-1].sum())
        return float(self.total[-1]) / atoms if atoms else 0.0

    def solve(self, known: Array | None = None) -> tuple[Array, int, float]:
        """Return energies of the elements (of `columns`), the rank, and the condition number of that rank.

        Least squares. If the rows do not tell all elements apart (the rank is below the number of unknowns), ridge
        regression towards `mean_energy`, with the weight of one typical row for each element: what the rows leave open is
        then near the mean, where the smallest norm would put it near zero. Energies of held-out compositions were off by 2.3
        instead of 4.4 eV per atom.

        Parameters
        ----------
        known : ndarray, shape (119,), optional
            Energies that are known from isolated atoms, eV; NaN where they are not. They are taken as they are.
        """
        if not self.n or not len(self.columns):
            return np.zeros(len(self.columns)), 0, float("nan")
        solution = np.full(len(self.columns), np.nan) if known is None else known[self.columns].astype(np.float64)
        free = np.isnan(solution)
        matrix, right = self.factor[:, :-1], self.factor[:, -1] - self.factor[:, :-1][:, ~free] @ solution[~free]
        if not free.any():
            return solution, 0, float("nan")
        fitted, _, rank, singular = np.linalg.lstsq(matrix[:, free], right, rcond=_RCOND)
        if rank < free.sum():
            weight = np.sqrt((matrix[:, free] ** 2).sum() / self.n)
            rows = np.concatenate([matrix[:, free], weight * np.eye(int(free.sum()))])
            towards = np.full(int(free.sum()), weight * self.mean_energy)
            fitted = np.linalg.lstsq(rows, np.concatenate([right, towards]), rcond=None)[0]
        solution[free] = fitted
        return solution, int(rank), float(singular[0] / singular[rank - 1]) if rank else float("nan")

    def residual(self, solution: Array) -> tuple[float, float]:
        """Return mean and root mean square of ``energy - composition @ solution`` over the rows."""
        if not self.n:
            return float("nan"), float("nan")
        vector = np.append(-solution, 1.0)
        left = self.factor @ vector
        scale = max(float(np.abs(left).max(initial=0.0)), 1e-300)  # squares of huge energies are infinite
        return float(self.total @ vector / self.n), float(np.linalg.norm(left / scale) * scale / np.sqrt(self.n))
