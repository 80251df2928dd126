"""Figures of every sample, measured in one pass; a policy decides afterwards which of them fail a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.statistics.sketch import Sketch
from mlffstore.analysis.validation.bonds import Bonds, bonds
from mlffstore.analysis.validation.fingerprints import CUTOFF, compositions, fingerprints
from mlffstore.analysis.validation.label_figures import label_figures
from mlffstore.analysis.validation.valence import odd_bonds
from mlffstore.analysis.validation.work import smallest_ratios
from mlffstore.data.geometry import pairs, reduce_pairs, too_flat
from mlffstore.data.ragged import reduce_rows
from mlffstore.data.schema import LABELS, STANDARD
from mlffstore.lazy.inputs import altered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

#: Variables of the dataset that are read.
COLUMNS = (*(name for name in STANDARD if name not in ("source",)), "split", *LABELS)
#: Volume per atom, angstrom^3, below which no pairs are looked for; metals in a giant planet have 1.
_CROWDED = 0.05


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of S samples.

    Attributes
    ----------
    samples : dict of str to ndarray
        Per sample, shape (S,), or (S, T) for T teachers.
    elements, counts, n_elements : ndarray
        Composition: for each sample `n_elements` atomic numbers and how many atoms of each, one after another.
    bonds : Bonds
        Sums over the bonds of molecules.
    forces : list of Sketch
        Norms of the forces of each teacher.
    variables : frozenset of str
        Variables that the dataset has.
    """

    samples: dict[str, Array]
    elements: Array
    counts: Array
    n_elements: Array
    bonds: Bonds
    forces: list[Sketch]
    variables: frozenset[str]


def measure(block: Block) -> Measured:
    """Measure a block."""
    numbers, starts, pbc = block["numbers"], block.starts, block["pbc"].astype(bool)
    n_atoms, cell = np.diff(starts), block["cell"].astype(np.float64)
    periodic, molecule = np.asarray(pbc.all(axis=1)), np.asarray(~pbc.any(axis=1))
    out: dict[str, Array] = {"n_atoms": n_atoms.astype(np.int32), "periodic": periodic, "molecule": molecule}
    out["finite"] = reduce_rows(np.logical_and, np.asarray(np.isfinite(block["positions"]).all(axis=1)), starts)
    out["finite"] &= np.isfinite(cell).all(axis=(1, 2))
    out |= _cells(cell, pbc, n_atoms)
    # Atoms packed a hundred times as densely as any crystal, as in a cell in nm, have more neighbours than there is memory.
    crowded = out["volume_per_atom"] < _CROWDED
    out["too_flat"] = too_flat(cell, pbc, CUTOFF) | crowded
    neighbours = pairs(starts, block["positions"], np.where(crowded[:, None, None], 0.0, cell), pbc, CUTOFF)
    radius = _radii()[numbers]
    contact = neighbours.distance / (radius[neighbours.first] + radius[neighbours.second])
    out["d_min"] = reduce_pairs(neighbours.distance, neighbours.counts, np.inf).astype(np.float32)
    out |= _electrons(block, pbc)
    carbon = reduce_rows(np.logical_or, numbers == 6, starts) & molecule & (n_atoms > 1)
    out["organic"] = carbon
    out["hydrogen_free"] = carbon & ~reduce_rows(np.logical_or, numbers == 1, starts)
    out |= odd_bonds(block, neighbours, contact, molecule)
    composition = compositions(numbers, n_atoms)
    out |= fingerprints(block, neighbours, contact, radius, periodic, molecule, composition)
    for name in ("content_hash", "root", "split", "sampler"):
        if name in block:
            out[name] = block[name]
    out["altered"] = altered(block.columns)
    labels, forces = label_figures(block, molecule)
    out |= labels
    out["work_ratio"] = smallest_ratios(block)
    stiffness = bonds(block, neighbours, contact, radius, molecule)
    return Measured(out, *composition, stiffness, forces, frozenset(block.columns))


def merge(parts: Sequence[Measured]) -> Measured:
    """Join the figures of blocks in order."""
    first = parts[0]
    return Measured(
        {name: np.concatenate([part.samples[name] for part in parts]) for name in first.samples},
        np.concatenate([part.elements for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.n_elements for part in parts]),
        Bonds.merge([part.bonds for part in parts]),
        [Sketch.merge(several) for several in zip(*(part.forces for part in parts), strict=True)],
        first.variables,
    )


def _radii() -> Array:
    from ase.data import covalent_radii

    return np.asarray(np.pad(covalent_radii, (0, 256 - len(covalent_radii)), constant_values=1.5))


def _cells(cell: Array, pbc: Array, n_atoms: Array) -> dict[str, Array]:
    """Return volume (its sign is the handedness), angles and volume per atom; NaN where they do not apply."""
    full = pbc.all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        volume = np.linalg.det(cell)
        length = np.linalg.norm(cell, axis=2)
        cosine = np.stack(
            [(cell[:, a] * cell[:, b]).sum(1) / (length[:, a] * length[:, b]) for a, b in ((1, 2), (0, 2), (0, 1))], 1
        )
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    missing = np.where(full, 0.0, np.nan)
    return {
        "volume": (volume + missing).astype(np.float32),
        "angle_min": (angle.min(axis=1) + missing).astype(np.float32),
        "angle_max": (angle.max(axis=1) + missing).astype(np.float32),
        "volume_per_atom": (np.abs(volume) / n_atoms + missing).astype(np.float32),
    }


def _electrons(block: Block, pbc: Array) -> dict[str, Array]:
    """Return whether the multiplicity fits the number of electrons, and a number for charge and multiplicity.

    The multiplicity of a crystal need not fit: its cell is a choice.
    """
    if "charge" not in block or "multiplicity" not in block:
        return {"parity": np.ones(len(block), bool), "state": np.zeros(len(block), np.uint64)}
    electrons = np.add.reduceat(block["numbers"].astype(np.int64), block.starts[:-1]) - block["charge"]
    multiplicity = block["multiplicity"].astype(np.int64)
    fits = ((electrons + multiplicity) % 2 == 1) & (multiplicity >= 1) & (multiplicity <= electrons + 1)
    state = (block["charge"].astype(np.int64) << 16) + multiplicity
    return {"parity": fits | pbc.any(axis=1), "state": state.view(np.uint64)}
