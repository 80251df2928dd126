"""Conversion of labels and structures into the store's units: eV, angstrom, and their quotients.

Factors come from `ase.units` (CODATA 2014, as ASE itself uses), so that a calculator and an import agree to the last digit.
"""

from __future__ import annotations

import functools
from typing import Any

from mlffstore.errors import UnitError

#: Column -> the physical dimension of its unit.
DIMENSIONS = {"energy": "energy", "forces": "force", "stress": "stress", "positions": "length", "cell": "length"}


@functools.cache
def _factors() -> dict[str, dict[str, float]]:
    from ase import units

    energy = {
        "eV": 1.0,
        "meV": 1e-3,
        "hartree": units.Hartree,
        "Ha": units.Hartree,
        "rydberg": units.Rydberg,
        "kcal/mol": units.kcal / units.mol,
        "kJ/mol": units.kJ / units.mol,
    }
    length = {"angstrom": 1.0, "Angstrom": 1.0, "A": 1.0, "bohr": units.Bohr, "nm": units.nm}
    force = {f"{e}/{x}": fe / fx for e, fe in energy.items() for x, fx in length.items()}
    stress = {f"{e}/{x}^3": fe / fx**3 for e, fe in energy.items() for x, fx in length.items()}
    stress |= {"GPa": units.GPa, "Pa": units.Pascal, "bar": units.bar, "kbar": 1e3 * units.bar, "kB": 1e3 * units.bar}
    return {"energy": energy, "length": length, "force": force, "stress": stress}


def spellings(column: str) -> list[str]:
    """Return the units that `factor` knows for a column, in alphabetical order."""
    return sorted(_factors()[DIMENSIONS[column]])


def factor(column: str, unit: str) -> float:
    """Return what to multiply values of `column` in `unit` with to get the store's unit.

    Raises
    ------
    UnitError
        If the unit is unknown or does not fit the column.

    Examples
    --------
    >>> factor("energy", "eV")
    1.0
    >>> round(factor("stress", "GPa") * 160.2176634, 6)
    1.0
    """
    if column not in DIMENSIONS:
        raise UnitError(f"unit of {column!r}: expected one of {', '.join(DIMENSIONS)}, got {column!r}")
    known = _factors()[DIMENSIONS[column]]
    if unit not in known:
        raise UnitError(
            f"unit of {column!r}: expected one of {', '.join(sorted(known))}, got {unit!r}; "
            "convert the values yourself or name one of these"
        )
    return known[unit]


def convert(column: str, values: Any, unit: str) -> Any:
    """Return `values` of `column`, given in `unit`, in the store's unit (the same object if nothing changes)."""
    scale = factor(column, unit)
    return values if scale == 1.0 else values * scale
