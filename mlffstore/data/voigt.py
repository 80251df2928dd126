"""Symmetric 3x3 tensors as the six numbers xx yy zz yz xz xy: the order of Voigt and of ASE.

NumPy arrays of stresses are converted with `ase.stress.full_3x3_to_voigt_6_stress`, which takes the mean of both halves of
the matrix, and `ase.stress.voigt_6_to_full_3x3_stress`. This module has what ASE does not have: the tables, for tensors of
other libraries, the check that a matrix is symmetric, and infinitesimal strains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Row and column in the matrix of each of the six components.
COMPONENTS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
#: Index of each of the six components in the flattened matrix (9 numbers, row by row).
IN_MATRIX = [3 * row + column for row, column in COMPONENTS]
#: Index among the six components of each of the 9 elements of the flattened matrix.
IN_VOIGT = [COMPONENTS.index((min(i, j), max(i, j))) for i in range(3) for j in range(3)]
#: Largest difference of two components that should be equal, relative to the largest component.
ASYMMETRY = 0.01


def symmetric(matrices: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return the means of matrices and their transposes.

    Parameters
    ----------
    matrices : ndarray, shape (..., 3, 3)
        Stresses, virials or other symmetric tensors.
    name : str
        For the message.

    Returns
    -------
    ndarray, shape (..., 3, 3)

    Raises
    ------
    ValueError
        If they differ by more than `ASYMMETRY` of the largest component. Rounding and virials in single precision differ by
        less; the mean of a matrix that differs by more would be numbers that nothing computed.
    """
    transposed = matrices.swapaxes(-1, -2)
    gap = np.abs(matrices - transposed).max(axis=(-1, -2)) - ASYMMETRY * np.abs(matrices).max(axis=(-1, -2))
    if np.any(gap > 0):
        worst = matrices.reshape(-1, 3, 3)[int(np.nanargmax(gap))]
        raise ValueError(f"{name}: expected a symmetric matrix, got {worst.tolist()}")
    return np.asarray((matrices + transposed) / 2)


def strain_to_voigt(strain: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return strains as six components whose dot product with a stress is the work per volume.

    Parameters
    ----------
    strain : ndarray, shape (..., 3, 3)
        Infinitesimal strains, or displacement gradients, whose symmetric part counts.

    Returns
    -------
    ndarray, shape (..., 6)
        Components xx yy zz, and twice yz xz xy (engineering shear strains).

    Examples
    --------
    >>> strain_to_voigt(np.array([[0.1, 0.2, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    array([0.1, 0. , 0. , 0. , 0. , 0.2])
    """
    twice = strain + strain.swapaxes(-1, -2)
    return np.stack([twice[..., a, b] * (0.5 if a == b else 1) for a, b in COMPONENTS], axis=-1)
