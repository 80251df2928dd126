"""Energies against the work of forces and stress, from the data alone.

Two structures of one root differ by displacements dx and a strain e. To second order in them, whatever the model,

    E2 - E1  =  -(F1 + F2)/2 . dx  +  (V1 s1 + V2 s2)/2 : e

(the trapezoid rule; s is the stress, tension positive). One wrong unit or sign, a shuffled force array, energies of two
samples exchanged: each of them breaks this line, and no teacher has to be at hand.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.ragged import row_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.blocks import Block
    from mlffstore.ragged import Ints
    from mlffstore.schema import Array

#: Angstrom. For displacements up to this the trapezoid rule holds well enough: between rattled crystals of CHGNet the error
#: was at most 0.41 of the work; between frames of molecular dynamics 1 angstrom apart it reached 1.9.
MAX_DISPLACEMENT = 0.5
#: eV an atom, added to the scale by which a deviation is judged: near a minimum the work vanishes.
FLOOR = 0.01
#: Atoms of the pairs that are compared at a time.
_ATOMS = 1 << 17


@dataclass(frozen=True, slots=True)
class Work:
    """Pairs of samples of one root.

    Attributes
    ----------
    first, second : ndarray, shape (P,), int64
        Indices of the samples.
    teacher : ndarray, shape (P,), uint8
        Index of the teacher.
    energy, force_work, stress_work : ndarray, shape (P,), float64
        eV: E2 - E1, and what forces and stress say of it.
    n_atoms : ndarray, shape (P,)
    """

    first: Ints
    second: Ints
    teacher: Array
    energy: Array
    force_work: Array
    stress_work: Array
    n_atoms: Array

    @classmethod
    def merge(cls, parts: Sequence[Work]) -> Work:
        """Join pairs."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    @property
    def scale(self) -> Array:
        """By what a deviation is judged, eV."""
        return np.abs(self.force_work) + np.abs(self.stress_work) + FLOOR * self.n_atoms

    @property
    def ratio(self) -> Array:
        """How far the energies are from the work, relative to `scale`."""
        return np.asarray(np.abs(self.energy - self.force_work - self.stress_work) / self.scale)

    def suspects(self, n_samples: int, limit: float) -> Array:
        """Return the samples all of whose pairs, with some teacher, deviate by more than `limit`, shape (n_samples,)."""
        out = np.zeros(n_samples, bool)
        bad = self.ratio > limit
        for t in np.unique(self.teacher):
            mine = self.teacher == t
            both = np.concatenate([self.first[mine], self.second[mine]])
            n = np.bincount(both, minlength=n_samples)
            wrong = np.bincount(both, np.tile(bad[mine], 2), minlength=n_samples)
            out |= (n > 0) & (wrong == n)
        return out

    def slopes(self, teacher: int) -> dict[str, tuple[float, float]]:
        """Return slope and standard error of the energies against each work of a teacher; both should be 1.

        Pairs count by the inverse of their scale; ``"force"`` or ``"stress"`` is left out where fewer than ten pairs say
        something of it.
        """
        mine = self.teacher == teacher
        energy, scale = self.energy[mine], self.scale[mine]
        columns = {"force": self.force_work[mine] / scale, "stress": self.stress_work[mine] / scale}
        columns = {name: x for name, x in columns.items() if (np.abs(x) > 0.02).sum() >= 10}
        if not columns:
            return {}
        x, y = np.stack(list(columns.values()), axis=1), energy / scale
        normal = np.linalg.pinv(x.T @ x)
        slope = normal @ (x.T @ y)
        residual = y - x @ slope
        # Of White: residuals of different size.
        error = np.sqrt(np.maximum(np.diag(normal @ (x.T * residual**2) @ x @ normal), 0))
        return {name: (float(slope[i]), float(error[i])) for i, name in enumerate(columns)}


def nothing() -> Work:
    """Return no pairs."""
    index, real = np.zeros(0, np.int64), np.zeros(0)
    return Work(index, index, np.zeros(0, np.uint8), real, real, real, index)


def work(block: Block) -> Work:
    """Compare the samples of a block that have one root, the same atoms and the same periodicity."""
    if "forces" not in block or "energy" not in block or "root" not in block:
        return nothing()
    first, second = _neighbours(block)
    if not len(first):
        return nothing()
    atoms = np.cumsum(np.diff(block.starts)[first])
    cuts = [0, *np.unique(np.searchsorted(atoms, np.arange(_ATOMS, atoms[-1], _ATOMS)) + 1).tolist(), len(first)]
    parts = [nothing()]
    for low, high in itertools.pairwise(cuts):
        if high > low:
            parts += _compare(block, first[low:high], second[low:high])
    return Work.merge(parts)


