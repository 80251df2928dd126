"""Which samples are compared: pairs with the same atoms in the same order, chosen from the figures of all samples.

The number of samples is bounded, and the choice depends on the seed and on the data alone. Samples next to one another in a
root are among them, and others of the same composition and order of atoms that their figures suggest to be similar; the
comparison decides which of them are close. This module reads no positions but those of the samples that it chose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.work import Work, compare, nothing
from mlffstore.data.geometry import invertible_cells
from mlffstore.data.hashing import GOLDEN, mix
from mlffstore.data.ragged import offsets
from mlffstore.lazy.accessor import Mlff
from mlffstore.lazy.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array

#: Samples and atoms that are read of the molecules, of the crystals, and of the slabs and wires of one teacher.
MAX_SAMPLES, MAX_ATOMS = 1200, 1 << 16
#: Samples of one group, at least, if there are many groups; all of the samples go to one group if it is the only one.
_PER_GROUP = 8
#: Neighbours of each sample that are compared with it.
_NEIGHBOURS = 3
#: Samples around which the neighbours in a large group are looked for, per sample that is read.
_SHARE_OF_CENTRES = 3
#: Variables that the comparison reads.
_COLUMNS = (
    "n_atoms", "numbers", "positions", "cell", "pbc", "charge", "multiplicity", "energy", "forces", "stress",
)  # fmt: skip


def compared(ds: xr.Dataset, s: Mapping[str, Array], seed: int) -> Work:
    """Choose samples, read them, and return the works of the pairs among them.

    Parameters
    ----------
    ds : Dataset
    s : mapping of str to ndarray
        Figures of the samples, see `mlffstore.analysis.validation.measure.Measured`.
    seed : int
        Seed of the choice.
    """
    if "forces" not in ds or "energy" not in ds:
        return nothing()
    chosen, group = choose(s, seed)
    if not len(chosen):
        return nothing()
    part = Mlff(ds[[name for name in _COLUMNS if name in ds]]).isel(chosen).compute()
    columns = {str(name): part[name].values for name in part.data_vars}
    block = Block(0, columns, offsets(columns["n_atoms"]))
    work = compare(block, *_neighbours(block, group, s["root"][chosen] if "root" in s else None))
    return Work(chosen[work.first], chosen[work.second], *(getattr(work, name) for name in Work.__slots__[2:]))


def choose(s: Mapping[str, Array], seed: int) -> tuple[Ints, Ints]:
    """Return the indices of the samples that are read, in order, and the group of each.

    Samples of one group have the same atoms in the same order, one charge and multiplicity, and are all molecules, all
    crystals, or neither.
    """
    kind = np.where(s["periodic"], 1, np.where(s["molecule"], 0, 2)).astype(np.uint64)
    key = mix(mix(s["order"] ^ (kind + np.uint64(3 * seed)) * GOLDEN) + s["state"])
    chosen = np.zeros(len(key), bool)
    for t in range(s["energy"].shape[1]):
        labelled = np.isfinite(s["energy"][:, t]) & np.isfinite(s["force_max"][:, t])
        for one in range(3):
            chosen[_of_stratum(np.flatnonzero(labelled & (kind == one)), key, s)] = True
    index = np.flatnonzero(chosen)
    return index, np.unique(key[index], return_inverse=True)[1].ravel()


def _of_stratum(index: Ints, key: Array, s: Mapping[str, Array]) -> Ints:
    """Return some of the samples of a stratum: groups in the order of their key, and of each of them close samples."""
    root = s["root"][index] if "root" in s else np.zeros(len(index), np.uint64)
    index = index[np.lexsort((index, root, key[index]))]
    if not len(index):
        return index
    begin = np.flatnonzero(np.concatenate([[True], key[index[1:]] != key[index[:-1]]]))
    size = np.diff(np.append(begin, len(index)))
    begin, size = begin[size > 1], size[size > 1]
    atoms = s["n_atoms"][index[begin]].astype(np.int64)
    budget = min(MAX_SAMPLES, MAX_ATOMS // max(int(np.median(atoms)), 1)) if len(begin) else 0
    most = max(budget // max(len(begin), 1), _PER_GROUP)
    out, n_atoms, n = [], 0, 0
    for a, k, each in zip(begin.tolist(), size.tolist(), atoms.tolist(), strict=True):
        members = index[a : a + k]
        if k > most:
            members = _close(members, s, max(min(most, MAX_ATOMS // each), 2))
        n, n_atoms = n + len(members), n_atoms + each * len(members)
        out.append(members)
        if n >= MAX_SAMPLES or n_atoms >= MAX_ATOMS:
            break
    return np.concatenate([index[:0], *out])


def _close(members: Ints, s: Mapping[str, Array], n: int) -> Ints:
    """Return about `n` of the samples of a group: some at equal distances, with the next one and the most similar ones."""
    centres = np.unique(np.linspace(0, len(members) - 2, max(n // _SHARE_OF_CENTRES, 1)).astype(np.int64))
    shape = np.nan_to_num(s["shape"][members].astype(np.float64))
    scale = shape.std(axis=0)
    shape /= np.where(scale > 0, scale, 1.0)
    wanted = [centres, centres + 1]  # the next one: of the same root, or of the same trajectory
    for centre in centres.tolist():
        apart = ((shape - shape[centre]) ** 2).sum(axis=1)
        apart[[centre, centre + 1]] = np.inf
        wanted.append(np.array([int(np.argmin(apart))]))
    return np.asarray(members[np.unique(np.concatenate(wanted))])


def _neighbours(block: Block, group: Ints, root: Array | None) -> tuple[Ints, Ints]:
    """Return the pairs to compare: each sample with the nearest of its group, and with the next of its root."""
    pairs = set()
    order = np.argsort(group, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(members) < 2:
            continue
        features = _features(block, members)
        square = (features**2).sum(axis=1)
        apart = square[:, None] + square[None, :] - 2 * features @ features.T
        np.fill_diagonal(apart, np.inf)
        k = min(_NEIGHBOURS, len(members) - 1)
        nearest = np.argpartition(apart, k - 1, axis=1)[:, :k]
        for i, others in enumerate(nearest):
            pairs |= {(int(members[min(i, j)]), int(members[max(i, j)])) for j in others.tolist()}
        if root is not None:
            same = root[members[1:]] == root[members[:-1]]
            pairs |= {(int(members[i]), int(members[i + 1])) for i in np.flatnonzero(same)}
    both = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _features(block: Block, members: Ints) -> Array:
    """Return numbers of samples with the same atoms in which similar structures are close, shape (M, D).

    Of molecules the distances to the centre and to the first atom; of others the places in the cell, on circles along
    vectors that are periodic, and in angstrom along others.
    """
    n = int(block["n_atoms"][members[0]])
    rows = block.starts[members][:, None] + np.arange(n)
    x = block["positions"][rows].astype(np.float64)
    if not block["pbc"][members[0]].any():
        return np.concatenate(
            [np.linalg.norm(x - x.mean(axis=1, keepdims=True), axis=2), np.linalg.norm(x - x[:, :1], axis=2)], axis=1
        )
    pbc = block["pbc"][members].astype(bool)
    cell = invertible_cells(block["cell"][members], pbc)
    cell[~(np.abs(np.linalg.det(cell)) > 1e-6)] = np.eye(3)
    place = np.nan_to_num((x - x[:, :1]) @ np.linalg.inv(cell))
    on_circle = np.broadcast_to(pbc[:, None, :], place.shape)
    angle = 2 * np.pi * place
    circle = np.where(on_circle, np.cos(angle), place), np.where(on_circle, np.sin(angle), 0.0)
    flat = [one.reshape(len(members), -1) for one in (*circle, cell)]
    return np.concatenate(flat, axis=1)
