"""Dipoles of neutral molecules against two estimates: from partial charges, and from the electronegativities of bound atoms.

They tell the unit of a dipole from the data alone: Debye are 4.80 times as many as e*angstrom, atomic units 1.89 times. The
dipole of a charged molecule depends on the origin, and that of a crystal on the choice of its cell: both are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.geometry import pairs

if TYPE_CHECKING:
    from mlffstore.data.schema import Array

#: Electronegativities by Pauling (CRC Handbook of Chemistry and Physics, 97th ed., 9-98), of elements that form molecules.
_PAULING = {
    1: 2.20, 3: 0.98, 4: 1.57, 5: 2.04, 6: 2.55, 7: 3.04, 8: 3.44, 9: 3.98, 11: 0.93, 12: 1.31, 13: 1.61, 14: 1.90,
    15: 2.19, 16: 2.58, 17: 3.16, 32: 2.01, 33: 2.18, 34: 2.55, 35: 2.96, 50: 1.96, 51: 2.05, 52: 2.10, 53: 2.66,
}  # fmt: skip
#: e for each unit of electronegativity across a bond: fitted to GFN2-xTB's dipoles of the 118 closed-shell molecules of the
#: G2 set (correlation 0.82; between 20 of them the slope is 0.5 to 1.6). Dipoles of charges have a slope of 1.15 there
#: (correlation 0.95; 0.96 to 1.75), since the atoms have dipoles too.
_PER_BOND = 0.26
#: Atoms closer than so many sums of their covalent radii are bound. Angstrom: pairs are looked for within the cutoff.
_BOND, _CUTOFF = 1.25, 3.2


def from_charges(starts: Array, positions: Array, charges: Array) -> Array:
    """Return the dipoles of partial charges, shape (S, 3), e*angstrom."""
    return np.asarray(np.add.reduceat(charges[:, None] * positions, starts[:-1]))


def from_electronegativity(starts: Array, positions: Array, numbers: Array, molecules: Array) -> Array:
    """Return estimates of the dipoles of molecules, shape (S, 3), e*angstrom; NaN where there is none.

    Parameters
    ----------
    starts : ndarray, shape (S+1,), int64
    positions : ndarray, shape (A, 3), float64
    numbers : ndarray, shape (A,)
    molecules : ndarray, shape (S,), bool
        Samples to estimate.
    """
    from ase.data import covalent_radii

    table = np.full(256, np.nan)
    table[list(_PAULING)] = list(_PAULING.values())
    n = len(starts) - 1
    found = pairs(starts, positions, np.zeros((n, 3, 3)), np.zeros((n, 3), bool), _CUTOFF)
    radius = np.pad(covalent_radii, (0, 256 - len(covalent_radii)), constant_values=np.nan)[numbers]
    with np.errstate(invalid="ignore"):
        bound = found.distance < _BOND * (radius[found.first] + radius[found.second])
    first, second = found.first[bound], found.second[bound]
    # Electrons move to the more electronegative atom; the dipole points to where they came from.
    moved = _PER_BOND * (table[numbers[first]] - table[numbers[second]])
    sample = np.searchsorted(starts, first, side="right") - 1
    out = np.zeros((n, 3))
    np.add.at(out, sample, moved[:, None] * (positions[second] - positions[first]))
    unknown = np.logical_or.reduceat(np.isnan(table[numbers]), starts[:-1])
    out[unknown | ~molecules] = np.nan
    return out
