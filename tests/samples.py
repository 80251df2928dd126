"""Real, small samples for tests: molecules and crystals labelled by EMT or left unlabelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

if TYPE_CHECKING:
    from ase import Atoms


def labelled(atoms: Atoms, energy: float, forces: np.ndarray, stress: np.ndarray | None = None) -> Atoms:
    """Return the frame with these labels attached."""
    extra = {} if stress is None else {"stress": stress}
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, **extra)
    return atoms


def metal_frames(n: int, seed: int = 0) -> list[Atoms]:
    """Return rattled, strained metal crystals with EMT's energy, forces and stress."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n):
        symbol = ("Cu", "Al", "Ni", "Pd")[i % 4]
        atoms = bulk(symbol, cubic=True) * (1 + i % 2, 1, 1 + i % 3)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.01, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        frames.append(labelled(atoms, **results))
    return frames


def molecule_frames(n: int, seed: int = 0) -> list[Atoms]:
    """Return rattled molecules with a harmonic toy label: exact forces -k dx of E = k |dx|^2 / 2."""
    rng = np.random.default_rng(seed)
    names = ("H2O", "CH4", "C6H6", "CH3OH", "NH3")
    frames = []
    for i in range(n):
        atoms = molecule(names[i % len(names)])
        shift = rng.normal(0, 0.03, atoms.positions.shape)
        atoms.positions += shift
        frames.append(labelled(atoms, 5.0 * float((shift**2).sum()), -10.0 * shift))
    return frames


def mixed_frames(n: int, seed: int = 0) -> list[Atoms]:
    """Return crystals and molecules in turn."""
    pairs = zip(metal_frames((n + 1) // 2, seed), molecule_frames(n // 2 + 1, seed), strict=False)
    return [frame for pair in pairs for frame in pair][:n]
