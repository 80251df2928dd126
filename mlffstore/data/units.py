"""Conversion of labels and structures into the store's units: eV, angstrom, and their quotients.

Factors come from `ase.units` (CODATA 2014, as ASE itself uses), so that a calculator and an import agree to the last digit.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from mlffstore.data.properties import find_property, known_properties, property_of
from mlffstore.data.unit_expressions import ratio
from mlffstore.errors import UnitError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.data.properties import Property

#: Units that properties beside energy, forces and stress often have elsewhere.
_USUAL = (
    "eV", "meV", "hartree", "rydberg", "kcal/mol", "kJ/mol", "e", "Debye", "e*bohr", "e*angstrom", "Bohr magneton",
    "eV/angstrom^2", "hartree/bohr^2", "kcal/mol/angstrom^2", "eV/angstrom", "hartree/bohr", "kcal/mol/angstrom",
)  # fmt: skip
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
    """Return the units that `factor` knows for a column, in alphabetical order; of other properties the usual ones."""
    if column in DIMENSIONS:
        return sorted(_factors()[DIMENSIONS[column]])
    unit = property_of(column).unit
    return sorted({unit, *(other for other in _USUAL if _converts(other, unit))})


def factor(column: str, unit: str, properties: Mapping[str, Property] | None = None) -> float:
    """Return what to multiply values of `column` in `unit` with to get the store's unit.

    Parameters
    ----------
    column : str
        "positions", "cell" or a property.
    unit : str
        Of a property beside energy, forces and stress: symbols with ``*``, ``/`` and ``^``, such as ``hartree/bohr^2``.
    properties : mapping of str to Property, optional
        Properties that need not be registered in this process.

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
    >>> round(factor("dipole", "Debye"), 6)
    0.208194
    """
    if column not in DIMENSIONS:
        spec = find_property(column, properties)
        if spec is None:
            known_columns = (*DIMENSIONS, *(name for name in known_properties() if name not in DIMENSIONS))
            raise UnitError(f"unit of {column!r}: expected one of {', '.join(known_columns)}, got {column!r}")
        try:
            return ratio(unit, spec.unit)
        except UnitError as error:
            raise UnitError(f"unit of {column!r}: {error}") from None
    known = _factors()[DIMENSIONS[column]]
    if unit not in known:
        raise UnitError(
            f"unit of {column!r}: expected one of {', '.join(sorted(known))}, got {unit!r}; "
            "convert the values yourself or name one of these"
        )
    return known[unit]


def is_known(column: str, unit: str) -> bool:
    """Return whether `factor` knows a unit of a column."""
    try:
        factor(column, unit)
    except UnitError:
        return False
    return True


def convert(column: str, values: Any, unit: str, properties: Mapping[str, Property] | None = None) -> Any:
    """Return `values` of `column`, given in `unit`, in the store's unit (the same object if nothing changes).

    Parameters
    ----------
    column, unit, properties
        As for `factor`.
    values : ndarray or number
    """
    scale = factor(column, unit, properties)
    return values if scale == 1.0 else values * scale


def _converts(unit: str, target: str) -> bool:
    try:
        ratio(unit, target)
    except UnitError:
        return False
    return True