def _neighbours(block: Block) -> tuple[Ints, Ints]:
    """Return pairs of samples: each with the next of its root, and the last with the first."""
    root, pbc, counts = block["root"], block["pbc"].astype(bool), np.diff(block.starts)
    order = np.argsort(root, kind="stable")
    begin = np.flatnonzero(np.concatenate([[True], root[order[1:]] != root[order[:-1]]]))
    size = np.diff(np.append(begin, len(order)))
    following = np.arange(1, len(order) + 1)
    following[begin + size - 1] = begin
    pair = np.repeat(size, size) > 1
    pair[begin[size == 2] + 1] = False  # two samples are one pair
    first, second = order[pair], order[following[pair]]
    fits = (counts[first] == counts[second]) & (pbc[first] == pbc[second]).all(axis=1)
    fits &= pbc[first].all(axis=1) | ~pbc[first].any(axis=1)
    return first[fits], second[fits]


def _compare(block: Block, first: Ints, second: Ints) -> list[Work]:
    counts = np.diff(block.starts)[first]
    one, two = row_indices(block.starts[first], counts), row_indices(block.starts[second], counts)
    begin = np.concatenate([[0], np.cumsum(counts)])[:-1]
    owner = np.repeat(np.arange(len(first)), counts)
    same = np.logical_and.reduceat(block["numbers"][one] == block["numbers"][two], begin)
    periodic = np.asarray(block["pbc"][first].astype(bool).all(axis=1))
    cell1, cell2 = (np.where(periodic[:, None, None], block["cell"][i], np.eye(3)) for i in (first, second))
    x1, x2 = block["positions"][one].astype(np.float64), block["positions"][two].astype(np.float64)
    flat = (np.abs(np.linalg.det(cell1)) < 1e-6) | (np.abs(np.linalg.det(cell2)) < 1e-6)
    flat |= ~np.isfinite(cell1).all(axis=(1, 2)) | ~np.isfinite(cell2).all(axis=(1, 2))
    cell1[flat], cell2[flat] = np.eye(3), np.eye(3)
    middle = 0.5 * (cell1 + cell2)
    flat |= np.abs(np.linalg.det(middle)) < 1e-6
    middle[flat] = np.eye(3)
    shift = np.einsum("ij,ijk->ik", x2, np.linalg.inv(cell2)[owner])
    shift -= np.einsum("ij,ijk->ik", x1, np.linalg.inv(cell1)[owner])
    shift -= np.where(periodic[owner, None], np.round(np.nan_to_num(shift)), 0)
    shift = np.einsum("ij,ijk->ik", shift, middle[owner])
    with np.errstate(invalid="ignore"):
        far = np.maximum.reduceat(np.abs(shift).max(axis=1), begin)
    strain = np.linalg.inv(middle) @ (cell2 - cell1)
    strain = 0.5 * (strain + strain.swapaxes(1, 2))
    usable = same & ~flat & (far <= MAX_DISPLACEMENT) & (np.abs(strain).max(axis=(1, 2)) < 0.2)
    volume1, volume2 = np.abs(np.linalg.det(cell1)), np.abs(np.linalg.det(cell2))
    out = []
    for t in range(block["energy"].shape[1]):
        energy = block["energy"][second, t] - block["energy"][first, t]
        mean = 0.5 * (block["forces"][one, t].astype(np.float64) + block["forces"][two, t])
        by_forces = -np.add.reduceat(np.einsum("ij,ij->i", mean, shift), begin)
        by_stress = np.zeros(len(first))
        if "stress" in block:
            half = 0.5 * (block["stress"][first, t].astype(float) * volume1[:, None])
            half += 0.5 * (block["stress"][second, t].astype(float) * volume2[:, None])
            voigt = np.stack([strain[:, a, b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))], axis=1)
            by_stress = np.where(periodic, (half * voigt * [1, 1, 1, 2, 2, 2]).sum(axis=1), 0.0)
        elif periodic.any():  # the work of an unknown stress is unknown, unless nothing was strained
            by_stress = np.where(periodic & (np.abs(strain).max(axis=(1, 2)) > 1e-6), np.nan, 0.0)
        good = usable & np.isfinite(energy) & np.isfinite(by_forces) & np.isfinite(by_stress)
        out.append(
            Work(
                first[good] + block.first, second[good] + block.first, np.full(good.sum(), t, np.uint8),
                energy[good], by_forces[good], by_stress[good], counts[good],
            )
        )  # fmt: skip
    return out
