"""Figures of every sample, measured in one pass; a policy decides afterwards which of them fail a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.statistics.sketch import Sketch
from mlffstore.analysis.validation.work import Work, work
from mlffstore.data import hydrogens
from mlffstore.data.geometry import Pairs, pairs, reduce_pairs, too_flat
from mlffstore.data.hashing import GOLDEN, mix
from mlffstore.data.ragged import reduce_rows
from mlffstore.data.schema import LABELS, STANDARD
from mlffstore.lazy.inputs import altered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

#: Angstrom: 0.6 of the sum of the two largest covalent radii (francium), and every bond.
CUTOFF = 3.2
#: Bonds are shorter than this multiple of the sum of covalent radii.
_BOND = 1.25
#: Rounds of neighbours that a molecular graph is told apart by.
_ROUNDS = 4
#: Variables of the dataset that are read.
COLUMNS = (*(name for name in STANDARD if name not in ("source",)), "split", *LABELS)


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of S samples.

    Attributes
    ----------
    samples : dict of str to ndarray
        Per sample, shape (S,), or (S, T) for T teachers.
    elements, counts, n_elements : ndarray
        Composition: for each sample `n_elements` atomic numbers and how many atoms of each, one after another.
    work : Work
        Energy differences of samples of one root and what the forces and stress say of them.
    forces : list of Sketch
        Norms of the forces of each teacher.
    variables : frozenset of str
        Variables that the dataset has.
    """

    samples: dict[str, Array]
    elements: Array
    counts: Array
    n_elements: Array
    work: Work
    forces: list[Sketch]
    variables: frozenset[str]


def measure(block: Block) -> Measured:
    """Measure a block."""
    numbers, starts, pbc = block["numbers"], block.starts, block["pbc"].astype(bool)
    n_atoms, cell = np.diff(starts), block["cell"].astype(np.float64)
    out: dict[str, Array] = {"n_atoms": n_atoms.astype(np.int32), "periodic": np.asarray(pbc.all(axis=1))}
    out["finite"] = reduce_rows(np.logical_and, np.asarray(np.isfinite(block["positions"]).all(axis=1)), starts)
    out["finite"] &= np.isfinite(cell).all(axis=(1, 2))
    neighbours = pairs(starts, block["positions"], cell, pbc, CUTOFF)
    radius = _radii()[numbers]
    contact = neighbours.distance / (radius[neighbours.first] + radius[neighbours.second])
    out["d_min"] = reduce_pairs(neighbours.distance, neighbours.counts, np.inf).astype(np.float32)
    out["contact"] = reduce_pairs(contact, neighbours.counts, np.inf).astype(np.float32)
    out |= _cells(cell, pbc, n_atoms)
    out["too_flat"] = too_flat(cell, pbc, CUTOFF)
    out |= _electrons(block, pbc)
    molecule = np.asarray(~pbc.any(axis=1))
    carbon = reduce_rows(np.logical_or, numbers == 6, starts) & molecule
    out["organic"] = carbon
    out["hydrogen_free"] = carbon & ~reduce_rows(np.logical_or, numbers == 1, starts)
    out["bare"] = _bare(block, neighbours, out["hydrogen_free"])
    out |= _fingerprints(block, neighbours, contact, molecule)
    for name in ("content_hash", "root", "split", "sampler"):
        if name in block:
            out[name] = block[name]
    out["altered"] = altered(block.columns)
    labels, forces = _labels(block, molecule)
    return Measured(out | labels, *_compositions(numbers, n_atoms), work(block), forces, frozenset(block.columns))


def merge(parts: Sequence[Measured]) -> Measured:
    """Join the figures of blocks in order."""
    first = parts[0]
    return Measured(
        {name: np.concatenate([part.samples[name] for part in parts]) for name in first.samples},
        np.concatenate([part.elements for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.n_elements for part in parts]),
        Work.merge([part.work for part in parts]),
        [Sketch.merge(several) for several in zip(*(part.forces for part in parts), strict=True)],
        first.variables,
    )


