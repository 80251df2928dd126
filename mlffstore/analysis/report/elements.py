"""The periodic table of a report: how many atoms of each element there are."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlffstore.analysis.report.contents import Contents


def periodic_table(c: Contents) -> str:
    """Return the table as HTML, the share of the atoms as the depth of the colour, on a logarithmic scale."""
    from ase.data import chemical_symbols

    atoms, samples = c.statistics.part.atoms_of, c.statistics.part.samples_with
    scale = np.log(atoms.max() + 1.0)
    cells = []
    for z in range(1, 119):
        row, column = place(z)
        style, name = f"grid-row:{row};grid-column:{column}", chemical_symbols[z]
        if not atoms[z]:
            cells.append(f'<div class="empty" style="{style}"><b>{name}</b>&nbsp;</div>')
            continue
        depth = 0.12 + 0.8 * np.log(atoms[z] + 1.0) / scale
        title = f"{name}: {atoms[z]:,} atoms in {samples[z]:,} samples"
        chosen = html.escape(json.dumps({"key": "formula", "op": "element", "value": name}))
        cells.append(
            f'<button data-filter="{chosen}" style="{style};background:rgba(var(--heat),{depth:.2f})" title="{title}">'
            f"<b>{name}</b>{_short(int(atoms[z]))}</button>"
        )
    about = (
        f"{int((atoms > 0).sum())} elements. The numbers are atoms, the depth of the colour their logarithm. "
        "Choose an element to list its samples."
    )
    if c.diversity:
        d = c.diversity
        about += (
            f" Diversity {d['score']:.3f} (QUESTS entropy over its largest value, {d['n_environments']:,} environments); "
            f"evenness of the elements {d['element_evenness']:.2f}."
        )
    return f'<p>{about}</p><div class="wide"><div class="elements">{"".join(cells)}</div></div>'


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
