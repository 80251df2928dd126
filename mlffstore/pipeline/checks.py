"""Inline checks: cheap physics that every labelled sample must pass before it is stored as good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.geometry import smallest_distances
from mlffstore.data.ragged import reduce_rows

if TYPE_CHECKING:
    from mlffstore.contracts.protocols import TeacherLabels
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.pipeline.recipe import Checks


def verdicts(batch: SampleBatch, labels: TeacherLabels, checks: Checks) -> list[str]:
    """Return why each sample is rejected, an empty string where it is good.

    Parameters
    ----------
    batch : SampleBatch
        Structures as they will be stored.
    labels : TeacherLabels
        What the teacher said of them.
    checks : Checks
        The limits.
    """
    from ase.data import atomic_numbers

    reasons = [reason if not ok else "" for ok, reason in zip(labels.ok, labels.reasons, strict=True)]

    def reject(bad: Array, texts: list[str]) -> None:
        for i in np.flatnonzero(bad):
            reasons[i] = reasons[i] or texts[i]

    with np.errstate(invalid="ignore"):
        force = np.sqrt(reduce_rows(np.maximum, (labels.forces.astype(np.float64) ** 2).sum(axis=1), batch.offsets))
    finite = np.isfinite(labels.energy) & np.isfinite(force)
    reject(~finite, ["label is not finite"] * len(batch))
    close = smallest_distances(batch, max(checks.d_min, 1e-3))
    reject(close < checks.d_min, [f"d_min below {checks.d_min} angstrom"] * len(batch))
    reject(force > checks.force_max, [f"|F| above {checks.force_max} eV/angstrom"] * len(batch))
    if checks.stress_max is not None and labels.stress is not None:
        stress = np.abs(labels.stress).max(axis=1)  # NaN, which is not above, where there is none
        reject(stress > checks.stress_max, [f"|stress| above {checks.stress_max} eV/angstrom^3"] * len(batch))
    low, high = checks.n_atoms
    reject((batch.n_atoms < low) | (batch.n_atoms > high), [f"n_atoms outside {low} to {high}"] * len(batch))
    if checks.elements is not None:
        allowed = np.isin(batch.numbers, [atomic_numbers[symbol] for symbol in checks.elements])
        reject(reduce_rows(np.logical_or, ~allowed, batch.offsets), ["element that is not allowed"] * len(batch))
    return reasons
