"""Teachers as what samplers need: forces of many structures at once, and an ASE calculator for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from mlffstore.data.batch import SampleBatch
from mlffstore_generators.calls import Asking, ask
from mlffstore_generators.seeds.base import NoSeedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from mlffstore.contracts.protocols import Teacher, TeacherLabels


def label(teacher: Teacher, frames: Sequence[Atoms]) -> TeacherLabels:
    """Return the labels of structures as they are, in float64."""
    return ask(teacher, SampleBatch.from_ase(list(frames)))


class TeacherCalculator(Calculator):  # type: ignore[misc]  # ASE has no types
    """An ASE calculator that asks a teacher and follows one structure; if the teacher refuses it, the draw ends."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = Asking(teacher)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute energy, forces and, where there is one, the stress."""
        super().calculate(atoms, properties, system_changes)
        labels = self.teacher.label(SampleBatch.from_ase([self.atoms]), [0])
        if not labels.ok[0]:
            raise NoSeedError(f"teacher: {labels.reasons[0]}")
        self.results = {"energy": float(labels.energy[0]), "forces": labels.forces.astype(np.float64)}
        if labels.stress is not None and np.isfinite(labels.stress[0]).all():
            self.results["stress"] = labels.stress[0].astype(np.float64)


def relaxed(atoms: Atoms, teacher: Teacher, fmax: float, steps: int) -> Atoms:
    """Return the structure at a minimum of the teacher's energy; a cell that is periodic in all directions relaxes too.

    Raises
    ------
    NoSeedError
        If it is not there after so many steps.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    out = atoms.copy()
    out.calc = TeacherCalculator(teacher)
    target: Any = out
    if out.pbc.all() and "stress" in teacher.info.properties:
        target = FrechetCellFilter(out)
    with np.errstate(all="ignore"):
        done = BFGS(target, logfile=None, maxstep=0.1).run(fmax=fmax, steps=steps)
    if not done:
        raise NoSeedError("relaxation did not converge")
    out.calc = None
    return out
