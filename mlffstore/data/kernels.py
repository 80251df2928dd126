"""Compiled loops. Import this module inside functions: numba takes a third of a second.

The interpreter's lock is not held in them, so that they run in Dask's threads side by side. Neighbour lists of vesin do
not (measured: two threads no faster than one), and to count neighbours they would have to hold thirty pairs per atom.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

#: Compiled once per machine: the result is kept beside this file.
_compiled: Any = numba.njit(nogil=True, cache=True)


@_compiled
def invertible_cell(cell: Any, pbc: Any, cutoff: float) -> Any:
    """Return an invertible cell, its inverse, and for each vector the cutoff in units of the height along it."""
    box = np.eye(3)
    for k in range(3):
        if pbc[k]:
            box[k] = cell[k]
    # A direction that is not periodic gets a unit vector across the others: its coordinate is never wrapped or repeated.
    for k in range(3):
        if not pbc[k]:
            a, b = box[(k + 1) % 3], box[(k + 2) % 3]
            if pbc[(k + 1) % 3] and pbc[(k + 2) % 3]:
                across = np.cross(a, b)
                box[k] = across / np.sqrt((across**2).sum())
            elif pbc[(k + 1) % 3] or pbc[(k + 2) % 3]:
                axis = a if pbc[(k + 1) % 3] else b
                other = np.zeros(3)
                other[np.argmin(np.abs(axis))] = 1.0
                across = np.cross(axis, other)
                across /= np.sqrt((across**2).sum())
                box[k] = across
                last = (k + 2) % 3 if pbc[(k + 1) % 3] else (k + 1) % 3
                third = np.cross(axis, across)
                box[last] = third / np.sqrt((third**2).sum())
                break
    inverse = np.linalg.inv(box)
    reach = np.zeros(3)
    for k in range(3):
        if pbc[k]:
            reach[k] = cutoff * np.sqrt((inverse[:, k] ** 2).sum())  # 1 / height = norm of the reciprocal vector
    return box, inverse, reach


@_compiled
def _scan(
    x: Any,
    cell: Any,
    pbc: Any,
    cutoffs: Any,
    counts: Any,
    first: Any,
    second: Any,
    distance: Any,
    shift: Any,
    start: int,
) -> int:
    """Go through the pairs of one sample within the largest cutoff, count them by cutoff and keep those that fit.

    Where `shift` has room too, it gets the vector of the cell to add to the second atom's position as it was given.
    """
    n, room, n_pairs = len(x), len(first), 0
    largest = cutoffs.max()
    limit = largest * largest
    periodic = pbc[0] or pbc[1] or pbc[2]
    if not periodic:
        for i in range(n):
            for j in range(i + 1, n):
                d2 = (x[i, 0] - x[j, 0]) ** 2 + (x[i, 1] - x[j, 1]) ** 2 + (x[i, 2] - x[j, 2]) ** 2
                if d2 < limit:
                    if n_pairs < room:
                        first[n_pairs], second[n_pairs], distance[n_pairs] = start + i, start + j, math.sqrt(d2)
                        if len(shift) > 0:
                            shift[n_pairs] = 0.0
                    n_pairs += 1
                    for c in range(len(cutoffs)):
                        if d2 < cutoffs[c] * cutoffs[c]:
                            counts[c] += 1
        return n_pairs
    box, inverse, reach = invertible_cell(cell, pbc, largest)
    f = x @ inverse
    wrapped = np.zeros((n, 3))
    for i in range(n):
        for k in range(3):
            if pbc[k]:
                wrapped[i, k] = math.floor(f[i, k])
                f[i, k] -= wrapped[i, k]
    low, high = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for i in range(n):
        for j in range(i, n):
            empty = False
            for k in range(3):
                if pbc[k]:
                    delta = f[j, k] - f[i, k]
                    low[k], high[k] = math.ceil(-reach[k] - delta), math.floor(reach[k] - delta)
                    if high[k] < low[k]:  # most pairs end here
                        empty = True
                        break
            if empty:
                continue
            for a in range(low[0], high[0] + 1):
                for b in range(low[1], high[1] + 1):
                    for c in range(low[2], high[2] + 1):
                        # An atom and its own images: each pair of images once, and not the atom itself.
                        if i == j and not (a > 0 or (a == 0 and (b > 0 or (b == 0 and c > 0)))):
                            continue
                        u, v, w = f[j, 0] - f[i, 0] + a, f[j, 1] - f[i, 1] + b, f[j, 2] - f[i, 2] + c
                        dx = u * box[0, 0] + v * box[1, 0] + w * box[2, 0]
                        dy = u * box[0, 1] + v * box[1, 1] + w * box[2, 1]
                        dz = u * box[0, 2] + v * box[1, 2] + w * box[2, 2]
                        d2 = dx * dx + dy * dy + dz * dz
                        if d2 < limit:
                            if n_pairs < room:
                                first[n_pairs], second[n_pairs], distance[n_pairs] = start + i, start + j, math.sqrt(d2)
                                if len(shift) > 0:
                                    na = a - wrapped[j, 0] + wrapped[i, 0]
                                    nb = b - wrapped[j, 1] + wrapped[i, 1]
                                    nc = c - wrapped[j, 2] + wrapped[i, 2]
                                    for m in range(3):
                                        shift[n_pairs, m] = na * box[0, m] + nb * box[1, m] + nc * box[2, m]
                            n_pairs += 1
                            for m in range(len(cutoffs)):
                                if d2 < cutoffs[m] * cutoffs[m]:
                                    counts[m] += 1
    return n_pairs


@_compiled
def count_pairs(starts: Any, positions: Any, cell: Any, pbc: Any, sound: Any, cutoffs: Any) -> Any:
    """Return the pairs of each sample within each cutoff, shape (S, C)."""
    nothing, real, flat = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3))
    out = np.zeros((len(starts) - 1, len(cutoffs)), np.int64)
    for s in range(len(starts) - 1):
        if sound[s]:
            x = positions[starts[s] : starts[s + 1]].astype(np.float64)
            _scan(x, cell[s], pbc[s], cutoffs, out[s], nothing, nothing, real, flat, 0)
    return out


@_compiled
def find_pairs(starts: Any, positions: Any, cell: Any, pbc: Any, sound: Any, cutoff: Any) -> Any:
    """Return the pairs of all samples one after another, and how many each has."""
    n, flat = len(starts) - 1, np.zeros((0, 3))
    counts = np.zeros((n, 1), np.int64)
    room, used = 4 * len(positions) + 64, 0
    first, second, distance = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
    for s in range(n):
        if not sound[s]:
            continue
        x = positions[starts[s] : starts[s + 1]].astype(np.float64)
        n_pairs = _scan(
            x, cell[s], pbc[s], cutoff, counts[s], first[used:], second[used:], distance[used:], flat, starts[s]
        )
        if used + n_pairs > room:  # larger arrays, and the sample again
            room = 2 * (used + n_pairs)
            new_first, new_second, new_distance = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
            new_first[:used], new_second[:used], new_distance[:used] = first[:used], second[:used], distance[:used]
            first, second, distance = new_first, new_second, new_distance
            counts[s] = 0
            _scan(x, cell[s], pbc[s], cutoff, counts[s], first[used:], second[used:], distance[used:], flat, starts[s])
        used += n_pairs
    return first[:used].copy(), second[:used].copy(), distance[:used].copy(), counts[:, 0].copy()


@_compiled
def sum_pairs(first: Any, second: Any, distance: Any, counts: Any, z: Any, cutoff: float) -> Any:
    """Return sums over pairs that fade out at the cutoff: (S, 5) and (S,) per sample, and two of each atom, (A,).

    With d the distance over the cutoff and f = (1 - d^2)^2, per sample f sqrt(za zb), f exp(-3d) (za + zb), f d,
    f d^4 za zb, f cos(9d), and f; per atom f exp(-3d) z of the other atom, and f cos(9d).
    """
    sums, fades = np.zeros((len(counts), 5)), np.zeros(len(counts))
    each, other = np.zeros(len(z)), np.zeros(len(z))
    p = 0
    for s in range(len(counts)):
        for _ in range(counts[s]):
            i, j, d = first[p], second[p], distance[p] / cutoff
            a, b, fade = z[i], z[j], (1 - d * d) ** 2
            decay, turn = fade * math.exp(-3 * d), fade * math.cos(9 * d)
            sums[s, 0] += fade * math.sqrt(a * b)
            sums[s, 1] += decay * (a + b)
            sums[s, 2] += fade * d
            sums[s, 3] += fade * d**4 * a * b
            sums[s, 4] += turn
            fades[s] += fade
            each[i] += decay * b
            each[j] += decay * a
            other[i] += turn
            other[j] += turn
            p += 1
    return sums, fades, each, other


@_compiled
def find_edges(starts: Any, positions: Any, cell: Any, pbc: Any, cutoff: Any) -> Any:
    """Return centre and neighbour of each edge, shape (2, E), and the vector of the cell to add, shape (E, 3).

    Every pair is there in both directions; edges of a sample lie together.
    """
    counts = np.zeros(1, np.int64)
    room, used = 32 * len(positions) + 64, 0
    first, second = np.empty(room, np.int64), np.empty(room, np.int64)
    distance, shift = np.empty(room), np.empty((room, 3))
    for s in range(len(starts) - 1):
        x = positions[starts[s] : starts[s + 1]].astype(np.float64)
        box = cell[s].astype(np.float64)
        n_pairs = _scan(
            x, box, pbc[s], cutoff, counts, first[used:], second[used:], distance[used:], shift[used:], starts[s]
        )
        if used + n_pairs > room:  # larger arrays, and the sample again
            room = 2 * (used + n_pairs)
            new_first, new_second, new_shift = np.empty(room, np.int64), np.empty(room, np.int64), np.empty((room, 3))
            new_first[:used], new_second[:used], new_shift[:used] = first[:used], second[:used], shift[:used]
            first, second, shift, distance = new_first, new_second, new_shift, np.empty(room)
            _scan(x, box, pbc[s], cutoff, counts, first[used:], second[used:], distance[used:], shift[used:], starts[s])
        used += n_pairs
    index, vector = np.empty((2, 2 * used), np.int64), np.empty((2 * used, 3), positions.dtype)
    for k in range(used):
        index[0, 2 * k], index[1, 2 * k] = first[k], second[k]
        index[0, 2 * k + 1], index[1, 2 * k + 1] = second[k], first[k]
        for m in range(3):
            vector[2 * k, m], vector[2 * k + 1, m] = shift[k, m], -shift[k, m]
    return index, vector
