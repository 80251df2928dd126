"""The periodic table of a report: how many atoms of each element there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlffstore.analysis.statistics import Statistics


@dataclass(frozen=True, slots=True)
class ElementCell:
    """An element in the periodic table.

    Attributes
    ----------
    name : str
    row, column : int
        From 1.
    atoms, samples : int
        Atoms of the element, and samples that have some.
    short : str
        The number of atoms in a few characters.
    depth : float
        Depth of the colour, 0 to 1, from the logarithm of the number of atoms.
    """

    name: str
    row: int
    column: int
    atoms: int
    samples: int
    short: str
    depth: float


def element_cells(statistics: Statistics) -> list[ElementCell]:
    """Return the cells of the periodic table, hydrogen first."""
    from ase.data import chemical_symbols

    atoms, samples = statistics.part.atoms_of.tolist(), statistics.part.samples_with.tolist()
    scale = np.log(max(atoms) + 1.0)
    return [
        ElementCell(
            chemical_symbols[z],
            *place(z),
            atoms[z],
            samples[z],
            _short(atoms[z]),
            float(0.12 + 0.8 * np.log(atoms[z] + 1.0) / scale),
        )
        for z in range(1, 119)
    ]


def place(z: int) -> tuple[int, int]:
    """Return row and column of an element in the periodic table, from 1; the f block in rows 9 and 10.

    Examples
    --------
    >>> place(1), place(2), place(26), place(57), place(72)
    ((1, 1), (1, 18), (4, 8), (9, 4), (6, 4))
    """
    if 57 <= z <= 71:
        return 9, z - 53
    if 89 <= z <= 103:
        return 10, z - 85
    row, before = 1, 0
    for length in (2, 8, 8, 18, 18, 32, 32):
        if z <= before + length:
            break
        row, before = row + 1, before + length
    k, length = z - before, (2, 8, 8, 18, 18, 32, 32)[row - 1]
    first = 1 if row == 1 else 2
    return row, k if k <= first else 18 - (length - k)


def _short(n: int) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)
