"""The graphs of CHGNet in array operations: those of the package's converter, which walks over angles one by one.

Edges are numbered in another order than the package's, so sums are rounded in another order too; nothing else differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array

#: Angstrom: what is closer than this is the atom itself; the package's converter has the same.
_SAME = 1e-8


def graph_of(numbers: Array, positions: Array, cell: Array, cutoff: float, angle_cutoff: float) -> Any:
    """Return the graph of a crystal.

    Parameters
    ----------
    numbers : ndarray, shape (A,)
    positions : ndarray, shape (A, 3), float64
        Angstrom.
    cell : ndarray, shape (3, 3), float64
        Angstrom, rows are lattice vectors; periodic in all directions.
    cutoff, angle_cutoff : float
        Longest edge, and longest edge that has angles, angstrom.

    Returns
    -------
    chgnet.graph.CrystalGraph

    Raises
    ------
    ValueError
        If an atom has no neighbour.
    """
    import torch
    from chgnet.graph import CrystalGraph
    from pymatgen.core import Lattice, Structure

    structure = Structure(Lattice(cell), numbers.tolist(), positions, coords_are_cartesian=True)
    center, neighbor, image, distance = structure.get_neighbor_list(cutoff, numerical_tol=_SAME)
    lonely = len(numbers) - len(np.unique(center))
    if lonely:
        raise ValueError(f"{lonely} isolated atoms: expected a neighbour of each within {cutoff:g} angstrom")
    edge, first = undirected(center, neighbor, np.rint(image).astype(np.int64))
    short = distance[first][edge] < angle_cutoff  # the length of one direction, so that both have angles or neither
    return CrystalGraph(
        atomic_number=torch.tensor(numbers, dtype=torch.int32),
        atom_frac_coord=torch.tensor(structure.frac_coords, dtype=torch.float32, requires_grad=True),
        atom_graph=torch.tensor(np.stack([center, neighbor], axis=1), dtype=torch.int32),
        neighbor_image=torch.tensor(image, dtype=torch.float32),
        directed2undirected=torch.tensor(edge, dtype=torch.int32),
        undirected2directed=torch.tensor(first, dtype=torch.int32),
        bond_graph=torch.tensor(angles(center, edge, short), dtype=torch.int32),
        lattice=torch.tensor(cell, dtype=torch.float32, requires_grad=True),
        atom_graph_cutoff=cutoff,
        bond_graph_cutoff=angle_cutoff,
    )


def undirected(center: Ints, neighbor: Ints, image: Ints) -> tuple[Ints, Ints]:
    """Return a number for each edge without its direction.

    Parameters
    ----------
    center, neighbor : ndarray, shape (E,)
        Atoms of each directed edge; each edge is there in both directions.
    image : ndarray, shape (E, 3), int64
        Cell of the neighbour.

    Returns
    -------
    edge : ndarray, shape (E,)
        Number of the undirected edge of each directed one.
    first : ndarray, shape (E/2,)
        One directed edge of each undirected one.
    """
    # The direction that counts: to the atom of the higher number, or, to an image of itself, into the half space above.
    x, y, z = image.T
    above = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    forward = (center < neighbor) | ((center == neighbor) & above)
    there, back = np.flatnonzero(forward), np.flatnonzero(~forward)
    there = there[np.lexsort((z[there], y[there], x[there], neighbor[there], center[there]))]
    back = back[np.lexsort((-z[back], -y[back], -x[back], center[back], neighbor[back]))]
    if (
        len(there) != len(back)
        or (center[there] != neighbor[back]).any()
        or (neighbor[there] != center[back]).any()
        or (image[there] != -image[back]).any()
    ):
        raise ValueError("an edge of the graph is there in one direction only")
    edge = np.empty(len(center), np.int64)
    edge[there] = edge[back] = np.arange(len(there))
    return edge, there


def angles(center: Ints, edge: Ints, short: Array) -> Ints:
    """Return the angles between short edges of the same center, shape (angles, 5), each in both orders.

    Parameters
    ----------
    center, edge : ndarray, shape (E,)
        Atom from which each directed edge starts, and the number of its undirected one.
    short : ndarray, shape (E,), bool
        Edges that have angles.

    Returns
    -------
    ndarray
        Columns: the atom, and the undirected and directed edge of either side.
    """
    rows = np.flatnonzero(short)
    rows = rows[np.argsort(center[rows], kind="stable")]
    sizes = np.bincount(center[rows])
    n = sizes[center[rows]]  # edges of the center of each
    start = (np.cumsum(sizes) - sizes)[center[rows]]
    one = np.repeat(np.arange(len(rows)), n)
    other = np.arange(len(one)) - np.repeat(np.cumsum(n) - n, n) + start[one]
    one, other = rows[one[one != other]], rows[other[one != other]]
    return np.stack([center[one], edge[one], one, edge[other], other], axis=1)