def _radii() -> Array:
    from ase.data import covalent_radii

    return np.asarray(np.pad(covalent_radii, (0, 256 - len(covalent_radii)), constant_values=1.5))


def _cells(cell: Array, pbc: Array, n_atoms: Array) -> dict[str, Array]:
    """Return handedness (sign of the determinant), angles and volume per atom; NaN where they do not apply."""
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
        "volume": (volume + missing).astype(np.float64),
        "angle_min": (angle.min(axis=1) + missing).astype(np.float32),
        "angle_max": (angle.max(axis=1) + missing).astype(np.float32),
        "volume_per_atom": (np.abs(volume) / n_atoms + missing).astype(np.float32),
    }


def _electrons(block: Block, pbc: Array) -> dict[str, Array]:
    """Return whether the multiplicity fits the number of electrons. A crystal's need not: its cell is a choice."""
    if "charge" not in block or "multiplicity" not in block:
        return {"parity": np.ones(len(block), bool)}
    electrons = np.add.reduceat(block["numbers"].astype(np.int64), block.starts[:-1]) - block["charge"]
    multiplicity = block["multiplicity"].astype(np.int64)
    fits = ((electrons + multiplicity) % 2 == 1) & (multiplicity >= 1) & (multiplicity <= electrons + 1)
    return {"parity": fits | pbc.any(axis=1)}


def _bare(block: Block, neighbours: Pairs, suspects: Array) -> Array:
    """Return which molecules without hydrogen have carbons that lack it."""
    suspects = suspects & (np.diff(block.starts) > 1)
    if not suspects.any():
        return np.zeros(len(block), bool)
    selected = np.repeat(suspects, neighbours.counts)
    neighbours = Pairs(
        neighbours.first[selected],
        neighbours.second[selected],
        neighbours.distance[selected],
        np.where(suspects, neighbours.counts, 0),
    )
    bare = hydrogens.bare_carbons(block["numbers"], block["positions"], neighbours)
    return suspects & hydrogens.too_many_bare(bare, block["numbers"], block.starts)


