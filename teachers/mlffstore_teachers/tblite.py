"""GFN2-xTB and GFN1-xTB through tblite: the default teacher of molecules."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

from mlffstore.contracts.protocols import TeacherInfo
from mlffstore.errors import TeacherError, missing_dependency
from mlffstore_teachers.ase import ASETeacher

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

Method = Literal["GFN2-xTB", "GFN1-xTB"]


def gfn2_xtb(*, accuracy: float = 1.0, max_iterations: int = 250, electronic_temperature: float = 300.0) -> ASETeacher:
    """GFN2-xTB, a semi-empirical tight-binding method, for molecules of H to Rn.

    Parameters
    ----------
    accuracy : float, optional
        Scales the convergence thresholds of tblite; smaller is tighter.
    max_iterations : int, optional
        Largest number of iterations of the self-consistent charges.
    electronic_temperature : float, optional
        Kelvin.

    Notes
    -----
    Bannwarth, Ehlert and Grimme, J. Chem. Theory Comput. 15, 1652 (2019). tblite's periodic mode samples the Gamma point
    only, so that crystals of a few atoms would be wrong without any sign of it: periodic samples are refused. Set
    OMP_NUM_THREADS=1 when several processes label; the pipeline does.
    """
    return _teacher("gfn2-xtb", "GFN2-xTB", accuracy, max_iterations, electronic_temperature)


def gfn1_xtb(*, accuracy: float = 1.0, max_iterations: int = 250, electronic_temperature: float = 300.0) -> ASETeacher:
    """GFN1-xTB, the predecessor of GFN2-xTB, for molecules of H to Rn: a second opinion.

    Parameters
    ----------
    accuracy, max_iterations, electronic_temperature
        As of `gfn2_xtb`.

    Notes
    -----
    Grimme, Bannwarth and Shushkov, J. Chem. Theory Comput. 13, 1989 (2017). Molecules only, as GFN2-xTB.
    """
    return _teacher("gfn1-xtb", "GFN1-xTB", accuracy, max_iterations, electronic_temperature)


def _teacher(
    name: str, method: Method, accuracy: float, max_iterations: int, electronic_temperature: float
) -> ASETeacher:
    if accuracy <= 0 or max_iterations < 1 or electronic_temperature <= 0:
        raise TeacherError(
            f"{name}: expected positive accuracy, max_iterations and electronic_temperature, got {accuracy}, "
            f"{max_iterations}, {electronic_temperature}"
        )
    try:
        software = {"tblite": version("tblite"), "ase": version("ase")}
    except PackageNotFoundError as error:
        raise missing_dependency("tblite", "xtb", f"the teacher {name!r}") from error
    info = TeacherInfo(
        name=name,
        elements=frozenset(range(1, 87)),
        domains=frozenset({"molecule"}),
        properties=("energy", "forces"),
        precision="float64",
        conservative=True,
        licence="LGPL-3.0-or-later",
        # Thresholds decide how well the answer is converged, the temperature decides the answer.
        fingerprint=f"{method}, electronic temperature {electronic_temperature:g} K",
        software=software,
    )
    make = functools.partial(
        _calculator,
        method=method,
        accuracy=accuracy,
        max_iterations=max_iterations,
        electronic_temperature=electronic_temperature,
    )
    return ASETeacher(info, make, charged=True)


def _calculator(atoms: Atoms, **options: object) -> Calculator:
    from tblite.ase import TBLite

    return TBLite(
        charge=atoms.info["charge"], multiplicity=atoms.info["multiplicity"], verbosity=0, cache_api=False, **options
    )
