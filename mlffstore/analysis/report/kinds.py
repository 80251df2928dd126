"""Formulas and kinds of structures, told by their elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlffstore.data.schema import Array

#: Kinds of structures, told by their elements.
KINDS = ("organic", "metal-organic", "oxide", "halide", "chalcogenide", "element", "alloy", "other")
#: Atomic numbers of the metals.
METALS = frozenset({3, 4, *range(11, 14), *range(19, 32), *range(37, 51), *range(55, 84), *range(87, 119)})


def symbol(number: int) -> str:
    """Return the symbol of an element, or Z and the number of what is no element."""
    from ase.data import chemical_symbols

    return str(chemical_symbols[number]) if 0 < number < len(chemical_symbols) else f"Z{number}"


def formula(numbers: Array) -> str:
    """Return a formula in the order of Hill: C, H, then by letters.

    Examples
    --------
    >>> formula(np.array([8, 1, 6, 1, 1, 1]))
    'CH4O'
    """
    values, counts = np.unique(numbers, return_counts=True)
    of = {symbol(int(z)): int(n) for z, n in zip(values, counts, strict=True)}
    first = [one for one in ("C", "H") if "C" in of and one in of]
    order = first + sorted(of.keys() - set(first))
    return "".join(f"{one}{of[one] if of[one] > 1 else ''}" for one in order)


def kinds(numbers: Array, starts: Array) -> Array:
    """Return the kind of each structure, an index into `KINDS`, shape (R,), told by its elements."""
    n = len(starts) - 1
    present = np.zeros((n, 256), bool)
    present[np.repeat(np.arange(n), np.diff(starts)), numbers] = True

    def any_of(*elements: int) -> Array:
        return np.asarray(present[:, elements].any(axis=1))

    organic, metal = any_of(6) & any_of(1), any_of(*METALS)
    halogen, chalcogen = any_of(9, 17, 35, 53), any_of(16, 34, 52)
    only_metal = ~any_of(*(z for z in range(256) if z not in METALS))
    conditions = [
        organic & ~metal, organic, any_of(8), halogen, chalcogen, present.sum(axis=1) == 1, only_metal,
    ]  # fmt: skip
    return np.select(conditions, range(len(conditions)), len(conditions))
