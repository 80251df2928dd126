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

from mlffstore.data.geometry import invertible_cells
from mlffstore.data.ragged import row_indices
from mlffstore.data.voigt import strain_to_voigt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

#: Angstrom. For displacements up to this the trapezoid rule holds well enough to judge a single pair: between strained,
#: rattled crystals of CHGNet and EMT the error was below `Work.scale`; between frames of molecular dynamics 1 angstrom apart
#: it was twice that. A slope through many pairs can use those too.
MAX_DISPLACEMENT, FARTHEST = 0.5, 1.0
#: Components of a strain up to which two cells are compared.
_MAX_STRAIN = 0.4
#: Strains below this are those of one cell, rounded.
_UNSTRAINED = 1e-6
#: eV per atom, added to the scale by which a deviation is judged: near a minimum the work vanishes.
FLOOR = 0.01
#: Share of the curvature in that scale. The rule is exact for harmonic energies, and in hot water (forces of 4 eV/angstrom
#: rms, up to 45) it missed at most a tenth of the curvature in 99 % of the pairs, 0.01 of it in half of them.
ANHARMONIC = 0.05
#: Atoms of the pairs that are compared at a time.
_ATOMS = 1 << 17


@dataclass(frozen=True, slots=True)
class Work:
    """Pairs of samples with the same atoms in the same order.

    Attributes
    ----------
    first, second : ndarray, shape (P,), int64
        Indices of the samples.
    teacher : ndarray, shape (P,), uint8
        Index of the teacher.
    energy, force_work : ndarray, shape (P,), float64
        eV: E2 - E1, and what the forces say of it.
    normal_work, shear_work : ndarray, shape (P,), float64
        eV: what the stress says of it, by the components xx yy zz and by yz xz xy.
    normal_works : ndarray, shape (P, 3, 3), float64
        eV: what each of the components xx yy zz (rows) would say of it if it belonged to each strain xx yy zz (columns). The
        diagonal adds up to `normal_work`.
    curvature : ndarray, shape (P,), float64
        eV: -(F2 - F1) . dx, the displacement times how much the forces pull back.
    stress_curvature : ndarray, shape (P,), float64
        eV: V2 s2 : e2 - V1 s1 : e1, the strain times how much the stress pulls back.
    dilation : ndarray, shape (P,), float64
        ln(V2/V1) of crystals, 0 of molecules.
    square : ndarray, shape (P,), float64
        angstrom^2: the sum of the squares of the displacements.
    far : ndarray, shape (P,), float64
        angstrom: the largest displacement of an atom.
    n_atoms : ndarray, shape (P,)
    """

    first: Ints
    second: Ints
    teacher: Array
    energy: Array
    force_work: Array
    normal_work: Array
    shear_work: Array
    normal_works: Array
    curvature: Array
    stress_curvature: Array
    dilation: Array
    square: Array
    far: Array
    n_atoms: Array

    @classmethod
    def merge(cls, parts: Sequence[Work]) -> Work:
        """Join pairs."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def select(self, chosen: Array) -> Work:
        """Return some of the pairs."""
        return Work(*(getattr(self, name)[chosen] for name in self.__slots__))

    @property
    def stress_work(self) -> Array:
        """What the stress says of the difference of the energies, eV."""
        return np.asarray(self.normal_work + self.shear_work)

    @property
    def scale(self) -> Array:
        """By what a deviation is judged, eV: the error that the trapezoid rule was seen to make, and a margin."""
        least = FLOOR * self.n_atoms + ANHARMONIC * np.abs(self.curvature)
        return np.asarray(0.5 * np.abs(self.force_work) + np.abs(self.stress_work) + least)

    @property
    def ratio(self) -> Array:
        """How far the energies are from the work, relative to `scale`."""
        return np.asarray(np.abs(self.energy - self.force_work - self.stress_work) / self.scale)


def nothing() -> Work:
    """Return no pairs."""
    index, real = np.zeros(0, np.int64), np.zeros(0)
    works = np.zeros((0, 3, 3))
    return Work(index, index, np.zeros(0, np.uint8), real, real, real, real, works, real, real, real, real, real, index)


def smallest_ratios(block: Block) -> Array:
    """Return for each sample and teacher the smallest deviation from the work among its pairs, shape (S, T), float32.

    Its pairs are those with the next and the previous sample of its root, up to `MAX_DISPLACEMENT` apart: a sample is
    suspicious only if all of them deviate. NaN without a pair.
    """
    out = np.full(block.energy.shape, np.inf, np.float32)
    if "forces" in block and "energy" in block and "root" in block:
        pairs = compare(block, *_of_one_root(block))
        pairs = pairs.select(pairs.far <= MAX_DISPLACEMENT)
        ratio = pairs.ratio.astype(np.float32)
        for index in (pairs.first, pairs.second):
            np.minimum.at(out, (index - block.first, pairs.teacher), ratio)
    out[np.isinf(out)] = np.nan
    return out


def compare(block: Block, first: Ints, second: Ints) -> Work:
    """Return energies and works of pairs of samples of a block with equal numbers of atoms.

    Pairs of other atoms, periodicity, charge or multiplicity, of cells without a volume, and farther apart than `FARTHEST`
    are left out. Molecules are shifted and turned onto one another first (Kabsch, Acta Cryst. A32, 922 (1976)), samples
    that are periodic in some direction only shifted. Slabs and wires have no stress: pairs of them count if their cells are
    equal.

    Parameters
    ----------
    block : Block
        With forces and energies.
    first, second : ndarray, shape (P,), int64
        Positions in the block, as `Work` will have them.
    """
    if not len(first):
        return nothing()
    atoms = np.cumsum(np.diff(block.starts)[first])
    cuts = [0, *np.unique(np.searchsorted(atoms, np.arange(_ATOMS, atoms[-1], _ATOMS)) + 1).tolist(), len(first)]
    parts = [nothing()]
    for low, high in itertools.pairwise(cuts):
        if high > low:
            parts += _compare(block, first[low:high], second[low:high])
    return Work.merge(parts)


def _of_one_root(block: Block) -> tuple[Ints, Ints]:
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
    fits &= _same_state(block, first, second)
    return first[fits], second[fits]


def _same_state(block: Block, first: Ints, second: Ints) -> Array:
    """Return which pairs have one charge and one multiplicity: others lie on two energy surfaces."""
    same = np.ones(len(first), bool)
    for name in ("charge", "multiplicity"):
        if name in block:
            same &= block[name][first] == block[name][second]
    return same


def _compare(block: Block, first: Ints, second: Ints) -> list[Work]:
    counts = np.diff(block.starts)[first]
    one, two = row_indices(block.starts[first], counts), row_indices(block.starts[second], counts)
    begin = np.concatenate([[0], np.cumsum(counts)])[:-1]
    owner = np.repeat(np.arange(len(first)), counts)
    same = np.logical_and.reduceat(block["numbers"][one] == block["numbers"][two], begin)
    pbc = block["pbc"][first].astype(bool)
    same &= (pbc == block["pbc"][second].astype(bool)).all(axis=1) & _same_state(block, first, second)
    periodic, extended = np.asarray(pbc.all(axis=1)), np.asarray(pbc.any(axis=1))
    cell1, cell2 = (invertible_cells(block["cell"][i], pbc) for i in (first, second))
    x1, x2 = (block["positions"][rows].astype(np.float64) for rows in (one, two))
    finite = np.logical_and.reduceat(np.isfinite(x1).all(axis=1) & np.isfinite(x2).all(axis=1), begin)
    x1[~finite[owner]], x2[~finite[owner]] = 0.0, 0.0
    flat = (np.abs(np.linalg.det(cell1)) < 1e-6) | (np.abs(np.linalg.det(cell2)) < 1e-6)
    flat |= ~np.isfinite(cell1).all(axis=(1, 2)) | ~np.isfinite(cell2).all(axis=(1, 2))
    cell1[flat], cell2[flat] = np.eye(3), np.eye(3)
    inverse1, inverse2 = np.linalg.inv(cell1), np.linalg.inv(cell2)

    def mean(rows: Array) -> Array:
        return np.asarray((np.add.reduceat(rows, begin, axis=0) / counts[:, None])[owner])

    # Molecules: in the frame of the first. Crystals: along the straight line in fractional coordinates and cell.
    turn = _rotations(x1 - mean(x1), x2 - mean(x2), begin, ~extended)
    x2 = np.einsum("ij,ijk->ik", x2, turn[owner])
    shift = np.einsum("ij,ijk->ik", x2, inverse2[owner]) - np.einsum("ij,ijk->ik", x1, inverse1[owner])
    shift -= shift[begin][owner]  # a crystal that was shifted as a whole is the same
    shift -= np.where(pbc[owner], np.round(shift), 0)
    shift -= mean(shift)
    shift1, shift2 = (np.einsum("ij,ijk->ik", shift, cell[owner]) for cell in (cell1, cell2))
    far = np.sqrt(np.maximum.reduceat(np.einsum("ij,ij->i", shift1, shift1), begin))
    square = np.add.reduceat(np.einsum("ij,ij->i", shift1, shift1), begin)
    strain1, strain2 = (strain_to_voigt(inverse @ (cell2 - cell1)) for inverse in (inverse1, inverse2))
    strained = np.abs(strain1).max(axis=1)
    usable = same & finite & ~flat & (far <= FARTHEST) & (strained < _MAX_STRAIN)
    volume1, volume2 = np.abs(np.linalg.det(cell1)), np.abs(np.linalg.det(cell2))
    dilation = np.log(volume2 / volume1)
    out = []
    for t in range(block["energy"].shape[1]):
        energy = block["energy"][second, t] - block["energy"][first, t]
        force1 = block["forces"][one, t].astype(np.float64)
        force2 = np.einsum("ij,ijk->ik", block["forces"][two, t].astype(np.float64), turn[owner])
        power1, power2 = np.einsum("ij,ij->i", force1, shift1), np.einsum("ij,ij->i", force2, shift2)
        by_forces = -0.5 * np.add.reduceat(power1 + power2, begin)
        by_stress, pull = np.zeros((2, len(first))), np.zeros(len(first))
        works = np.zeros((len(first), 3, 3))
        if "stress" in block:
            work1 = volume1[:, None] * block["stress"][first, t].astype(np.float64) * strain1
            work2 = volume2[:, None] * block["stress"][second, t].astype(np.float64) * strain2
            both = 0.5 * (work1 + work2)
            for volume, end, strain in ((volume1, first, strain1), (volume2, second, strain2)):
                normal = block["stress"][end, t, :3].astype(np.float64)
                works += 0.5 * volume[:, None, None] * normal[:, :, None] * strain[:, None, :3]
            works = np.where(periodic[:, None, None], np.nan_to_num(works), 0.0)
            by_stress = np.where(periodic, np.stack([both[:, :3].sum(axis=1), both[:, 3:].sum(axis=1)]), 0.0)
            pull = np.nan_to_num(np.where(periodic, (work2 - work1).sum(axis=1), 0.0))
        if extended.any():  # the work of an unknown stress is unknown, unless nothing was strained
            unknown = extended & (strained > _UNSTRAINED)
            by_stress = np.where(unknown & (~periodic | ("stress" not in block)), np.nan, by_stress)
            by_stress = np.where(~unknown & np.isnan(by_stress), 0.0, by_stress)
        good = usable & np.isfinite(energy) & np.isfinite(by_forces) & np.isfinite(by_stress).all(axis=0)
        out.append(
            Work(
                first[good] + block.first, second[good] + block.first, np.full(good.sum(), t, np.uint8), energy[good],
                by_forces[good], by_stress[0, good], by_stress[1, good], works[good],
                -np.add.reduceat(power2 - power1, begin)[good], pull[good], dilation[good], square[good], far[good],
                counts[good],
            )
        )  # fmt: skip
    return out


def _rotations(x1: Array, x2: Array, begin: Ints, wanted: Array) -> Array:
    """Return the rotation (from the right) that lays each second structure onto the first, shape (P, 3, 3)."""
    covariance = np.add.reduceat(np.einsum("ij,ik->ijk", x2, x1), begin)
    covariance[~wanted] = np.eye(3)
    u, _, vt = np.linalg.svd(covariance)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]  # a rotation and no reflection
    return np.asarray(np.where(wanted[:, None, None], u @ vt, np.eye(3)))
