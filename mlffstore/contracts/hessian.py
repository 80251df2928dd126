"""Products of the Hessian of the energy with a direction: by the teacher itself, or by differences of its forces.

With E the energy and x the positions, the product with the direction u is H u = d/dt grad E(x + t u) at t = 0. It is minus
the derivative of the forces, so that it means something for conservative teachers only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.probes import number_of
from mlffstore.contracts.protocols import HessianTeacher
from mlffstore.data.stencil import STEP, derivative, displaced
from mlffstore.errors import TeacherError

if TYPE_CHECKING:
    import numpy.typing as npt

    from mlffstore.contracts.protocols import Teacher, TeacherInfo
    from mlffstore.data.batch import SampleBatch

    Floats = npt.NDArray[np.floating[Any]]

#: Step of the differences along a direction whose coordinates are about 1, angstrom: half of that for energies, since forces
#: have one derivative less to take, and less noise. Atoms move by 0.01 to 0.04 angstrom at the outer points.
HALF = 0.5
HESSIAN_STEP = HALF * STEP


def is_hessian(name: str) -> bool:
    """Return whether a property is a Hessian-vector product, its direction or its error."""
    return number_of(name) is not None


def require_conservative(info: TeacherInfo) -> None:
    """Raise `TeacherError` if the forces of a teacher are no gradient of an energy, so that there is no Hessian."""
    if not info.conservative:
        raise TeacherError(
            f"{info.name} has no Hessian: its forces are predicted by a head of their own and are not the gradient of its "
            "energy, so that their derivatives are not symmetric; choose a conservative teacher, or leave out the Hessian"
        )


def hessian_product(teacher: Teacher, batch: SampleBatch, probe: Floats) -> tuple[Floats, Floats | None]:
    """Return the product of the Hessian of each sample with its direction, and an estimate of its error.

    Parameters
    ----------
    teacher : Teacher
        A conservative one. It may differentiate its forces by itself, see `mlffstore.contracts.protocols.HessianTeacher`;
        otherwise they are differentiated by `from_forces`.
    batch : SampleBatch
    probe : ndarray, shape (A, 3)
        Direction, without unit.

    Returns
    -------
    product : ndarray, shape (A, 3), float32
        eV/angstrom^2; NaN for samples that the teacher does not label.
    error : ndarray, shape (A, 3), float64, or None
        As of `from_forces`; None if the teacher differentiates by itself, up to rounding.

    Raises
    ------
    TeacherError
        If the teacher is not conservative.
    """
    require_conservative(teacher.info)
    if isinstance(teacher, HessianTeacher):
        return np.asarray(teacher.hessian_product(batch, probe), np.float32), None
    return from_forces(teacher, batch, probe)


def from_forces(teacher: Teacher, batch: SampleBatch, probe: Floats) -> tuple[Floats, Floats]:
    """Return the product of the Hessian with a direction by differences of forces, and an estimate of its error.

    Parameters
    ----------
    teacher : Teacher
        A conservative one; it labels four times as many structures.
    batch : SampleBatch
    probe : ndarray, shape (A, 3)
        Direction, without unit.

    Returns
    -------
    product : ndarray, shape (A, 3), float32
        eV/angstrom^2, by the five-point formula with `HESSIAN_STEP`; NaN where the teacher does not label a displaced
        structure.
    error : ndarray, shape (A, 3), float64
        Difference between this and the three-point formula of the same step, eV/angstrom^2: how much the fourth-order term
        mends, together with the noise of the forces. It is an upper bound where the differences converge.
    """
    require_conservative(teacher.info)
    points = displaced(batch.astype("float64").structures(), HALF * np.asarray(probe, np.float64))
    forces = np.stack([_forces(teacher, moved) for moved in points])
    product = -derivative(forces, HESSIAN_STEP)
    three_point = -(forces[2] - forces[1]) / (2 * HESSIAN_STEP)
    return product.astype(np.float32), np.abs(product - three_point)


def _forces(teacher: Teacher, batch: SampleBatch) -> Floats:
    """Return the forces of a teacher, NaN for samples that it refuses, shape (A, 3), float64."""
    labels = teacher.label(batch)
    forces = np.array(labels.forces, np.float64)
    forces[np.repeat(~labels.ok, batch.n_atoms)] = np.nan
    return forces
