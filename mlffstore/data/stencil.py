"""First derivatives of energies by a five-point stencil, along displacements of the atoms and along strains of the cell.

It makes the structures and combines their energies; labelling the structures in between is left to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.batch import SampleBatch
from mlffstore.data.schema import STRUCTURE, Array

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Step along a direction, angstrom, if each coordinate moves by about 1 in the direction. The error of the stencil is of
#: fourth order in the step, so that the step can be large enough for the noise of float32 energies.
STEP = 0.01
#: Step along a strain.
STRAIN = 0.005
#: Positions, in steps, and weights of the stencil (Abramowitz and Stegun, 25.3.6).
POINTS = (-2, -1, 1, 2)
WEIGHTS = (1 / 12, -8 / 12, 8 / 12, -1 / 12)


def displaced(batch: SampleBatch, direction: Array, step: float = STEP) -> list[SampleBatch]:
    """Return the structures of a batch at the points of the stencil along a direction, `step` apart.

    Parameters
    ----------
    batch : SampleBatch
    direction : ndarray, shape (A, 3)
        Displacement of each atom per step of 1, angstrom.
    step : float, optional
        By default `STEP`.

    Returns
    -------
    list of SampleBatch
        One batch for each of `POINTS`, without labels.
    """
    return [_with(batch, batch.positions + k * step * direction, batch.cell) for k in POINTS]


def strained(batch: SampleBatch, strain: Array) -> list[SampleBatch]:
    """Return the structures of a batch at the points of the stencil along a strain, `STRAIN` apart.

    Parameters
    ----------
    batch : SampleBatch
    strain : ndarray, shape (S, 3, 3) or (3, 3)
        Symmetric strain of each sample, or of all, per strain of 1. Positions and lattice vectors, as rows, are multiplied
        by ``1 + k * STRAIN * strain`` from the right.

    Returns
    -------
    list of SampleBatch
        One batch for each of `POINTS`, without labels.
    """
    each = np.broadcast_to(strain, (len(batch), 3, 3))
    owner = np.repeat(np.arange(len(batch)), batch.n_atoms)
    out = []
    for k in POINTS:
        change = np.eye(3) + k * STRAIN * each
        out.append(_with(batch, np.einsum("ij,ijk->ik", batch.positions, change[owner]), batch.cell @ change))
    return out


def derivative(energies: Sequence[Array] | Array, step: float) -> Array:
    """Return the first derivative of energies.

    Parameters
    ----------
    energies : sequence of ndarray, shape (S,), or ndarray, shape (4, S)
        Energies at each of `POINTS`, eV.
    step : float
        `STEP` or `STRAIN`.

    Returns
    -------
    ndarray, shape (S,)
        eV per step of 1.

    Examples
    --------
    >>> derivative([np.array([x**4]) for x in (0.8, 0.9, 1.1, 1.2)], 0.1).round(9)  # of x^4 at 1
    array([4.])
    """
    return np.asarray(np.tensordot(np.array(WEIGHTS), np.asarray(energies), axes=1)) / step


def _with(batch: SampleBatch, positions: Array, cell: Array) -> SampleBatch:
    structure: dict[str, Any] = {name: batch.columns[name] for name in STRUCTURE}
    return SampleBatch(**{**structure, "positions": positions, "cell": cell})
