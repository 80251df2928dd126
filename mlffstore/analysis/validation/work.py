"""Energies against the work of forces and stress, from the data alone.

Two structures of one root differ by displacements dx and a strain e. To second order in them, for every model,

    E2 - E1  =  -(F1 . dx1 + F2 . dx2)/2  +  (V1 s1 : e1 + V2 s2 : e2)/2

(the trapezoid rule along the line between them in fractional coordinates and cell; dx1 and e1 are displacement and strain as
the first structure measures them, s is the stress, tension positive). One wrong unit or sign, a shuffled force array,
energies of two samples exchanged: each of them violates this relation, and no teacher is needed to see it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.ragged import row_indices
from mlffstore.data.voigt import strain_to_voigt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

#: Angstrom. For displacements up to this the trapezoid rule holds well enough: between strained, rattled crystals of CHGNet
#: and EMT the error was below `Work.scale`; between frames of molecular dynamics 1 angstrom apart it was twice that.
MAX_DISPLACEMENT = 0.5
#: eV per atom, added to the scale by which a deviation is judged: near a minimum the work vanishes.
FLOOR = 0.01
#: A slope is judged by pairs in which its work is this many times larger than the other, whose error would hide it.
DOMINANT = 2.0
#: Pairs below which there is no slope.
_FEWEST = 10
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
        """By what a deviation is judged, eV: the error that the trapezoid rule was seen to make, and a margin."""
        return 0.5 * np.abs(self.force_work) + np.abs(self.stress_work) + FLOOR * self.n_atoms

    @property
    def ratio(self) -> Array:
        """How far the energies are from the work, relative to `scale`."""
        return np.asarray(np.abs(self.energy - self.force_work - self.stress_work) / self.scale)

    def suspects(self, n_samples: int, limit: float) -> Array:
        """Return the samples all of whose pairs, with some teacher, deviate by more than `limit`, shape (n_samples,)."""
        out = np.zeros(n_samples, bool)
        bad = self.ratio > limit
        for t in np.unique(self.teacher):
            selected = self.teacher == t
            both = np.concatenate([self.first[selected], self.second[selected]])
            n = np.bincount(both, minlength=n_samples)
            wrong = np.bincount(both, np.tile(bad[selected], 2), minlength=n_samples)
            out |= (n > 0) & (wrong == n)
        return out

    def slopes(self, teacher: int) -> dict[str, tuple[float, float]]:
        """Return slope and standard error of the energies against each work of a teacher; both should be 1.

        Each from the pairs in which its work is at least `DOMINANT` times the other, weighted by the inverse of their scale;
        ``"force"`` or ``"stress"`` is left out where these are fewer than ten.
        """
        selected = self.teacher == teacher
        energy, scale = self.energy[selected], self.scale[selected]
        works = {"force": self.force_work[selected], "stress": self.stress_work[selected]}
        out = {}
        for name, other in (("force", "stress"), ("stress", "force")):
            chosen = (np.abs(works[name]) > DOMINANT * np.abs(works[other])) & (np.abs(works[name]) > 0.02 * scale)
            if chosen.sum() < _FEWEST:
                continue
            x, y = works[name][chosen] / scale[chosen], (energy - works[other])[chosen] / scale[chosen]
            slope = float((x * y).sum() / (x * x).sum())
            # Of White: residuals of different size.
            error = float(np.sqrt((x**2 * (y - slope * x) ** 2).sum()) / (x * x).sum())
            out[name] = (slope, error)
        return out


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
    inverse1, inverse2 = np.linalg.inv(cell1), np.linalg.inv(cell2)
    shift = np.einsum("ij,ijk->ik", x2, inverse2[owner]) - np.einsum("ij,ijk->ik", x1, inverse1[owner])
    shift -= np.where(periodic[owner, None], np.round(np.nan_to_num(shift)), 0)
    shift1, shift2 = (np.einsum("ij,ijk->ik", shift, cell[owner]) for cell in (cell1, cell2))
    with np.errstate(invalid="ignore"):
        far = np.maximum.reduceat(np.abs(shift1).max(axis=1), begin)
    strain1, strain2 = (strain_to_voigt(inverse @ (cell2 - cell1)) for inverse in (inverse1, inverse2))
    strained = np.abs(strain1).max(axis=1)
    usable = same & ~flat & (far <= MAX_DISPLACEMENT) & (strained < 0.4)
    volume1, volume2 = np.abs(np.linalg.det(cell1)), np.abs(np.linalg.det(cell2))
    out = []
    for t in range(block["energy"].shape[1]):
        energy = block["energy"][second, t] - block["energy"][first, t]
        power = np.einsum("ij,ij->i", block["forces"][one, t].astype(np.float64), shift1)
        power += np.einsum("ij,ij->i", block["forces"][two, t].astype(np.float64), shift2)
        by_forces = -0.5 * np.add.reduceat(power, begin)
        by_stress = np.zeros(len(first))
        if "stress" in block:
            by_stress = volume1 * (block["stress"][first, t].astype(np.float64) * strain1).sum(axis=1)
            by_stress += volume2 * (block["stress"][second, t].astype(np.float64) * strain2).sum(axis=1)
            by_stress = np.where(periodic, 0.5 * by_stress, 0.0)
        elif periodic.any():  # the work of an unknown stress is unknown, unless nothing was strained
            by_stress = np.where(periodic & (strained > 1e-6), np.nan, 0.0)
        good = usable & np.isfinite(energy) & np.isfinite(by_forces) & np.isfinite(by_stress)
        out.append(
            Work(
                first[good] + block.first, second[good] + block.first, np.full(good.sum(), t, np.uint8),
                energy[good], by_forces[good], by_stress[good], counts[good],
            )
        )  # fmt: skip
    return out
