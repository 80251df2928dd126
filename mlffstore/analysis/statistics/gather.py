"""Statistics of a block of samples, which merge exactly for every division of the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.statistics.references import N_ELEMENTS, Rows
from mlffstore.analysis.statistics.sketch import Moments, Sketch
from mlffstore.data.geometry import neighbour_counts
from mlffstore.data.ragged import reduce_rows
from mlffstore.data.schema import LABELS
from mlffstore.data.splits import SPLITS
from mlffstore.lazy.inputs import altered
from mlffstore.lazy.reductions import count_elements, known_elements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

#: Angstrom: neighbours are counted within these.
CUTOFFS = (4.0, 5.0, 6.0)
#: Variables of the dataset that are read.
COLUMNS = ("numbers", "positions", "cell", "pbc", "charge", "split", "sampler", *LABELS)
#: Angstrom: an atom whose images are farther away than this is isolated.
_VACUUM = 6.0


@dataclass(frozen=True, slots=True)
class TeacherPart:
    """The labels of one teacher.

    Attributes
    ----------
    labelled, with_energy : ndarray, shape (3,)
        Samples with an energy, forces or a stress, and those with an energy, by split.
    energy : Moments
        Energy per atom, eV, by split.
    energy_by_sampler : Moments
    energy_sketch : Sketch
        Energy per atom.
    component : Moments
        Components of the forces, eV/angstrom, by split.
    force : Moments
        Norms of the forces by split; `force_by_element` and `force_by_sampler` likewise.
    axis : Moments
        Components by direction x, y, z.
    force_sketch : Sketch
    stress : Moments
        The six components, eV/angstrom^3.
    pressure : Sketch
        Minus the mean of the diagonal of the stress, eV/angstrom^3.
    train, train_per_atom : Rows
        Energies of the split train for the energies of the elements, and the same per atom.
    every, every_per_atom : Rows
        Likewise of all samples.
    train_component, train_force_by_element : Moments
        Components, and components by element, of the split train.
    train_stress : Moments
        All components of the stress of the split train together.
    samples_with : ndarray, shape (3, 119)
        Labelled samples that contain each element, by split.
    isolated : Moments
        Energies of neutral isolated atoms by element, eV.
    train_atoms_of : ndarray, shape (119,)
        Atoms of each element in the labelled samples of the split train.
    train_neighbours : ndarray, shape (3,)
        Neighbours within each of `CUTOFFS` of these atoms.
    """

    labelled: Array
    with_energy: Array
    energy: Moments
    energy_by_sampler: Moments
    energy_sketch: Sketch
    component: Moments
    axis: Moments
    force: Moments
    force_by_element: Moments
    force_by_sampler: Moments
    force_sketch: Sketch
    stress: Moments
    pressure: Sketch
    train: Rows
    train_per_atom: Rows
    every: Rows
    every_per_atom: Rows
    train_component: Moments
    train_force_by_element: Moments
    train_stress: Moments
    samples_with: Array
    isolated: Moments
    train_atoms_of: Array
    train_neighbours: Array


@dataclass(frozen=True, slots=True)
class Part:
    """Statistics of some samples.

    Attributes
    ----------
    samples, atoms : ndarray, shape (3,)
        By split.
    periodic : int
        Samples that are periodic in three directions; `partly` in one or two.
    by_sampler : ndarray
        Samples of each sampler.
    size : Sketch
        Number of atoms per sample.
    volume : Sketch
        Volume per atom of crystals, angstrom^3.
    atoms_of, samples_with : ndarray, shape (119,)
        Atoms of each element, and samples that contain it.
    neighbours : ndarray, shape (3,)
        Neighbours within each of `CUTOFFS` of all atoms.
    altered : int
        Samples that are not the structures which their hashes name.
    teachers : list of TeacherPart
    """

    samples: Array
    atoms: Array
    periodic: int
    partly: int
    by_sampler: Array
    size: Sketch
    volume: Sketch
    atoms_of: Array
    samples_with: Array
    neighbours: Array
    altered: int
    teachers: list[TeacherPart]

    @classmethod
    def merge(cls, parts: Sequence[Part]) -> Part:
        """Return the statistics of all samples together."""
        return _merge(cls, parts)  # type: ignore[no-any-return]


class Gather:
    """Makes a `Part` of a block.

    Parameters
    ----------
    n_samplers : int
        Length of the vocabulary of samplers.
    neighbours : bool
        Whether neighbours are counted, which takes most of the time.
    """

    def __init__(self, n_samplers: int, neighbours: bool) -> None:
        self.n_samplers, self.neighbours = max(n_samplers, 1), neighbours

    def __call__(self, block: Block) -> Part:
        """Return the statistics of a block."""
        n, n_atoms = len(block), np.diff(block.starts)
        split = block["split"] if "split" in block else np.zeros(n, np.uint8)
        sampler = block["sampler"] if "sampler" in block else np.zeros(n, np.uint32)
        pbc = block["pbc"].astype(bool)
        owner = np.repeat(np.arange(n), n_atoms)
        composition = count_elements(n_atoms, block["numbers"])
        full = pbc.all(axis=1)
        volume = np.abs(np.linalg.det(block["cell"][full].astype(np.float64))) / n_atoms[full]
        neighbours = self._neighbours(block)
        return Part(
            samples=np.bincount(split, minlength=3),
            atoms=np.bincount(split, n_atoms, minlength=3).astype(np.int64),
            periodic=int(full.sum()),
            partly=int((pbc.any(axis=1) & ~full).sum()),
            by_sampler=np.bincount(sampler, minlength=self.n_samplers),
            size=Sketch.of(n_atoms),
            volume=Sketch.of(volume),
            atoms_of=composition.sum(axis=0),
            samples_with=(composition > 0).sum(axis=0),
            neighbours=neighbours.sum(axis=0),
            altered=int(altered(block.columns).sum()),
            teachers=[
                self._teacher(block, t, split, sampler, owner, composition, neighbours)
                for t in range(block.energy.shape[1])
            ],
        )

    def _neighbours(self, block: Block) -> Array:
        """Return the neighbours of all atoms of each sample within each cutoff, shape (S, 3)."""
        if not self.neighbours:
            return np.zeros((len(block), len(CUTOFFS)), np.int64)
        cell, pbc = block["cell"].astype(np.float64), block["pbc"].astype(bool)
        return neighbour_counts(block.starts, block["positions"], cell, pbc, CUTOFFS)

    def _teacher(
        self, block: Block, t: int, split: Array, sampler: Array, owner: Array, composition: Array, neighbours: Array
    ) -> TeacherPart:
        n_atoms, numbers = np.diff(block.starts), known_elements(block["numbers"])
        energy = block.energy[:, t].astype(np.float64)
        per_atom, train = energy / n_atoms, (split == 0) & np.isfinite(energy)
        alone = _isolated(block)
        shares = composition / n_atoms[:, None]
        f = block["forces"][:, t].astype(np.float64) if "forces" in block else np.zeros((0, 3))
        atoms = slice(None) if len(f) else slice(0)
        size = np.sqrt(np.einsum("ij,ij->i", f, f))
        atom_split, atom_number = split[owner][atoms], numbers[atoms]
        three = np.repeat(atom_split, 3)
        in_train = atom_split == 0
        stress = block["stress"][:, t].astype(np.float64) if "stress" in block else np.zeros((0, 6))
        return TeacherPart(
            labelled=np.bincount(split[_labelled(block, t)], minlength=3),
            with_energy=np.bincount(split[np.isfinite(energy)], minlength=3),
            energy=Moments.of(per_atom, split, len(SPLITS)),
            energy_by_sampler=Moments.of(per_atom, sampler, self.n_samplers),
            energy_sketch=Sketch.of(per_atom),
            component=Moments.of(f, three, len(SPLITS)),
            axis=Moments.of(f, np.tile(np.arange(3), len(f)), 3),
            force=Moments.of(size, atom_split, len(SPLITS)),
            force_by_element=Moments.of(size, atom_number, N_ELEMENTS),
            force_by_sampler=Moments.of(size, sampler[owner][atoms], self.n_samplers),
            force_sketch=Sketch.of(size),
            stress=Moments.of(stress, np.tile(np.arange(6), len(stress)), 6),
            pressure=Sketch.of(-stress[:, :3].mean(axis=1)),
            train=Rows.of(composition[train], energy[train]),
            train_per_atom=Rows.of(shares[train], per_atom[train]),
            every=Rows.of(composition, energy),
            every_per_atom=Rows.of(shares, per_atom),
            train_component=Moments.of(f[in_train]),
            train_force_by_element=Moments.of(f[in_train], np.repeat(atom_number[in_train], 3), N_ELEMENTS),
            train_stress=Moments.of(stress[split[: len(stress)] == 0]),
            samples_with=np.stack(
                [(composition[np.isfinite(energy) & (split == i)] > 0).sum(axis=0) for i in range(len(SPLITS))]
            ),
            isolated=Moments.of(energy[alone], numbers[block.starts[:-1][alone]], N_ELEMENTS),
            train_atoms_of=composition[train].sum(axis=0),
            train_neighbours=neighbours[train].sum(axis=0),
        )


def _labelled(block: Block, t: int) -> Array:
    """Return which samples have an energy, forces or a stress of a teacher, shape (S,), bool."""
    has = np.isfinite(block.energy[:, t])
    if "forces" in block:
        has |= reduce_rows(np.logical_and, np.asarray(np.isfinite(block["forces"][:, t]).all(axis=1)), block.starts)
    if "stress" in block:
        has |= np.isfinite(block["stress"][:, t]).all(axis=1)
    return np.asarray(has)


def _isolated(block: Block) -> Array:
    """Return which samples are one neutral atom without images near it, shape (S,), bool."""
    from ase.geometry import minkowski_reduce

    single = np.diff(block.starts) == 1
    if "charge" in block:
        single &= block["charge"] == 0
    cell, pbc = block["cell"].astype(np.float64), block["pbc"].astype(bool)
    single &= np.where(pbc, np.linalg.norm(cell, axis=2), np.inf).min(axis=1) > _VACUUM
    # Long vectors of an oblique cell may have a short sum: the shortest vector of a reduced cell is the nearest image.
    for i in np.flatnonzero(single & pbc.any(axis=1)):
        reduced, _ = minkowski_reduce(cell[i], pbc[i])
        single[i] = np.linalg.norm(reduced[pbc[i]], axis=1).min() > _VACUUM
    return np.asarray(single)


def _merge(kind: Any, parts: Sequence[Any]) -> Any:
    """Merge dataclasses field by field: counts add up, everything else knows how to."""
    out = {}
    for name in kind.__slots__:
        several = [getattr(part, name) for part in parts]
        first = several[0]
        if isinstance(first, list):
            out[name] = [_merge(TeacherPart, one) for one in zip(*several, strict=True)]
        elif hasattr(first, "merge"):
            out[name] = type(first).merge(several)
        else:
            out[name] = np.sum(several, axis=0) if isinstance(first, np.ndarray) else sum(several)
    return kind(**out)
