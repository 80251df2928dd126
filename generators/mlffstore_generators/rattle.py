"""Random displacements and strains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms


def log_uniform(rng: np.random.Generator, limits: Sequence[float]) -> float:
    """Draw a number whose logarithm is uniform between two limits."""
    low, high = limits
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def rattled(atoms: Atoms, amplitude: float, rng: np.random.Generator) -> Atoms:
    """Return the atoms with a Gaussian of standard deviation `amplitude` (angstrom) added to every coordinate."""
    out: Atoms = atoms.copy()
    out.positions += rng.normal(0.0, amplitude, out.positions.shape)
    return out


def strained(atoms: Atoms, sigma: float, rng: np.random.Generator) -> Atoms:
    """Return the crystal under a random symmetric strain whose six components are Gaussian of deviation `sigma`.

    A symmetric strain is a deformation without rotation; atoms move with the cell.
    """
    strain = rng.normal(0.0, sigma, (3, 3))
    strain = np.triu(strain) + np.triu(strain, 1).T
    out: Atoms = atoms.copy()
    out.set_cell(out.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return out
