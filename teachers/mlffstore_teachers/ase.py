"""Any ASE calculator as a teacher, one sample at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore_teachers.collect import collect, failure
from mlffstore_teachers.domain import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from mlffstore.contracts.protocols import TeacherInfo, TeacherLabels
    from mlffstore.data.batch import SampleBatch


class ASETeacher:
    """Labels with an ASE calculator.

    Parameters
    ----------
    info : TeacherInfo
        What the calculator is.
    make : callable
        It takes the `ase.Atoms` to label and returns a calculator. It is called for every sample, so that nothing of one
        sample (a density, a neighbour list) can leak into the next.
    charged : bool, optional
        Whether `make` respects ``atoms.info["charge"]`` and ``["multiplicity"]``.
    """

    def __init__(self, info: TeacherInfo, make: Callable[[Atoms], Calculator], *, charged: bool = False) -> None:
        self._info, self._make, self._charged = info, make, charged

    @property
    def info(self) -> TeacherInfo:
        """What the teacher is."""
        return self._info

    def label(self, batch: SampleBatch) -> TeacherLabels:
        """Label every sample; one that fails gets a reason and does not disturb the others."""
        reasons = refusals(self._info, batch, charged=self._charged)
        with_stress = "stress" in self._info.properties
        results: list[dict[str, Any] | None] = []
        for i, atoms in enumerate(batch.structures().to_ase()):
            if reasons[i]:
                results.append(None)
                continue
            try:
                atoms.calc = self._make(atoms)
                result = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
                if with_stress and atoms.pbc.all():
                    result["stress"] = atoms.get_stress(voigt=True)  # ASE: xx yy zz yz xz xy, tension positive
                results.append(result)
            except Exception as error:  # a calculator may raise anything; the reason is kept
                reasons[i] = failure(self._info.name, error)
                results.append(None)
        return collect(self._info.name, batch, results, reasons, stress=with_stress)
