"""GFN2-xTB and GFN1-xTB through tblite: the default teacher of molecules and of molecular liquids."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlffstore.contracts.protocols import TeacherInfo
from mlffstore.data import electrons
from mlffstore.errors import TeacherError, missing_dependency
from mlffstore_teachers.ase import ASETeacher, other_properties
from mlffstore_teachers.checks import check_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from mlffstore.contracts.protocols import TeacherLabels
    from mlffstore.data.batch import SampleBatch

Method = Literal["GFN2-xTB", "GFN1-xTB"]
#: Smallest gap of the orbitals at the Gamma point, eV: with less, the bands between the k-points matter. Boxes of molecules
#: have 0.4 (nitro compounds and dyes) to 10 (water), aluminium of 108 atoms has 0.15.
_GAP = 0.3


def _valence_electrons() -> np.ndarray:
    """Return the valence electrons of each element in GFN-xTB by atomic number, shape (256,); d10 and f shells are core."""
    out = np.zeros(256, np.int64)
    # After which noble gas, or filled shell, the valence begins.
    for first, last, core in (
        (1, 2, 0), (3, 10, 2), (11, 18, 10), (19, 29, 18), (30, 36, 28), (37, 47, 36), (48, 54, 46), (55, 56, 54),
        (72, 79, 68), (80, 86, 78),
    ):  # fmt: skip
        out[first : last + 1] = np.arange(first, last + 1) - core
    out[57:72] = 3
    return out


#: Valence electrons of the elements.
_VALENCE = _valence_electrons()
#: Partial charges add up to the charge of the sample within this, e.
_CHARGE_ERROR = 1e-3


class XTBTeacher(ASETeacher):
    """GFN2-xTB or GFN1-xTB; see `gfn2_xtb`.

    Parameters
    ----------
    info : TeacherInfo
    options : mapping
        Of tblite's ASE calculator, beside charge and multiplicity.
    gamma_box : float or None
        Smallest distance of opposite faces of a periodic cell, angstrom; None refuses periodic samples.
    """

    def __init__(self, info: TeacherInfo, options: dict[str, Any], gamma_box: float | None) -> None:
        super().__init__(info, functools.partial(_calculator, cache_api=False, **options), charged=True)
        self._options, self._gamma_box = options, gamma_box

    def following(self) -> _Follower:
        """Return a follower: it starts the self-consistent charges of a structure from those of the call before.

        Measured in dynamics of molecules: 1.7 to 2.1 times as fast, energies within 3e-7 eV and forces within 1e-3
        eV/angstrom of `label`.
        """
        return _Follower(self)

    def keeping(self, atoms: Atoms) -> Calculator:
        """Return a calculator that keeps the charges of one structure from call to call."""
        return _calculator(atoms, cache_api=True, **self._options)

    def label_following(self, batch: SampleBatch, keys: Sequence[int], kept: dict[int, Calculator]) -> TeacherLabels:
        """Label structures with the calculators that are kept for their keys; those that fail start anew."""
        names = other_properties(self._info)

        def compute(i: int, atoms: Atoms) -> dict[str, Any]:
            key = keys[i]
            if key in kept:
                try:
                    return self._result(atoms, kept[key], names)
                except Exception:  # the old charges lead nowhere: they are a guess and no more
                    del kept[key]
            calculator = self.keeping(atoms)
            result = self._result(atoms, calculator, names)
            kept[key] = calculator
            return result

        return self._label_each(batch, compute, names)

    def refusals(self, batch: SampleBatch) -> list[str]:
        """Return why each sample lies outside the domain, an empty string where it does not."""
        reasons = super().refusals(batch)
        protons = np.add.reduceat(batch.numbers.astype(np.int64), batch.offsets[:-1])
        valence = np.add.reduceat(_VALENCE[batch.numbers], batch.offsets[:-1])
        for k, (charge, multiplicity) in enumerate(
            zip(batch.charge.tolist(), batch.multiplicity.tolist(), strict=True)
        ):
            # tblite gives numbers for what cannot be, and may end the process over it.
            if charge > valence[k]:
                wrong = f"a charge of {charge:+d} takes more than the {valence[k]} valence electrons"
            else:
                wrong = electrons.forbidden(int(protons[k]), charge, multiplicity)
            reasons[k] = reasons[k] or (f"{self._info.name}: {wrong}" if wrong else "")
        if self._gamma_box is None:
            return reasons
        for i in np.flatnonzero(batch.pbc.all(axis=1)):
            faces = 1 / np.linalg.norm(np.linalg.inv(batch.cell[i]), axis=0)
            if faces.min() < self._gamma_box:
                reasons[i] = reasons[i] or (
                    f"{self._info.name} knows the Gamma point only: expected faces of the cell {self._gamma_box:g} "
                    f"angstrom apart, got {faces.min():.2f}"
                )
            elif batch.charge[i]:
                reasons[i] = reasons[i] or f"{self._info.name} labels no periodic sample with a charge"
        return reasons

    def _result(self, atoms: Atoms, calculator: Calculator, names: Sequence[str]) -> dict[str, Any]:
        result = super()._result(atoms, calculator, names)
        charge = float(np.sum(calculator.results["charges"]))
        if abs(charge - atoms.info["charge"]) > _CHARGE_ERROR:
            raise TeacherError(
                f"its orbitals cannot hold the charge {atoms.info['charge']:+d}: partial charges add up to {charge:.2f}"
            )
        if atoms.pbc.any():
            gap = _gap(calculator)
            if gap < _GAP:
                raise TeacherError(
                    f"expected a gap of {_GAP:g} eV at least, since the Gamma point is the only one, got {gap:.2f}"
                )
        return result


class _Follower:
    """Calculators that are kept, one for each structure."""

    def __init__(self, teacher: XTBTeacher) -> None:
        self._teacher = teacher
        self._kept: dict[int, Calculator] = {}

    def label(self, batch: SampleBatch, keys: Sequence[int]) -> TeacherLabels:
        """Return labels; `keys` says which structure each sample is."""
        return self._teacher.label_following(batch, keys, self._kept)


def gfn2_xtb(
    *,
    accuracy: float = 1.0,
    max_iterations: int = 250,
    electronic_temperature: float = 300.0,
    gamma_box: float | None = None,
) -> XTBTeacher:
    """GFN2-xTB, a semi-empirical tight-binding method, for molecules of H to Rn.

    Parameters
    ----------
    accuracy : float, optional
        Scales the convergence thresholds of tblite; smaller is tighter.
    max_iterations : int, optional
        Largest number of iterations of the self-consistent charges.
    electronic_temperature : float, optional
        Kelvin.
    gamma_box : float, optional
        If given, periodic samples are labelled too whose cell has opposite faces at least this far apart, angstrom, and
        whose orbitals have a gap of 0.3 eV: boxes of molecules of 9 angstrom and more, whose bands are flat. None refuses
        all periodic samples.

    Notes
    -----
    Beside energy and forces it gives partial charges, and of molecules the dipole moment: of charged ones with respect to
    the origin of the coordinates. They cost nothing. On request it gives atomic energies, tblite's partition of the energy.
    Hessian-vector products are differences of forces.

    Bannwarth, Ehlert and Grimme, J. Chem. Theory Comput. 15, 1652 (2019). tblite's periodic mode samples the Gamma point
    only, so that crystals of a few atoms would be wrong without any sign of it. Set OMP_NUM_THREADS=1 when several
    processes label; the pipeline does.
    """
    return _teacher("gfn2-xtb", "GFN2-xTB", accuracy, max_iterations, electronic_temperature, gamma_box)


def gfn1_xtb(
    *,
    accuracy: float = 1.0,
    max_iterations: int = 250,
    electronic_temperature: float = 300.0,
    gamma_box: float | None = None,
) -> XTBTeacher:
    """GFN1-xTB, the predecessor of GFN2-xTB, for molecules of H to Rn: a second opinion.

    Parameters
    ----------
    accuracy, max_iterations, electronic_temperature, gamma_box
        As of `gfn2_xtb`.

    Notes
    -----
    Grimme, Bannwarth and Shushkov, J. Chem. Theory Comput. 13, 1989 (2017).
    """
    return _teacher("gfn1-xtb", "GFN1-xTB", accuracy, max_iterations, electronic_temperature, gamma_box)


def _teacher(
    name: str,
    method: Method,
    accuracy: float,
    max_iterations: int,
    electronic_temperature: float,
    gamma_box: float | None,
) -> XTBTeacher:
    check_whole(name, "max_iterations", max_iterations)
    if not (np.isfinite([accuracy, electronic_temperature]).all() and min(accuracy, electronic_temperature) > 0):
        raise TeacherError(
            f"{name}: expected a positive accuracy and electronic_temperature, got {accuracy} and {electronic_temperature}"
        )
    if gamma_box is not None and not gamma_box >= 6:
        raise TeacherError(f"{name}: expected gamma_box of at least 6 angstrom, got {gamma_box!r}")
    try:
        software = {"tblite": version("tblite"), "ase": version("ase")}
    except PackageNotFoundError as error:
        raise missing_dependency("tblite", "xtb", f"the teacher {name!r}") from error
    info = TeacherInfo(
        name=name,
        elements=frozenset(range(1, 87)),
        domains=frozenset({"molecule"} if gamma_box is None else {"molecule", "periodic"}),
        properties=("energy", "forces", *(() if gamma_box is None else ("stress",)), "charges", "dipole"),
        precision="float64",
        conservative=True,
        licence="LGPL-3.0-or-later",
        # Thresholds decide how well the answer is converged, the temperature decides the answer.
        fingerprint=f"{method}, electronic temperature {electronic_temperature:g} K",
        software=software,
        on_request=("atomic_energies",),
    )
    options = {
        "method": method,
        "accuracy": accuracy,
        "max_iterations": max_iterations,
        "electronic_temperature": electronic_temperature,
    }
    return XTBTeacher(info, options, gamma_box)


def _calculator(atoms: Atoms, **options: object) -> Calculator:
    from tblite.ase import TBLite

    return TBLite(charge=atoms.info["charge"], multiplicity=atoms.info["multiplicity"], verbosity=0, **options)


def _gap(calculator: Calculator) -> float:
    """Return the gap between occupied and empty orbitals at the Gamma point, eV."""
    from ase.units import Hartree

    result: Any = calculator._res
    energies, occupations = result.get("orbital-energies"), result.get("orbital-occupations")
    filled = occupations > 0.5 * occupations.max()
    return float((energies[~filled].min(initial=np.inf) - energies[filled].max()) * Hartree)
