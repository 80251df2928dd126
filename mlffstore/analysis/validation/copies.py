"""Copies of structures: exact, near, and those that lie in different splits (leakage)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.data.schema import Array

#: Samples that each sample is compared with, of those that follow it in the order of one number of the shape.
_WINDOW = 6
#: Numbers of a shape below this agree if they differ by no more than those of this size may.
_SMALLEST = 1e-3


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
        ``duplicate``, ``near_duplicate``, and across splits ``leakage``, ``near_leakage``, ``molecule_leakage``.
    """
    n = len(s["n_atoms"])
    split = s.get("split", np.zeros(n, np.uint8))
    out = {
        name: np.zeros(n, bool)
        for name in ("duplicate", "leakage", "near_duplicate", "near_leakage", "molecule_leakage")
    }
    if "content_hash" in s:
        again, across = _groups(s["content_hash"], split)
        out["duplicate"] = again & ~_firsts(s["content_hash"])  # the first of them is no duplicate
        out["leakage"] |= across
    if "root" in s:
        out["leakage"] |= _groups(s["root"], split)[1]
    graph = s["graph"]
    molecule = np.flatnonzero(graph)
    if len(molecule):
        out["molecule_leakage"][molecule] = _groups(graph[molecule], split[molecule])[1]
    near = _near(s, tolerance)
    again, across = _groups(near, split)
    exact = _groups(s["content_hash"], split)[0] if "content_hash" in s else np.zeros(n, bool)
    out["near_duplicate"] = again & ~_firsts(near) & ~exact
    out["near_leakage"] = across & ~out["leakage"]
    return out


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

    Samples are sorted by composition and the first number of the shape, and each is compared with the next `_WINDOW`: in
    large sets others of that composition lie between near-duplicates by chance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    shape, composition = s["shape"], s["composition"]
    n = len(composition)
    order = np.lexsort((shape[:, 0], composition))
    first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, min(_WINDOW, n - 1) + 1):
        one, two = order[:-step], order[step:]
        same = np.flatnonzero(composition[one] == composition[two])
        a, b = shape[one[same]], shape[two[same]]
        with np.errstate(invalid="ignore"):
            alike = same[(np.abs(a - b) <= tolerance * np.maximum(np.abs(a), _SMALLEST)).all(axis=1)]
        first.append(one[alike])
        second.append(two[alike])
    edges = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(len(edges[0]), bool), edges), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
