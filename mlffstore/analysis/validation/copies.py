"""Copies of structures: exact, near, and those that lie in different splits (leakage).

A structure with many free coordinates does not occur twice by chance: a near copy of it in another split is a copy. Ideal
crystals under strain, relaxed structures and pairs of atoms do occur again: of the strains of a cubic crystal, three are the
same but for a rotation. These are told apart, since the first falsify a test and the second, if they are few, do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.environments import LEAST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.data.schema import Array

#: Samples that each sample is compared with, of those that follow it in the order of one number of the shape, and these
#: numbers: others of its composition lie between two copies by chance, but seldom in all of these orders.
_WINDOW, _ORDERS = 6, (0, 2, 5)
#: Sums below this agree if they differ by no more than those of this size may.
_SMALLEST = 1e-3
#: A structure is ideal with up to the first number of kinds of atoms and more atoms than kinds, and with up to the second
#: and this many atoms of each: a crystal with one atom displaced or gone, as for phonons, has some ten kinds.
_FEW_KINDS, _SOME_KINDS, _ATOMS_EACH = 4, 16, 4
#: eV/angstrom: with smaller forces on all atoms a structure is at rest, by symmetry or because it was relaxed.
_AT_REST = 1e-3


def find_copies(s: Mapping[str, Array], tolerance: float) -> dict[str, Array]:
    """Return for each check of copies which samples fail it, shape (S,), bool.

    Parameters
    ----------
    s : mapping of str to ndarray
        Figures of the samples, see `mlffstore.analysis.validation.measure.Measured`.
    tolerance : float
        Relative difference up to which the shapes of two structures agree.

    Returns
    -------
    dict of str to ndarray
        ``duplicate``, ``near_duplicate``, and across splits ``leakage``, ``near_leakage`` (of structures with many free
        coordinates), ``ideal_leakage`` (of others), ``molecule_leakage``, ``host_leakage``.
    """
    n = len(s["n_atoms"])
    split = s.get("split", np.zeros(n, np.uint8))
    out = {
        name: np.zeros(n, bool) for name in ("duplicate", "leakage", "near_duplicate", "near_leakage", "ideal_leakage")
    }
    if "content_hash" in s:
        again, across = _groups(s["content_hash"], split)
        out["duplicate"] = again & ~_firsts(s["content_hash"])  # the first of them is no duplicate
        out["leakage"] |= across
    if "root" in s:
        out["leakage"] |= _groups(s["root"], split)[1]
    for name, chosen in (("molecule_leakage", s["molecule"]), ("host_leakage", ~s["molecule"])):
        index = np.flatnonzero(chosen & (s["graph"] != 0))
        out[name] = np.zeros(n, bool)
        if len(index):
            out[name][index] = _groups(s["graph"][index], split[index])[1]
    near = _near(s, tolerance)
    again, across = _groups(near, split)
    exact = _groups(s["content_hash"], split)[0] if "content_hash" in s else np.zeros(n, bool)
    out["near_duplicate"] = again & ~_firsts(near) & ~exact
    across = across & ~out["leakage"]
    ideal = _ideal(s)
    out["near_leakage"], out["ideal_leakage"] = across & ~ideal, across & ideal
    return out


def _ideal(s: Mapping[str, Array]) -> Array:
    """Return which structures have few free coordinates, or are at rest: that they occur again proves nothing."""
    kinds, n_atoms = s["kinds"].astype(np.int64), s["n_atoms"]
    symmetric = (kinds <= _FEW_KINDS) & (kinds < n_atoms)
    symmetric |= (kinds <= _SOME_KINDS) & (_ATOMS_EACH * kinds <= n_atoms)
    with np.errstate(invalid="ignore"):
        at_rest = (s["force_max"] < _AT_REST).any(axis=1)
    return np.asarray(symmetric | (n_atoms <= 2) | at_rest)


def _firsts(key: Array) -> Array:
    out = np.zeros(len(key), bool)
    out[np.unique(key, return_index=True)[1]] = True
    return out


def _groups(key: Array, split: Array) -> tuple[Array, Array]:
    """Return which entries share their key with another, and which with one of another split."""
    order = np.argsort(key, kind="stable")
    begin = np.flatnonzero(np.concatenate([[True], key[order[1:]] != key[order[:-1]]]))
    size = np.diff(np.append(begin, len(key)))
    low, high = np.minimum.reduceat(split[order], begin), np.maximum.reduceat(split[order], begin)
    again, across = np.zeros(len(key), bool), np.zeros(len(key), bool)
    again[order] = np.repeat(size > 1, size)
    across[order] = np.repeat(low != high, size)
    return again, across


def _near(s: Mapping[str, Array], tolerance: float) -> Array:
    """Return a number for each sample that near-duplicates share: one composition, and shapes that agree to `tolerance`.

    Samples are sorted by composition and a number of the shape, and each is compared with the next `_WINDOW`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    shape, composition = s["shape"], s["composition"]
    n = len(composition)
    least = np.array([_SMALLEST] * (shape.shape[1] - len(LEAST)) + list(LEAST))
    first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for column in _ORDERS:
        order = np.lexsort((shape[:, column], composition))
        for step in range(1, min(_WINDOW, n - 1) + 1):
            one, two = order[:-step], order[step:]
            same = np.flatnonzero(composition[one] == composition[two])
            a, b = shape[one[same]], shape[two[same]]
            with np.errstate(invalid="ignore"):
                alike = same[(np.abs(a - b) <= tolerance * np.maximum(np.abs(a), least)).all(axis=1)]
            first.append(one[alike])
            second.append(two[alike])
    edges = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(len(edges[0]), bool), edges), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
