"""Checks of the forces and the stress of a teacher against derivatives of its energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.stencil import STEP, STRAIN, derivative, displaced, strained
from mlffstore.data.voigt import COMPONENTS

if TYPE_CHECKING:
    from mlffstore.contracts.examination import Examination


def gradient(exam: Examination) -> None:
    """Compare forces along random directions with minus the derivative of the energy.

    What the stencil leaves out falls with the fourth power of its step, and forces that are no gradient stay wrong: a gap
    that is too large is looked at again with half the step, and was the stencil's if it is less than half of what it was.
    """
    batch = exam.batch
    directions = exam.rng.normal(size=(batch.n_atoms_total, 3))
    along = np.add.reduceat((exam.labels.forces.astype(float) * directions).sum(axis=1), batch.offsets[:-1])

    def gap_of(step: float) -> tuple[float, float]:
        """Return the gap and the largest that passes."""
        energies = [exam.label(moved, "moved atoms").energy for moved in displaced(batch, directions, step)]
        gap = np.abs(along + derivative(energies, step)) / np.sqrt(3 * batch.n_atoms)
        return float(gap.max()), 10 * exam.noise / step + (0.005 if exam.double_precision else 0.05)

    gap, limit = gap_of(STEP)
    if exam.info.conservative:
        note = "five-point stencil"
        if gap > limit:
            finer, finer_limit = gap_of(STEP / 2)
            if finer < gap / 2:
                note += f", step {STEP / 2:g} angstrom, since {STEP:g} left {gap:.2g}"
                gap, limit = finer, finer_limit
        exam.judge("forces against -dE/dx", gap, limit, "eV/angstrom", note)
    else:
        exam.report("forces against -dE/dx", gap, "eV/angstrom", "forces are a head of their own: reported")


def stress(exam: Examination) -> None:
    """Compare each component of the stress with the derivative of the energy by that strain, per volume."""
    only = exam.periodic
    if "stress" not in exam.info.properties or not only.any():
        exam.skip("stress against dE/dstrain", "has no stress")
        return
    assert exam.labels.stress is not None
    crystals = exam.batch.take(only)
    volumes = np.abs(np.linalg.det(crystals.cell))
    largest = 0.0
    for component, (a, b) in enumerate(COMPONENTS):
        strain = np.zeros((3, 3))
        strain[a, b] += (
            0.5  # a shear strain is half in each half of the matrix, so that its derivative is one component
        )
        strain[b, a] += 0.5
        energies = [exam.label(deformed, "strained crystals").energy for deformed in strained(crystals, strain)]
        gap = np.abs(exam.labels.stress[only, component] - derivative(energies, STRAIN) / volumes).max()
        largest = max(largest, float(gap))
    if exam.info.conservative:
        note = "tension positive, five-point stencil"
        exam.judge("stress against dE/dstrain", largest, 3 * stress_limit(exam), "eV/angstrom^3", note)
    else:
        exam.report("stress against dE/dstrain", largest, "eV/angstrom^3", "a head of its own: reported")


def stress_limit(exam: Examination) -> float:
    """Return the largest deviation of a stress that the noise of the energy explains, eV/angstrom^3."""
    volumes = np.abs(np.linalg.det(exam.batch.cell[exam.periodic]))
    return float(10 * exam.noise / STRAIN / volumes.min() + 1e-4)
