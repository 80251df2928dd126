"""Checks of Hessian-vector products: symmetric, the derivative of the forces and of the energy, turning as vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.hessian import HESSIAN_STEP, from_forces, hessian_product
from mlffstore.contracts.protocols import HessianTeacher
from mlffstore.data.batch import SampleBatch
from mlffstore.data.schema import STRUCTURE

if TYPE_CHECKING:
    from mlffstore.contracts.examination import Examination, Floats

#: Steps of the differences with which a product is compared, angstrom. Energies of networks can be rough within 0.005
#: angstrom, and rounding of forces in float32 is worse at smaller steps: the step at which both agree best counts.
STEPS = (2.5e-4, 5e-4, 1e-3, 2e-3, 5e-3)
_UNIT = "eV/angstrom^2"


def hessian(exam: Examination) -> None:
    """Check Hessian-vector products along two random directions."""
    if not exam.info.conservative:
        exam.skip("Hessian-vector products", "refused: the forces are a head of their own, not a gradient")
        return
    batch, starts = exam.batch, exam.batch.offsets[:-1]
    u, v = (exam.rng.normal(size=(batch.n_atoms_total, 3)) for _ in range(2))
    (along_u, error), (along_v, _) = (hessian_product(exam.teacher, batch, one) for one in (u, v))
    if not np.isfinite(along_u).all():
        exam.judge("Hessian-vector products are given", 1, 0, "problems", "NaN for a sample that the teacher labels")
        return
    exact = isinstance(exam.teacher, HessianTeacher)
    scale = float(np.sqrt(np.square(along_u.astype(float)).mean()))
    # Rounding in float32 of two derivatives; differences have the noise of the forces over the step, and their own error.
    limit = (1e-5 if exam.double_precision else 1e-3) * scale + 1e-4
    if error is not None:
        limit += 10 * exam.force_noise / HESSIAN_STEP + float(np.sqrt(np.square(error).mean()))
        exam.report("Hessian-vector product: estimated error", float(np.sqrt(np.square(error).mean())), _UNIT,
                    f"differences of forces at {HESSIAN_STEP:g} angstrom, five-point against three-point")  # fmt: skip
    work = [np.add.reduceat((a * b.astype(float)).sum(axis=1), starts) for a, b in ((v, along_u), (u, along_v))]
    roots = np.sqrt(3 * batch.n_atoms)
    exam.judge("Hessian is symmetric: v.Hu - u.Hv", (np.abs(work[0] - work[1]) / roots).max(), limit, _UNIT,
               "per root of the number of coordinates")  # fmt: skip
    same = np.tile([0.6, -0.5, 0.6], (batch.n_atoms_total, 1))
    moved = hessian_product(exam.teacher, batch, same)[0]
    exam.judge("Hessian times a translation is 0", np.sqrt(np.square(moved).mean()), limit, _UNIT)
    _rotated(exam, u, along_u, limit)
    if exact:
        _differences_of_forces(exam, u, along_u, limit)
    _differences_of_energies(exam, u, along_u, limit)


def _rotated(exam: Examination, u: Floats, product: Floats, limit: float) -> None:
    from scipy.spatial.transform import Rotation

    rotation = Rotation.random(rng=exam.rng).as_matrix()

    def turn(i: int) -> object:
        frame = exam.frame(i)
        frame.set_cell(frame.cell.array @ rotation)
        frame.positions = frame.positions @ rotation
        return frame

    again = hessian_product(exam.teacher, exam.changed(turn), u @ rotation)[0]
    gap = np.sqrt(np.square(again - product @ rotation).mean())
    if exam.info.equivariant:
        exam.judge("rotated: Hessian-vector product", gap, 3 * limit, _UNIT)
    else:
        exam.report("rotated: Hessian-vector product", gap, _UNIT, "not equivariant by construction: reported")


def _moved(batch: SampleBatch, displacement: Floats) -> SampleBatch:
    columns: dict[str, Any] = {name: batch.columns[name] for name in STRUCTURE}
    return SampleBatch(**{**columns, "positions": batch.positions + displacement})


def _differences_of_forces(exam: Examination, u: Floats, product: Floats, limit: float) -> None:
    """Compare with central differences of forces, at the step of `STEPS` at which they agree best, and at a wide one."""
    gaps = []
    for step in STEPS:
        after, before = (exam.label(_moved(exam.batch, k * step * u), "moved atoms").forces for k in (1, -1))
        difference = (after.astype(float) - before) / (2 * step)
        gaps.append(float(np.sqrt(np.square(product + difference).mean())))
    best = int(np.argmin(gaps))
    scale = float(np.sqrt(np.square(product.astype(float)).mean()))
    # Rounding of the forces over the step; what a rough energy changes within the step is at most a fiftieth.
    allowed = limit + exam.force_noise / STEPS[best] + 0.02 * scale
    exam.judge("Hessian-vector product against dF/dx", gaps[best], allowed, _UNIT, f"step {STEPS[best]:g} angstrom")
    wide = from_forces(exam.teacher, exam.batch, u)[0]
    exam.report("Hessian-vector product against dF/dx, wide", float(np.sqrt(np.square(product - wide).mean())), _UNIT,
                f"step {HESSIAN_STEP:g} angstrom: how rough the energy is")  # fmt: skip


def _differences_of_energies(exam: Examination, u: Floats, product: Floats, limit: float) -> None:
    """Compare u.Hu with the second derivative of the energy along u."""
    starts, roots = exam.batch.offsets[:-1], np.sqrt(3 * exam.batch.n_atoms)
    curvature = np.add.reduceat((u * product.astype(float)).sum(axis=1), starts)
    step = 0.01 if exam.double_precision else 0.03
    points = [exam.label(_moved(exam.batch, k * step * u), "moved atoms").energy for k in (-2, -1, 1, 2)]
    energies = [*points[:2], exam.labels.energy, *points[2:]]
    weights = (-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12)  # Abramowitz and Stegun, 25.3.24
    second = np.tensordot(np.array(weights), np.stack(energies), axes=1) / step**2
    gap = float((np.abs(second - curvature) / roots).max())
    noise = 5 * exam.noise / step**2
    if exam.double_precision:
        allowed = limit + noise + 0.002 * float((np.abs(curvature) / roots).max())
        exam.judge("u.Hu against d2E/dx2", gap, allowed, _UNIT, "five-point formula")
    else:
        exam.report("u.Hu against d2E/dx2", gap, _UNIT, f"float32 energies resolve {noise:.2g}: reported")
