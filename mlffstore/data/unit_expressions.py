"""Units written as products and powers of symbols, such as ``e*angstrom^2/V``: their size and their dimension.

Sizes are in ASE's system (eV, angstrom, e, amu), from `ase.units`.
"""

from __future__ import annotations

import functools
import re

from mlffstore.errors import UnitError

#: Exponents of energy, length, charge, time and magnetic moment.
Dimension = tuple[int, int, int, int, int]
_NONE: Dimension = (0, 0, 0, 0, 0)
_ENERGY, _LENGTH, _CHARGE = (1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0)
_TIME, _MOMENT, _MASS, _PRESSURE = (0, 0, 0, 1, 0), (0, 0, 0, 0, 1), (1, -2, 0, 2, 0), (1, -3, 0, 0, 0)
#: Names with a blank -> the symbol.
_WITH_BLANKS = {"Bohr magneton": "muB", "bohr magneton": "muB", "elementary charge": "e"}
_TERM = re.compile(r"([*/]?)\s*([A-Za-z_Åμ]+|1)\s*(?:(?:\^|\*\*)\s*(-?\d+))?\s*")


@functools.cache
def symbols() -> dict[str, tuple[float, Dimension]]:
    """Return the symbols that a unit can be built of: their size, and their dimension."""
    from ase import units

    return {
        "1": (1.0, _NONE), "mol": (units.mol, _NONE),
        "eV": (1.0, _ENERGY), "meV": (1e-3, _ENERGY), "hartree": (units.Hartree, _ENERGY), "Ha": (units.Hartree, _ENERGY),
        "rydberg": (units.Rydberg, _ENERGY), "Ry": (units.Rydberg, _ENERGY), "kcal": (units.kcal, _ENERGY),
        "kJ": (units.kJ, _ENERGY), "J": (units.J, _ENERGY),
        "angstrom": (1.0, _LENGTH), "Angstrom": (1.0, _LENGTH), "A": (1.0, _LENGTH), "Å": (1.0, _LENGTH),
        "bohr": (units.Bohr, _LENGTH), "Bohr": (units.Bohr, _LENGTH), "nm": (units.nm, _LENGTH), "pm": (0.01, _LENGTH),
        "e": (1.0, _CHARGE), "C": (units.C, _CHARGE), "V": (1.0, (1, 0, -1, 0, 0)),
        "Debye": (units.Debye, (0, 1, 1, 0, 0)), "debye": (units.Debye, (0, 1, 1, 0, 0)),
        "D": (units.Debye, (0, 1, 1, 0, 0)),
        "fs": (units.fs, _TIME), "ps": (1e3 * units.fs, _TIME), "s": (units.second, _TIME),
        "amu": (1.0, _MASS), "u": (1.0, _MASS), "Da": (1.0, _MASS),
        "GPa": (units.GPa, _PRESSURE), "MPa": (1e-3 * units.GPa, _PRESSURE), "Pa": (units.Pascal, _PRESSURE),
        "bar": (units.bar, _PRESSURE), "kbar": (1e3 * units.bar, _PRESSURE),
        "muB": (1.0, _MOMENT), "mu_B": (1.0, _MOMENT), "μB": (1.0, _MOMENT),
    }  # fmt: skip


def parse(text: str) -> tuple[float, Dimension]:
    """Return size and dimension of a unit.

    Raises
    ------
    UnitError
        If it is not a product of known symbols and their powers.

    Examples
    --------
    >>> parse("e*angstrom^2/V")
    (1.0, (-1, 2, 2, 0, 0))
    >>> round(parse("Debye")[0], 4), round(parse("kcal/mol/bohr")[0], 4)
    (0.2082, 0.0819)
    """
    rest = text.strip()
    for name, symbol in _WITH_BLANKS.items():
        rest = rest.replace(name, symbol)
    size, dimension = 1.0, list(_NONE)
    first = True
    while rest:
        match = _TERM.match(rest)
        if match is None or match[2] not in symbols() or bool(match[1]) == first:
            raise UnitError(
                f"unit {text!r}: expected symbols with *, / and ^ between them, such as 'e*angstrom' or 'eV/angstrom^2', "
                f"got {rest!r}; known are {', '.join(symbols())}"
            )
        power = int(match[3] or 1) * (-1 if match[1] == "/" else 1)
        factor, exponents = symbols()[match[2]]
        size *= factor**power
        dimension = [a + power * b for a, b in zip(dimension, exponents, strict=True)]
        rest, first = rest[match.end() :], False
    if first:
        raise UnitError("unit: expected a unit, '1' for a number without one, got an empty text")
    a, b, c, d, e = dimension
    return size, (a, b, c, d, e)


def ratio(unit: str, target: str) -> float:
    """Return what to multiply numbers in `unit` with to get numbers in `target`.

    Raises
    ------
    UnitError
        If one of them is unknown, or they are of different dimensions. Equal texts need not be known.

    Examples
    --------
    >>> ratio("e*bohr", "e*angstrom") == ratio("bohr", "angstrom")
    True
    """
    if unit == target:
        return 1.0
    size, dimension = parse(unit)
    reference, expected = parse(target)
    if dimension != expected:
        raise UnitError(f"expected a unit that {target!r} can be converted to, got {unit!r}, which is another quantity")
    return size / reference
