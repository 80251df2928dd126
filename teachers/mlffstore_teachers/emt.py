"""Effective medium theory: fast metals, for tests."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from mlffstore.contracts.protocols import TeacherInfo
from mlffstore_teachers.ase import ASETeacher

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

#: ASE's parameters also name H C N O, but only as placeholders ("experimental"): they are left out.
ELEMENTS = frozenset({13, 28, 29, 46, 47, 78, 79})


def emt() -> ASETeacher:
    """Effective medium theory of ASE (Al Ni Cu Pd Ag Pt Au): for tests, not for training.

    Jacobsen, Stoltze and Norskov, Surf. Sci. 366, 394 (1996).
    """
    info = TeacherInfo(
        name="emt",
        elements=ELEMENTS,
        domains=frozenset({"molecule", "periodic"}),
        properties=("energy", "forces", "stress"),
        precision="float64",
        conservative=True,
        licence="LGPL-2.1-or-later",
        fingerprint="EMT, ASE's parameters",
        software={"ase": version("ase")},
        on_request=("atomic_energies",),
    )
    return ASETeacher(info, _calculator)


def _calculator(atoms: Atoms) -> Calculator:
    from ase.calculators.emt import EMT

    return EMT()
