"""Numbers that tell structures apart or find them again: composition, order of the atoms, molecular graph, shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.environments import LEAST, environments, hosts
from mlffstore.data.geometry import pairs, reduce_pairs
from mlffstore.data.hashing import GOLDEN, mix

if TYPE_CHECKING:
    from mlffstore.data.geometry import Pairs
    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

#: Angstrom: 0.6 of the sum of the two largest covalent radii (francium), and every bond.
CUTOFF = 3.2
#: Bonds are shorter than this multiple of the sum of covalent radii.
BOND = 1.25
#: Rounds of neighbours that a molecular graph is told apart by.
_ROUNDS = 4
#: Numbers that describe a shape: sums over pairs, the spread of the atoms or the volume (of slabs the area, of wires the
#: length), and those of the environments.
_SUMS = 5
N_SHAPE = _SUMS + 1 + len(LEAST)
#: Angstrom. Crystals with fewer pairs than atoms within the usual cutoff (caesium has none) are described with the first of
#: these cutoffs that is large enough for their volume per atom, and molecules without any pair with the first.
WIDER = (5.0, 7.0)
#: A cutoff is large enough if it is this multiple of the cube root of the volume per atom: the second shell of bcc and fcc.
_SHELLS = 1.4


def compositions(numbers: Array, n_atoms: Array) -> tuple[Array, Array, Array]:
    """Return atomic numbers, counts, and the number of distinct elements of each sample."""
    owner = np.repeat(np.arange(len(n_atoms)), n_atoms)
    key, counts = np.unique(owner * 256 + numbers, return_counts=True)
    per_sample = np.bincount(key // 256, minlength=len(n_atoms))
    return (key % 256).astype(np.uint8), counts.astype(np.int32), per_sample.astype(np.uint8)


def fingerprints(
    block: Block,
    neighbours: Pairs,
    contact: Array,
    radius: Array,
    periodic: Array,
    molecule: Array,
    composition: tuple[Array, ...],
) -> dict[str, Array]:
    """Return hashes of composition, atom order and molecular graph, and numbers that describe the shape.

    Parameters
    ----------
    block : Block
    neighbours : Pairs
        All pairs up to the usual cutoff.
    contact : ndarray, shape (P,)
        Their distances over the sums of covalent radii.
    radius : ndarray, shape (A,)
        Covalent radii, angstrom.
    periodic, molecule : ndarray, shape (S,), bool
        Samples that are periodic in three directions, and in none.
    composition : tuple of ndarray
        As `compositions` returns it.

    Returns
    -------
    dict of str to ndarray
        ``composition`` (of crystals: of the formula unit, so that a supercell has that of its cell), ``order`` (of the
        atomic numbers in their order), ``graph`` (of molecules the bonds, of others the host), uint64; ``shape``
        (S, `N_SHAPE`) float32, which rotations, reflections, shifts, the order of atoms and the choice of the cell do not
        change; ``kinds`` uint8, kinds of atoms with different environments; ``contact`` float32, the smallest distance over
        the sum of covalent radii.
    """
    numbers, starts = block["numbers"], block.starts
    n_atoms = np.diff(starts)
    shape, kinds, wide = _shape(block, neighbours, radius, periodic, molecule)
    bonded = contact < BOND
    return {
        "composition": _reduced(composition, periodic),
        "order": _order(numbers, starts, n_atoms),
        "graph": _graph(numbers, starts, neighbours, bonded, molecule)
        | hosts(numbers, starts, neighbours, bonded, ~molecule),
        "shape": shape,
        "kinds": kinds,
        "contact": np.minimum(reduce_pairs(contact, neighbours.counts, np.inf), wide).astype(np.float32),
    }


def _reduced(composition: tuple[Array, ...], periodic: Array) -> Array:
    elements, counts, n_elements = composition
    begin = np.cumsum(n_elements, dtype=np.int64) - n_elements
    unit = np.where(periodic, np.gcd.reduceat(counts, begin), 1)
    word = mix(elements.astype(np.uint64) + GOLDEN) * (counts // np.repeat(unit, n_elements)).astype(np.uint64)
    return np.asarray(mix(np.add.reduceat(word, begin) + periodic.astype(np.uint64)))


def _order(numbers: Array, starts: Array, n_atoms: Array) -> Array:
    place = (np.arange(len(numbers)) - np.repeat(starts[:-1], n_atoms)).astype(np.uint64)
    return np.asarray(np.add.reduceat(mix((place << np.uint64(8) | numbers.astype(np.uint64)) + GOLDEN), starts[:-1]))


def _graph(numbers: Array, starts: Array, neighbours: Pairs, bonded: Array, molecule: Array) -> Array:
    atom = mix(numbers.astype(np.uint64) + GOLDEN)
    chosen = np.repeat(molecule, neighbours.counts) & bonded
    ends = np.concatenate([neighbours.first[chosen], neighbours.second[chosen]])
    others = np.concatenate([neighbours.second[chosen], neighbours.first[chosen]])
    order = np.argsort(ends, kind="stable")
    ends, others = ends[order], others[order]
    begin = np.flatnonzero(np.diff(ends, prepend=-1)) if len(ends) else ends
    for _ in range(_ROUNDS if len(ends) else 0):  # Weisfeiler and Lehman's colouring
        heard = np.zeros(len(atom), np.uint64)
        heard[ends[begin]] = np.add.reduceat(mix(atom[others] + GOLDEN), begin)
        atom = mix(atom ^ heard)
    return np.where(molecule, mix(np.add.reduceat(atom, starts[:-1])), np.uint64(0))


def _shape(block: Block, neighbours: Pairs, radius: Array, periodic: Array, molecule: Array) -> tuple[Array, ...]:
    """Return shapes and kinds of atoms, and the smallest contacts of samples that had a larger cutoff, else infinity."""
    starts, n_atoms = block.starts, np.diff(block.starts)
    out, contact = np.zeros((len(block), N_SHAPE)), np.full(len(block), np.inf)
    z = block["numbers"].astype(np.float64)
    of_pairs = np.arange(N_SHAPE) != _SUMS
    out[:, of_pairs], kinds = _of_pairs(neighbours, z, starts, CUTOFF)
    volume = _extent(block) / n_atoms
    # The volume of a slab or wire is unknown.
    reach = np.where(periodic, _SHELLS * np.cbrt(volume), WIDER[-1])
    sparse = ~molecule & (neighbours.counts < n_atoms) & (reach > CUTOFF)
    alone = molecule & (neighbours.counts == 0) & (n_atoms > 1)
    low = CUTOFF
    for cutoff in WIDER:
        chosen = sparse & (reach > low) & ((reach <= cutoff) | (cutoff == WIDER[-1]))
        index = np.flatnonzero(chosen | (alone if low == CUTOFF else False))
        low = cutoff
        if len(index):
            out[np.ix_(index, of_pairs)], kinds[index], contact[index] = _wider(block, radius, index, cutoff)
    x = block["positions"].astype(np.float64)
    centre = np.add.reduceat(x, starts[:-1]) / n_atoms[:, None]
    spread = np.add.reduceat(((x - np.repeat(centre, n_atoms, axis=0)) ** 2).sum(1) * z, starts[:-1]) / n_atoms
    out[:, _SUMS] = np.where(molecule, spread, volume)
    return out.astype(np.float32), kinds, contact


def _extent(block: Block) -> Array:
    """Return the volume of each cell, or the area or length that the periodic vectors of a slab or wire span, shape (S,)."""
    pbc = block["pbc"].astype(bool)
    vectors = np.nan_to_num(block["cell"].astype(np.float64)) * pbc[:, :, None]
    gram = vectors @ vectors.transpose(0, 2, 1) + np.eye(3) * ~pbc[:, :, None]
    return np.asarray(np.sqrt(np.abs(np.linalg.det(gram))))


def _wider(block: Block, radius: Array, chosen: Array, cutoff: float) -> tuple[Array, Array, Array]:
    from mlffstore.data.ragged import offsets, row_indices

    counts = np.diff(block.starts)[chosen]
    rows, starts = row_indices(block.starts[chosen], counts), offsets(counts)
    x, cell, pbc = block["positions"][rows], block["cell"][chosen].astype(np.float64), block["pbc"][chosen].astype(bool)
    found = pairs(starts, x, cell, pbc, cutoff)
    contact = found.distance / (radius[rows][found.first] + radius[rows][found.second])
    numbers, kinds = _of_pairs(found, block["numbers"][rows].astype(np.float64), starts, cutoff)
    return numbers, kinds, reduce_pairs(contact, found.counts, np.inf)


def _of_pairs(neighbours: Pairs, z: Array, starts: Array, cutoff: float) -> tuple[Array, Array]:
    """Return the numbers of shapes that are made of pairs, shape (S, _SUMS + 5), and the kinds of atoms.

    Five sums over pairs, smooth at the cutoff so that rounding moves no pair across, and numbers of the environments.
    """
    from mlffstore.data.kernels import sum_pairs

    n_atoms = np.diff(starts)
    sums, fades, each, other = sum_pairs(*neighbours, z, cutoff)
    numbers, kinds = environments(each, other, 2 * fades / n_atoms, z, starts)
    return np.concatenate([sums / n_atoms[:, None], numbers], axis=1), kinds
