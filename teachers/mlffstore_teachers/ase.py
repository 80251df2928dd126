"""Any ASE calculator as a teacher, one sample at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.data.ase import IN_RESULTS
from mlffstore.data.schema import LABELS
from mlffstore_teachers.collect import collect, failure
from mlffstore_teachers.domain import refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        return self.label_with(batch, ())

    def label_with(self, batch: SampleBatch, extra: Sequence[str]) -> TeacherLabels:
        """Label every sample, with the properties `extra` of those that are given on request."""
        names = (*other_properties(self._info), *extra)
        return self._label_each(batch, lambda _, atoms: self._result(atoms, self._make(atoms), names), names)

    def refusals(self, batch: SampleBatch) -> list[str]:
        """Return why each sample lies outside the domain, an empty string where it does not."""
        return refusals(self._info, batch, charged=self._charged)

    def _label_each(
        self, batch: SampleBatch, compute: Callable[[int, Atoms], dict[str, Any]], names: Sequence[str]
    ) -> TeacherLabels:
        """Label every sample with the results of `compute`, which takes its index and its atoms.

        `names` are the properties beside energy, forces and stress.
        """
        reasons = self.refusals(batch)
        results: list[dict[str, Any] | None] = []
        for i, atoms in enumerate(batch.structures().to_ase()):
            if reasons[i]:
                results.append(None)
                continue
            try:
                results.append(compute(i, atoms))
            except Exception as error:  # a calculator may raise anything; the reason is kept
                reasons[i] = failure(self._info.name, error)
                results.append(None)
        return collect(
            self._info.name,
            batch,
            results,
            reasons,
            stress="stress" in self._info.properties,
            more=names,
            widths=self._info.widths,
        )

    def _result(self, atoms: Atoms, calculator: Calculator, names: Sequence[str]) -> dict[str, Any]:
        """Return energy, forces, stress and the properties `names` of one sample, as far as it has them."""
        atoms.calc = calculator
        result = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        if "stress" in self._info.properties and atoms.pbc.all():
            result["stress"] = atoms.get_stress(voigt=True)  # ASE: xx yy zz yz xz xy, tension positive
        for name in names:
            value = calculator.results.get(IN_RESULTS.get(name, name))
            # The dipole of a cell depends on where the cell is cut.
            if value is not None and not (name == "dipole" and atoms.pbc.any()):
                result[name] = value
        return result


def other_properties(info: TeacherInfo) -> list[str]:
    """Return the properties of a teacher beside energy, forces and stress."""
    return [name for name in info.properties if name not in LABELS]
