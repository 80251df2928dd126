"""Stiffness of bonds, from single samples: the force on an atom with one bond, along the bond, against its length.

For an atom with one neighbour, such as hydrogen, the force along the bond is -k (r - r0). Bonds of one type, over all
samples, give k by regression, and k is a physical constant: 31 eV/angstrom^2 for C-H whatever the method. Forces in other
units have another k, even where energies and forces agree with one another (hartree and hartree/bohr). No second sample of
the same molecule is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.fingerprints import BOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.geometry import Pairs
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

#: eV/angstrom^2: force constants of bonds to hydrogen, by the partner; 5.0, 6.5 and 7.8 mdyn/angstrom for C, N and O
#: (Wilson, Decius and Cross, Molecular Vibrations, 1955), 2.8, 3.1 and 4.1 for Si, P and S (Herzberg, Infrared and Raman
#: Spectra, 1945).
TYPICAL = {6: 31.0, 7: 40.0, 8: 48.0, 14: 17.5, 15: 19.3, 16: 25.6}
#: eV/angstrom^2: force constants of other bonds to an end atom lie around this, by a factor of `FACTOR` (Ge-H 13, C-Cl 21,
#: C=O 75 to 100).
_OTHER = 40.0
FACTOR = 4.0
#: A bond counts up to this multiple of the sum of the covalent radii: one stretched farther, as by a scan, is softer.
_STRETCHED = 1.12
#: Bonds of a type below which it says nothing.
_FEWEST_OF_TYPE = 4
#: Columns of the sums: number, r, f, r^2, r f, f^2.
_N_SUMS = 6


@dataclass(frozen=True, slots=True)
class Bonds:
    """Sums over bonds of each type and teacher.

    Attributes
    ----------
    key : ndarray, shape (K,), int64
        ``(atomic number of the end atom * 256 + that of its partner) * 16 + bonds of the partner``.
    sums : ndarray, shape (K, T, 6), float64
        Number of bonds, and sums of r, f, r^2, r f, f^2: r the length over the sum of covalent radii (angstrom, less that
        sum), f the force on the end atom away from its partner (eV/angstrom).
    """

    key: Ints
    sums: Array

    @classmethod
    def merge(cls, parts: Sequence[Bonds]) -> Bonds:
        """Add up the sums of several blocks."""
        key, inverse = np.unique(np.concatenate([part.key for part in parts]), return_inverse=True)
        sums = np.zeros((len(key), *parts[0].sums.shape[1:]))
        np.add.at(sums, inverse.ravel(), np.concatenate([part.sums for part in parts]))
        return cls(key, sums)

    def stiffness(self, teacher: int) -> Stiffness:
        """Return the stiffness of the bonds as a teacher has it, relative to what is typical."""
        to_hydrogen = self.key // 4096 == 1
        partner = self.key // 16 % 256
        known = to_hydrogen & np.isin(partner, list(TYPICAL))
        for chosen in (known, ~known):  # bonds to hydrogen alone, if there are any: their constants are the surest
            result = _pooled(self.key[chosen], self.sums[chosen, teacher])
            if result.n:
                return replace(result, known=chosen is known)
        return Stiffness(0, float("nan"), float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Stiffness:
    """A stiffness of bonds.

    Attributes
    ----------
    n : int
        Number of bonds.
    constant : float
        Force constant, eV/angstrom^2.
    ratio, error : float
        It and its standard error over what is typical of these bonds.
    spread : float
        Standard deviation of the lengths of bonds of one type, angstrom.
    known : bool
        Whether the constants of these bonds are known, and not only within a factor of `FACTOR`.
    """

    n: int
    constant: float
    ratio: float
    error: float
    spread: float
    known: bool = False


def _pooled(key: Ints, sums: Array) -> Stiffness:
    enough = sums[:, 0] >= _FEWEST_OF_TYPE
    key, sums = key[enough], sums[enough]
    total = int(sums[:, 0].sum())
    if not total:
        return Stiffness(0, float("nan"), float("nan"), float("nan"), float("nan"))
    typical = np.array([TYPICAL.get(int(k) // 16 % 256, _OTHER) if k // 4096 == 1 else _OTHER for k in key])
    n, r, f, rr, rf, ff = sums.T
    crr, crf, cff = rr - r * r / n, rf - r * f / n, ff - f * f / n
    # One ratio to the typical constants for all types: f = -ratio * typical * (r - r0).
    xx, xy, yy = (typical**2 * crr).sum(), -(typical * crf).sum(), cff.sum()
    spread = float(np.sqrt(crr.sum() / total))
    if xx <= 0:
        return Stiffness(total, float("nan"), float("nan"), float("nan"), spread)
    ratio = xy / xx
    free = max(total - len(n) - 1, 1)
    error = float(np.sqrt(max(yy - ratio * xy, 0.0) / free / xx))
    return Stiffness(total, float(-crf.sum() / crr.sum()), float(ratio), error, spread)


def nothing(n_teachers: int) -> Bonds:
    """Return no bonds."""
    return Bonds(np.zeros(0, np.int64), np.zeros((0, n_teachers, _N_SUMS)))


def bonds(block: Block, neighbours: Pairs, contact: Array, radius: Array, molecule: Array) -> Bonds:
    """Return the sums over the bonds of end atoms of the molecules of a block.

    Parameters
    ----------
    block : Block
    neighbours : Pairs
    contact : ndarray, shape (P,)
        Distances over the sums of covalent radii.
    radius : ndarray, shape (A,)
        Covalent radii, angstrom.
    molecule : ndarray, shape (S,), bool
        Samples that are periodic nowhere.
    """
    n_teachers = block.energy.shape[1]
    if "forces" not in block:
        return nothing(n_teachers)
    numbers = block["numbers"].astype(np.int64)
    bonded = np.flatnonzero((contact < BOND) & np.repeat(molecule, neighbours.counts))
    first, second, length = neighbours.first[bonded], neighbours.second[bonded], neighbours.distance[bonded]
    count = np.bincount(first, minlength=len(numbers)) + np.bincount(second, minlength=len(numbers))
    end, partner = np.concatenate([first, second]), np.concatenate([second, first])
    length = np.concatenate([length, length])
    stretched = np.tile(contact[bonded] > _STRETCHED, 2)
    chosen = (count[end] == 1) & (count[partner] > 1) & ~stretched
    end, partner, length = end[chosen], partner[chosen], length[chosen]
    if not len(end):
        return nothing(n_teachers)
    unit = block["positions"][end].astype(np.float64) - block["positions"][partner]
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    r = length - radius[end] - radius[partner]
    full = (numbers[end] * 256 + numbers[partner]) * 16 + np.minimum(count[partner], 15)
    key, inverse = np.unique(full, return_inverse=True)
    sums = np.zeros((len(key), n_teachers, _N_SUMS))
    for t in range(n_teachers):
        f = np.einsum("ij,ij->i", block["forces"][end, t].astype(np.float64), unit)
        good = np.isfinite(f)
        for i, term in enumerate((np.ones_like(r), r, f, r * r, r * f, f * f)):
            sums[:, t, i] = np.bincount(inverse.ravel()[good], term[good], minlength=len(key))
    return Bonds(key, sums)
