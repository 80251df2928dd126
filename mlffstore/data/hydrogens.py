"""Molecules whose hydrogens were lost: carbons with free places around them and too few bonds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.ragged import reduce_rows

if TYPE_CHECKING:
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.geometry import Pairs
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array

#: Bonds stretched by a quarter still count.
_STRETCH = 1.25


def lacks_hydrogen(batch: SampleBatch, *, periodic: bool = False) -> Array:
    """Return whether each sample is a molecule that looks as if its hydrogens had been lost, shape (S,), bool.

    Only for samples that are periodic nowhere, have carbon and no hydrogen. A carbon is bare when both hold:

    - its neighbours leave a place free: none; one, unless it is a multiple bond to N, O or S (CO, cyanide, CS); two
      that are not in line; three that are not in one plane with it (angles adding up to less than 342 degrees: 360 in a
      plane, 348 in C60, 328 in a tetrahedron);
    - its bonds do not add up: Pauling's bond orders ``exp((r_single - d) / 0.3)`` (J. Am. Chem. Soc. 69, 542 (1947); the
      single bond is the sum of Cordero's covalent radii, which ASE has) sum to less than 3.8. A full carbon has 4 to 5,
      a stripped aromatic one 3.3, a stripped aliphatic one 1 to 3. Over three bonds they must sum to less than 3.4: a
      stripped carbon has single bonds there, and a full one a double bond, also where hot dynamics stretch it.

    The sample lacks hydrogen when a sixth of its carbons are bare (a third where everything is carbon, as in fullerenes,
    whose curved faces come closest), so that one stretched bond does not flag a large molecule. CO2, CS2, CCl4, C2F6
    and C60 pass. So do CH4, HCN and H2CO without hydrogen, which are then a carbon atom, cyanide and CO. Carbon
    clusters, carbenes and other species with free valences do not pass.

    Parameters
    ----------
    batch : SampleBatch
    periodic : bool, optional
        Judge periodic samples too: molecular crystals and frameworks lose hydrogens as molecules do. Where everything is
        carbon, half of the atoms must be bare, since amorphous carbon and surfaces have free valences of their own.
    """
    from mlffstore.data.geometry import pairs

    suspects = np.flatnonzero(suspicious(batch.numbers, batch.offsets, batch.pbc))
    out = np.zeros(len(batch), bool)
    if len(suspects):
        part = batch.take(suspects)
        neighbours = pairs(part.offsets, part.positions, part.cell, part.pbc, bond_cutoff(part.numbers))
        bare = bare_carbons(part.numbers, part.positions, neighbours)
        out[suspects] = too_many_bare(bare, part.numbers, part.offsets)
    if periodic:
        crystals = _without_hydrogen(batch.numbers, batch.offsets) & batch.pbc.any(axis=1)
        for i in np.flatnonzero(crystals).tolist():
            out[i] = _crystal_lacks_hydrogen(batch.take([i]))
    return out


def _crystal_lacks_hydrogen(sample: SampleBatch) -> bool:
    """Judge one periodic sample, over all images."""
    from ase import Atoms
    from vesin import ase_neighbor_list

    numbers = sample.numbers
    atoms = Atoms(numbers, sample.positions.astype(np.float64), cell=sample.cell[0], pbc=sample.pbc[0])
    first, second, distance, vector = ase_neighbor_list("ijdD", atoms, bond_cutoff(numbers))
    bare = _bare(numbers, first.astype(np.int64), second.astype(np.int64), distance, vector)  # NumPy 1 counts no uint64
    share = 2 if (numbers == 6).all() else 6
    return bool(share * bare.sum() >= (numbers == 6).sum())


def bond_cutoff(numbers: Array) -> float:
    """Return the length, angstrom, below which all bonds of carbon to these elements are."""
    from ase.data import covalent_radii

    return _STRETCH * float(covalent_radii[6] + covalent_radii[numbers].max())


def suspicious(numbers: Array, starts: Ints, pbc: Array) -> Array:
    """Return which samples are worth a look: periodic nowhere, at least two atoms, carbon and no hydrogen."""
    return np.asarray(_without_hydrogen(numbers, starts) & ~pbc.any(axis=1))


def _without_hydrogen(numbers: Array, starts: Ints) -> Array:
    """Return which samples have at least two atoms, carbon and no hydrogen, shape (S,), bool."""
    carbon = reduce_rows(np.logical_or, numbers == 6, starts)
    hydrogen = reduce_rows(np.logical_or, numbers == 1, starts)
    return np.asarray(carbon & ~hydrogen & (np.diff(starts) > 1))


def too_many_bare(bare: Array, numbers: Array, starts: Ints) -> Array:
    """Return which samples have so many bare carbons that hydrogens must be missing, shape (S,), bool."""
    carbon = numbers == 6
    n_bare = np.add.reduceat(bare.astype(np.int64), starts[:-1])
    n_carbon = np.add.reduceat(carbon.astype(np.int64), starts[:-1])
    share = np.where(n_carbon == np.diff(starts), 3, 6)
    return np.asarray((share * n_bare >= n_carbon) & (n_carbon > 0))


def bare_carbons(numbers: Array, positions: Array, neighbours: Pairs) -> Array:
    """Return which atoms are bare carbons, shape (A,), bool; see `lacks_hydrogen`. Not for periodic samples."""
    first, second = (
        np.concatenate([neighbours.first, neighbours.second]),
        np.concatenate([neighbours.second, neighbours.first]),
    )
    distance = np.concatenate([neighbours.distance, neighbours.distance])
    return _bare(numbers, first, second, distance, positions[second].astype(np.float64) - positions[first])


def _bare(numbers: Array, first: Ints, second: Ints, distance: Array, vector: Array) -> Array:
    """Return which atoms are bare carbons, given every pair of neighbours in both directions and the vector between."""
    from ase.data import covalent_radii

    n = len(numbers)
    single = covalent_radii[numbers[first]] + covalent_radii[numbers[second]]
    bonded = (distance < _STRETCH * single) & (numbers[first] == 6)
    kept = np.flatnonzero(bonded)
    kept = kept[np.argsort(first[kept], kind="stable")]
    first, second, distance, single, vector = (array[kept] for array in (first, second, distance, single, vector))
    bond_order = np.exp((single - distance) / 0.3)
    count = np.bincount(first, minlength=n)
    total = np.bincount(first, bond_order, minlength=n)
    multiple = np.zeros(n, bool)
    multiple[first[(bond_order > 1.4) & np.isin(numbers[second], (7, 8, 16))]] = True
    free = count == 0
    free |= (count == 1) & ~multiple
    unit = vector / distance[:, None]
    begin = np.searchsorted(first, np.arange(n))
    for many, limit in ((2, 150.0), (3, 342.0)):
        centre = np.flatnonzero(count == many)
        around = unit[begin[centre][:, None] + np.arange(many)]
        angles = np.zeros(len(centre))
        for a in range(many):
            for b in range(a):
                cosine = np.einsum("ij,ij->i", around[:, a], around[:, b])
                angles += np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        free[centre] |= angles < limit
    return np.asarray((numbers == 6) & free & (total <= np.where(count == 3, 3.4, 3.8)))