def _compositions(numbers: Array, n_atoms: Array) -> tuple[Array, Array, Array]:
    owner = np.repeat(np.arange(len(n_atoms)), n_atoms)
    key, counts = np.unique(owner * 256 + numbers, return_counts=True)
    per_sample = np.bincount(key // 256, minlength=len(n_atoms))
    return (key % 256).astype(np.uint8), counts.astype(np.int32), per_sample.astype(np.uint8)


def _fingerprints(block: Block, neighbours: Pairs, contact: Array, molecule: Array) -> dict[str, Array]:
    """Return hashes of composition and of the molecular graph, and three numbers that no rotation or reordering changes."""
    numbers, starts, n_atoms = block["numbers"], block.starts, np.diff(block.starts)
    atom = mix(numbers.astype(np.uint64) + GOLDEN)
    composition = np.add.reduceat(atom, starts[:-1])
    bonded = np.repeat(molecule, neighbours.counts) & (contact < _BOND)
    ends = np.concatenate([neighbours.first[bonded], neighbours.second[bonded]])
    others = np.concatenate([neighbours.second[bonded], neighbours.first[bonded]])
    order = np.argsort(ends, kind="stable")
    ends, others = ends[order], others[order]
    begin = np.flatnonzero(np.diff(ends, prepend=-1)) if len(ends) else ends
    for _ in range(_ROUNDS if len(ends) else 0):  # Weisfeiler and Lehman's colouring
        heard = np.zeros(len(atom), np.uint64)
        heard[ends[begin]] = np.add.reduceat(mix(atom[others] + GOLDEN), begin)
        atom = mix(atom ^ heard)
    graph = np.where(molecule, mix(np.add.reduceat(atom, starts[:-1])), np.uint64(0))
    # Smooth at the cutoff, so that rounding cannot move a pair across it.
    fade = (1 - (neighbours.distance / CUTOFF) ** 2) ** 2
    z = numbers.astype(np.float64)
    one = (
        reduce_pairs(fade * np.sqrt(z[neighbours.first] * z[neighbours.second]), neighbours.counts, 0.0, np.add)
        / n_atoms
    )
    two = reduce_pairs(
        fade * np.exp(-neighbours.distance) * (z[neighbours.first] + z[neighbours.second]),
        neighbours.counts,
        0.0,
        np.add,
    )
    x = block["positions"].astype(np.float64)
    centre = np.add.reduceat(x, starts[:-1]) / n_atoms[:, None]
    spread = np.add.reduceat(((x - np.repeat(centre, n_atoms, axis=0)) ** 2).sum(1) * z, starts[:-1]) / n_atoms
    volume = np.abs(np.linalg.det(np.nan_to_num(block["cell"].astype(np.float64)))) / n_atoms
    shape = np.stack([one, two / n_atoms, np.where(molecule, spread, volume)], axis=1)
    return {"composition": composition, "graph": graph, "shape": shape}


def _labels(block: Block, molecule: Array) -> tuple[dict[str, Array], list[Sketch]]:
    """Return figures of the labels, shape (S, T)."""
    energy, n, starts = block.energy, len(block), block.starts
    n_teachers = energy.shape[1]
    n_atoms = np.diff(starts)
    shape = (n, n_teachers)
    out = {"energy": energy.astype(np.float64), "partial": np.isinf(energy)}
    out |= {name: np.full(shape, np.nan, np.float32) for name in ("force_max", "net_force", "net_torque", "stress_max")}
    out["mean_stress"] = np.full(shape, np.nan)
    sketches = [Sketch.of(np.zeros(0))] * n_teachers
    x = block["positions"].astype(np.float64)
    for t in range(n_teachers):
        if "forces" in block:
            f = block["forces"][:, t].astype(np.float64)
            size = np.sqrt(np.einsum("ij,ij->i", f, f))
            missing = np.add.reduceat(np.isnan(size).astype(np.int64), starts[:-1])
            infinite = np.asarray(np.isinf(f).any(axis=1))
            # A sample without forces or without an energy is no error; one that lacks a part of its forces is.
            out["partial"][:, t] |= (missing > 0) & (missing < n_atoms)
            out["partial"][:, t] |= reduce_rows(np.logical_or, infinite, starts)
            with np.errstate(invalid="ignore"):
                out["force_max"][:, t] = reduce_rows(np.maximum, size, starts)
                out["net_force"][:, t] = np.linalg.norm(np.add.reduceat(f, starts[:-1]), axis=1) / n_atoms
                torque = np.linalg.norm(_torque(x, f, starts, n_atoms), axis=1) / n_atoms
            out["net_torque"][:, t] = np.where(molecule, torque, np.nan)
            sketches[t] = Sketch.of(size)
        if "stress" in block:
            s = block["stress"][:, t].astype(np.float64)
            missing_s = np.isnan(s)
            out["partial"][:, t] |= (missing_s.any(axis=1) & ~missing_s.all(axis=1)) | np.isinf(s).any(axis=1)
            out["stress_max"][:, t] = np.abs(s).max(axis=1)
            out["mean_stress"][:, t] = s[:, :3].mean(axis=1)
    return out, sketches


def _torque(x: Array, f: Array, starts: Array, n_atoms: Array) -> Array:
    """Return the torque about the centre of each sample, shape (S, 3), eV."""
    centre = np.add.reduceat(x, starts[:-1]) / n_atoms[:, None]
    arm = x - np.repeat(centre, n_atoms, axis=0)
    cross = np.empty_like(arm)
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        cross[:, a] = arm[:, b] * f[:, c] - arm[:, c] * f[:, b]
    return np.asarray(np.add.reduceat(cross, starts[:-1]))
