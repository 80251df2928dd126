"""Pictures of structures as small SVG drawings: atoms as discs, the far ones first, and the edges of the cell."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

    from mlffstore.data.schema import Array

#: Looking down on the structure a little from the side, so that layers do not hide one another: -80 degrees about x, then
#: 15 about y (ASE's viewer writes this "-80x,15y").
_X, _Y = np.radians(-80.0), np.radians(15.0)
_VIEW = (
    np.array([[1, 0, 0], [0, np.cos(_X), -np.sin(_X)], [0, np.sin(_X), np.cos(_X)]]).T
    @ np.array([[np.cos(_Y), 0, np.sin(_Y)], [0, 1, 0], [-np.sin(_Y), 0, np.cos(_Y)]]).T
)
_EDGES = tuple((a, b) for a, b in product(range(8), repeat=2) if a < b and (a ^ b) in (1, 2, 4))


def layout(atoms: Atoms) -> tuple[Array, Array, Array, Array]:
    """Return positions on the paper (N, 2), radii (N,), colours (N, 3), far atoms first, and the cell's edges (12, 2, 2).

    There are no edges where the structure is periodic nowhere.
    """
    from ase.data import covalent_radii
    from ase.data.colors import jmol_colors

    corners = np.zeros((0, 3))
    if atoms.pbc.any():
        corners = np.array([np.array([k & 1, k >> 1 & 1, k >> 2 & 1]) @ atoms.cell.array for k in range(8)])
    numbers = np.clip(atoms.numbers, 0, len(jmol_colors) - 1)
    x = np.nan_to_num(atoms.positions) @ _VIEW
    order = np.argsort(x[:, 2], kind="stable")
    edges = (
        np.array([[corners[a], corners[b]] for a, b in _EDGES]).reshape(-1, 2, 3)
        if len(corners)
        else np.zeros((0, 2, 3))
    )
    return x[order, :2], 0.75 * covalent_radii[numbers][order], jmol_colors[numbers][order], (edges @ _VIEW)[..., :2]


def picture(atoms: Atoms, width: int = 150) -> str:
    """Return a structure as an SVG element."""
    x, radius, colour, edges = layout(atoms)
    every = np.concatenate([x - radius[:, None], x + radius[:, None], edges.reshape(-1, 2)])
    low, high = every.min(axis=0), every.max(axis=0)
    span = max(float((high - low).max()), 1.0)
    offset = (low + high - span) / 2
    scale = 100 / span
    parts = []
    for a, b in (edges - offset) * scale:
        parts.append(f'<line x1="{a[0]:.1f}" y1="{100 - a[1]:.1f}" x2="{b[0]:.1f}" y2="{100 - b[1]:.1f}"/>')
    for (u, v), r, c in zip((x - offset) * scale, radius * scale, colour, strict=True):
        fill = "#" + "".join(f"{round(255 * part):02x}" for part in c)
        parts.append(f'<circle cx="{u:.1f}" cy="{100 - v:.1f}" r="{r:.1f}" fill="{fill}"/>')
    name = atoms.get_chemical_formula()
    return (
        f'<svg class="structure" role="img" aria-label="{name}" viewBox="-1 -1 102 102" width="{width}" height="{width}">'
        f"{''.join(parts)}</svg>"
    )
