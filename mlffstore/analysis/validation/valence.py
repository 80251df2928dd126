"""Molecules whose bonds are odd: hydrogens with two, carbons with five, atoms with none, carbons that lack hydrogens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.fingerprints import BOND
from mlffstore.data import hydrogens
from mlffstore.data.geometry import Pairs
from mlffstore.data.ragged import reduce_rows

if TYPE_CHECKING:
    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

#: Most bonds of an atom; hydrogens in bridges and hypervalent atoms have other partners than these.
_MOST = {1: 1, 6: 4, 7: 4, 8: 3, 9: 1}
#: Elements that form bonds wherever they are in a molecule. Metals and halogens may be ions, and noble gases alone.
_BONDED = (1, 6, 7, 8)
#: An atom farther than this multiple of the sum of covalent radii from every other has no bond; hydrogen, whose bonds are
#: stiff, at the second: C-H of 1.44 angstrom.
_UNBOUND, _UNBOUND_HYDROGEN = 1.6, 1.35


def odd_bonds(block: Block, neighbours: Pairs, contact: Array, molecule: Array) -> dict[str, Array]:
    """Return ``bare``, ``odd_bonds`` and ``unbound``: which molecules have such atoms, shape (S,), bool.

    Parameters
    ----------
    block : Block
    neighbours : Pairs
    contact : ndarray, shape (P,)
        Distances over the sums of covalent radii.
    molecule : ndarray, shape (S,), bool
        Samples that are periodic nowhere.

    Notes
    -----
    A molecule with hydrogens counts as bare only if two carbons of it are, since radicals have one.
    """
    numbers, starts = block["numbers"], block.starts
    several = molecule & (np.diff(starts) > 1)
    if not several.any():
        no = np.zeros(len(block), bool)
        return {"bare": no, "odd_bonds": no, "unbound": no}
    n_atoms = len(numbers)
    ends = (neighbours.first, neighbours.second)
    inside = np.repeat(several, neighbours.counts)

    def count(chosen: Array) -> Array:
        return np.asarray(sum(np.bincount(end[chosen], minlength=n_atoms) for end in ends))

    ordinary = np.isin(numbers, list(_MOST))
    bonds = count(inside & (contact < BOND) & ordinary[ends[0]] & ordinary[ends[1]])
    # A proton may lie halfway between two of these (H5O2+, FHF-).
    taking = np.isin(numbers, (7, 8, 9))
    chosen = inside & (contact < BOND)
    taken = np.bincount(ends[0][chosen & taking[ends[1]]], minlength=n_atoms)
    taken += np.bincount(ends[1][chosen & taking[ends[0]]], minlength=n_atoms)
    shared = (numbers == 1) & (bonds == 2) & (taken == 2)
    most = np.full(256, 255)
    most[list(_MOST)] = list(_MOST.values())
    limit = np.where((numbers[ends[0]] == 1) | (numbers[ends[1]] == 1), _UNBOUND_HYDROGEN, _UNBOUND)
    near = count(inside & (contact < limit))
    alone = np.isin(numbers, _BONDED) & (near == 0)
    odd = reduce_rows(np.logical_or, (bonds > most[numbers]) & ~shared, starts)
    return {
        "bare": _bare(block, neighbours, several),
        "odd_bonds": np.asarray(several & odd),
        "unbound": np.asarray(several & reduce_rows(np.logical_or, alone, starts)),
    }


def _bare(block: Block, neighbours: Pairs, several: Array) -> Array:
    """Return which molecules have carbons that lack hydrogens."""
    numbers, starts = block["numbers"], block.starts
    organic: Array = several & reduce_rows(np.logical_or, numbers == 6, starts)
    if not organic.any():
        return organic
    selected = np.repeat(organic, neighbours.counts)
    chosen = Pairs(
        neighbours.first[selected], neighbours.second[selected], neighbours.distance[selected],
        np.where(organic, neighbours.counts, 0),
    )  # fmt: skip
    bare = hydrogens.bare_carbons(numbers, block["positions"], chosen)
    hydrogen = reduce_rows(np.logical_or, numbers == 1, starts)
    two = np.add.reduceat(bare.astype(np.int64), starts[:-1]) >= 2
    return np.asarray(organic & np.where(hydrogen, two, hydrogens.too_many_bare(bare, numbers, starts)))
