"""The spread of a committee's forces in numbers that a rotation of the structure does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from mlffstore.data.schema import Array


def principal_deviations(forces: npt.ArrayLike) -> Array:
    """Return the standard deviations of the forces on each atom along the principal axes of their scatter.

    Parameters
    ----------
    forces : array_like, shape (K, A, 3)
        Forces of K members of a committee, eV/angstrom.

    Returns
    -------
    ndarray, shape (A, 3), float32
        The property `forces_std`, eV/angstrom, the largest first: the square roots of the eigenvalues of the covariance
        ``mean_k (F_k - mean F)(F_k - mean F)^T``. The root of the sum of their squares is the root mean square length of
        ``F_k - mean F``. Standard deviations along x, y and z would depend on how the structure lies. NaN where a force is
        not finite.

    Examples
    --------
    >>> principal_deviations([[[1, 0, 0]], [[-1, 0, 0]]])
    array([[1., 0., 0.]], dtype=float32)
    """
    members = np.asarray(forces, np.float64)
    scatter = np.moveaxis(members - members.mean(axis=0), 0, 1) / np.sqrt(len(members))
    out = np.full((len(scatter), 3), np.nan, np.float32)
    finite = np.isfinite(scatter).all(axis=(1, 2))
    # Singular values change by no more than the forces do; roots of eigenvalues would lose half the digits.
    values = np.linalg.svd(scatter[finite], compute_uv=False)
    out[finite] = 0
    out[finite, : values.shape[1]] = values
    return out


__all__ = ["principal_deviations"]
