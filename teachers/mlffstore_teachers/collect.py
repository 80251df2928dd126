"""Putting the labels of single samples together: what failed stays NaN, with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherLabels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.batch import SampleBatch


def failure(name: str, error: BaseException) -> str:
    """Return a reason of one line for an exception of a teacher."""
    text = str(error).strip().splitlines()
    return f"{name} failed: {type(error).__name__}" + (f": {text[0][:200]}" if text else "")


def collect(
    name: str,
    batch: SampleBatch,
    results: Sequence[dict[str, Any] | None],
    reasons: Sequence[str],
    *,
    stress: bool,
) -> TeacherLabels:
    """Return the labels of a batch.

    Parameters
    ----------
    name : str
        Name of the teacher.
    batch : SampleBatch
    results : sequence of dict or None
        "energy" (eV), "forces" (N, 3) (eV/angstrom) and, if `stress`, "stress" (6,) (eV/angstrom^3, tension positive)
        of every sample; None where there are none.
    reasons : sequence of str
        The reason why a sample has no labels.
    stress : bool
        Whether the teacher has a stress.
    """
    n = len(batch)
    energy = np.full(n, np.nan)
    forces = np.full((batch.n_atoms_total, 3), np.nan, np.float32)
    stresses = np.full((n, 6), np.nan, np.float32) if stress else None
    ok = np.zeros(n, bool)
    out = list(reasons)
    for i, result in enumerate(results):
        if result is None:
            continue
        wanted = [result["energy"], result["forces"], *([result["stress"]] if stress and "stress" in result else [])]
        if not all(np.isfinite(value).all() for value in wanted):
            out[i] = f"{name} gave a label that is not finite"
            continue
        energy[i] = result["energy"]
        forces[batch.offsets[i] : batch.offsets[i + 1]] = result["forces"]
        if stresses is not None and "stress" in result:
            stresses[i] = result["stress"]
        ok[i], out[i] = True, ""
    return TeacherLabels(energy, forces, stresses, ok, tuple(out))
