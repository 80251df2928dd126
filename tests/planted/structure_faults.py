"""Faults of structures: lengths, species, hydrogens, cells, charge and spin, and copies of samples in another split."""

from __future__ import annotations

import numpy as np

from tests.planted.helpers import copies, keep_atoms, molecules, owners, periodic, rehash, replace_sample, rows
from tests.planted.label_faults import BOHR


def positions_in_bohr(ds):
    """In a cell in angstrom, if there is one."""
    ds.positions.values[:] /= BOHR
    return rehash(ds)


def lengths_in_bohr(ds):
    ds.positions.values[:] /= BOHR
    ds.cell.values[:] /= BOHR
    return rehash(ds)


def numbers_permuted_in_each_sample(ds):
    rng = np.random.default_rng(0)
    for i in range(ds.sizes["sample"]):
        ds.numbers.values[rows(ds, i)] = rng.permutation(ds.numbers.values[rows(ds, i)])
    return rehash(ds) if len(np.unique(ds.numbers)) > 1 else None


def numbers_permuted_in_one_sample(ds):
    for i in np.random.default_rng(0).permutation(ds.sizes["sample"]):
        z = ds.numbers.values[rows(ds, i)]
        if len(np.unique(z)) > 1 and len(z) > 7:
            ds.numbers.values[rows(ds, i)] = np.roll(z, len(z) // 2)
            return rehash(ds)
    return None


def species_exchanged(ds):
    """The two most frequent elements but hydrogen, everywhere."""
    z = ds.numbers.values
    present = [k for k in np.argsort(np.bincount(z, minlength=120))[::-1] if k > 1 and (z == k).any()][:2]
    if len(present) < 2:
        return None
    a, b = present
    ds.numbers.values[:] = np.where(z == a, b, np.where(z == b, a, z))
    return rehash(ds)


def molecules_cut_by_the_boundary(ds):
    """Wrapped into a box of 12 angstrom whose walls run through their middle."""
    inside = molecules(ds)[owners(ds)]
    if not inside.any():
        return None
    n = np.maximum(ds.n_atoms.values, 1)
    centre = np.add.reduceat(ds.positions.values, np.concatenate([[0], np.cumsum(n)[:-1]])) / n[:, None]
    x = (ds.positions.values - centre[owners(ds)]) % 12.0
    ds.positions.values[inside] = x[inside]
    return rehash(ds)


def hydrogens_lost_in_pairs(ds):
    """Two hydrogens of every molecule that has four or more; the number of electrons stays even."""
    keep = np.ones(ds.sizes["atom"], bool)
    for i in np.flatnonzero(molecules(ds)):
        r = rows(ds, i)
        found = r.start + np.flatnonzero(ds.numbers.values[r] == 1)
        if len(found) >= 4:
            keep[found[[0, -1]]] = False
    return None if keep.all() else rehash(keep_atoms(ds, keep))


def hydrogens_lost(ds):
    keep = (ds.numbers.values != 1) | periodic(ds)[owners(ds)]
    alone = np.bincount(owners(ds)[keep], minlength=ds.sizes["sample"]) == 0
    return None if keep.all() or alone.any() else rehash(keep_atoms(ds, keep))


def atoms_overlap(ds):
    i = int(np.argmax(ds.n_atoms.values > 2))
    first = rows(ds, i).start
    ds.positions.values[first + 1] = ds.positions.values[first] + np.float32([0.3, 0, 0])
    return rehash(ds)


def cell_left_handed(ds):
    found = np.flatnonzero(periodic(ds))
    if not len(found):
        return None
    ds.cell.values[found[3]] = ds.cell.values[found[3]][[1, 0, 2]]
    return rehash(ds)


def position_missing(ds):
    ds.positions.values[5, 1] = np.nan
    return rehash(ds)


def charge_off_by_two(ds):
    if not molecules(ds).any():
        return None
    ds.charge.values[molecules(ds)] += 2
    return rehash(ds)


def wrong_multiplicity(ds):
    """Of another parity."""
    if not molecules(ds).any():
        return None
    ds.multiplicity.values[np.flatnonzero(molecules(ds))[::3]] += 1
    return rehash(ds)


def triplet_for_singlet(ds):
    if not molecules(ds).any():
        return None
    ds.multiplicity.values[molecules(ds)] += 2
    return rehash(ds)


def copy_in_another_split(ds):
    return copies(ds, _some(ds))[0]


def supercell_in_another_split(ds):
    return _changed(
        ds, periodic, lambda z, x, cell: (np.tile(z, 2), np.concatenate([x, x + cell[2]]), cell * [[1], [1], [2]])
    )


def other_lattice_vectors_in_another_split(ds):
    return _changed(ds, periodic, lambda z, x, cell: (z, x, np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) @ cell))


def turned_in_another_split(ds):
    turn = _rotation(1)
    return _changed(ds, None, lambda z, x, cell: (z[::-1], (x @ turn)[::-1], cell @ turn))


def mirrored_in_another_split(ds):
    turn = _rotation(2) @ np.diag([1, 1, -1])
    return _changed(ds, None, lambda z, x, cell: (z, x @ turn, (cell @ turn)[[1, 0, 2]]))


def shifted_in_another_split(ds):
    return _changed(ds, None, lambda z, x, cell: (z, x + np.array([0.7, 1.1, -0.4]), cell))


def defect_in_another_split(ds):
    """A supercell without one of its atoms."""
    return _changed(
        ds,
        periodic,
        lambda z, x, cell: (np.tile(z, 2)[1:], np.concatenate([x, x + cell[2]])[1:], cell * [[1], [1], [2]]),
    )


def slab_in_another_split(ds):
    """Three cells high, with vacuum."""

    def cut(z, x, cell):
        high = cell * [[1], [1], [3 + 10 / np.linalg.norm(cell[2])]]
        return np.tile(z, 3), np.concatenate([x + k * cell[2] for k in range(3)]), high

    return _changed(ds, periodic, cut)


def _rotation(seed):
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return turn * np.sign(np.linalg.det(turn))


def _some(ds, kind=None):
    wanted = np.flatnonzero(kind(ds) if kind else np.ones(ds.sizes["sample"], bool))
    return wanted[:: max(len(wanted) // 8, 1)][:8]


def _changed(ds, kind, change):
    """Return the dataset with changed copies of eight samples in another split."""
    chosen = _some(ds, kind)
    if not len(chosen):
        return None
    out, new = copies(ds, chosen)
    for i in new.tolist():
        r = rows(out, i)
        z, x, cell = change(out.numbers.values[r], out.positions.values[r].astype(np.float64), out.cell.values[i])
        out = replace_sample(out, i, z, x, cell)
    return rehash(out)
