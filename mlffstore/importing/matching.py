"""`NearMatcher`: structures of a store within a tolerance of given ones, whatever the order of their atoms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.store.snapshot import Snapshot

#: Samples whose compositions are read at a time.
_BLOCK = 8192
_STRUCTURE = ("n_atoms", "numbers", "positions", "cell", "pbc", "charge", "multiplicity", "content_hash")


@dataclass(slots=True)
class Found:
    """Pairs of a given structure and a sample of the store.

    Attributes
    ----------
    rows, targets : ndarray, shape (k,), int64
        A given structure, and the sample that it is.
    order : ndarray, shape (atoms of the k structures,), int64
        For each atom of the samples, in the stored order, the atom of the given structures ``rows`` that it is.
    reasons : dict of int to str
        Structures that were not found, and why.
    """

    rows: Ints
    targets: Ints
    order: Ints
    reasons: dict[int, str] = field(default_factory=dict)


class NearMatcher:
    """Finds structures of a snapshot.

    Two structures are the same if charge, multiplicity, periodicity and elements are equal, no vector of the cell differs by
    more than the tolerance, and some order of the atoms of each element brings every atom within the tolerance of its
    partner, through the boundaries of the cell where it is periodic. Structures that were turned or moved as a whole are not
    the same: their forces are others.

    Parameters
    ----------
    snapshot : Snapshot
    tolerance : float
        Angstrom.
    """

    def __init__(self, snapshot: Snapshot, tolerance: float) -> None:
        self._snapshot, self._tolerance = snapshot, tolerance
        self._samples: dict[bytes, list[int]] = {}
        self._groups: dict[bytes, _Group] = {}
        columns = [name for name in _STRUCTURE if name not in ("positions", "cell", "content_hash")]
        for low in range(0, len(snapshot), _BLOCK):
            batch = snapshot.read(np.arange(low, min(low + _BLOCK, len(snapshot))), columns=columns)
            for i, key in enumerate(_keys(batch)):
                self._samples.setdefault(key, []).append(low + i)

    def find(self, batch: SampleBatch) -> Found:
        """Return the samples that structures are.

        Parameters
        ----------
        batch : SampleBatch
        """
        rows, targets, orders, reasons = [], [], [], {}
        starts: list[int] = []
        at = 0
        for i, key in enumerate(_keys(batch)):
            group = self._group(key)
            matches = [] if group is None else group.matches(_structure(batch, i), self._tolerance)
            if not matches:
                reasons[i] = f"no structure within {self._tolerance} angstrom"
            elif len({hash_ for _, hash_, _ in matches}) > 1:
                reasons[i] = f"{len(matches)} structures within {self._tolerance} angstrom"
            else:
                for target, _, order in matches:
                    rows.append(i)
                    targets.append(target)
                    orders.append(order)
                    starts.append(at)
                    at += len(order)
        order = np.concatenate(
            [start + one for start, one in zip(starts, orders, strict=True)] or [np.zeros(0, np.int64)]
        )
        return Found(np.array(rows, np.int64), np.array(targets, np.int64), order.astype(np.int64), reasons)

    def _group(self, key: bytes) -> _Group | None:
        """Return the samples of one composition, read when they are first asked for."""
        if key not in self._groups and key in self._samples:
            index = np.array(self._samples[key])
            self._groups[key] = _Group(index, self._snapshot.read(index, columns=_STRUCTURE))
        return self._groups.get(key)


@dataclass(frozen=True, slots=True)
class _Structure:
    numbers: Array
    positions: Array
    cell: Array
    pbc: Array


def _structure(batch: SampleBatch, i: int) -> _Structure:
    rows = slice(batch.offsets[i], batch.offsets[i + 1])
    return _Structure(batch.numbers[rows], batch.positions[rows].astype(np.float64), batch.cell[i], batch.pbc[i])


class _Group:
    """Samples of one composition, found by the mean positions of their elements."""

    def __init__(self, index: Ints, batch: SampleBatch) -> None:
        from scipy.spatial import cKDTree

        self._index, self._batch = index, batch
        self._tree = cKDTree(np.array([_means(_structure(batch, i)) for i in range(len(batch))]))

    def matches(self, given: _Structure, tolerance: float) -> list[tuple[int, int, Ints]]:
        """Return sample, content hash and order of the atoms of each structure that is the same."""
        out = []
        for i in sorted(self._tree.query_ball_point(_means(given), 2 * tolerance, p=np.inf)):
            order = _order(_structure(self._batch, i), given, tolerance)
            if order is not None:
                out.append((int(self._index[i]), int(self._batch.columns["content_hash"][i]), order))
        return out


def _keys(batch: SampleBatch) -> list[bytes]:
    """Return what the same structures have in common exactly: elements, charge, multiplicity and periodicity."""
    starts = batch.offsets.tolist()
    states = np.column_stack([batch.charge, batch.multiplicity, batch.pbc]).astype(np.int16)
    return [
        np.sort(batch.numbers[a:b]).tobytes() + state.tobytes()
        for a, b, state in zip(starts[:-1], starts[1:], states, strict=True)
    ]


def _basis(one: _Structure) -> Array:
    """Return three vectors: those of the cell along which it is periodic, completed by others."""
    from ase.geometry import complete_cell

    return np.asarray(complete_cell(np.where(one.pbc[:, None], one.cell, 0.0)))


def _means(one: _Structure) -> Array:
    """Return numbers that change by no more than the largest displacement of an atom, whatever the order of the atoms.

    For each element the mean of the coordinates along vectors that are not periodic, and of sine and cosine of the phase
    along those that are, as lengths.
    """
    basis = _basis(one)
    inverse = np.linalg.inv(basis)
    scaled, heights = one.positions @ inverse, 1.0 / np.linalg.norm(inverse, axis=0)
    parts = []
    for number in np.unique(one.numbers):
        rows = scaled[one.numbers == number]
        for k in range(3):
            if one.pbc[k]:
                phase = np.exp(2j * np.pi * rows[:, k]).mean() * heights[k] / (2 * np.pi)
                parts += [phase.real, phase.imag]
            else:
                parts.append(rows[:, k].mean() * heights[k])
    return np.array(parts)


def _order(stored: _Structure, given: _Structure, tolerance: float) -> Ints | None:
    """Return for each stored atom which given atom it is, or None if the structures differ."""
    if np.linalg.norm(stored.cell - given.cell, axis=1).max() > tolerance:
        return None
    basis = _basis(stored)
    shift: Any = (stored.positions[:, None] - given.positions) @ np.linalg.inv(basis)
    shift -= np.where(stored.pbc, np.round(shift), 0.0)
    distance = np.linalg.norm(shift @ basis, axis=2)
    distance[stored.numbers[:, None] != given.numbers] = np.inf
    order = distance.argmin(axis=1)
    close = distance[np.arange(len(order)), order] <= tolerance
    return order if close.all() and len(np.unique(order)) == len(order) else None
