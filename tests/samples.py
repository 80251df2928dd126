"""Real, small samples for tests: molecules and crystals labelled by EMT or left unlabelled."""

from __future__ import annotations

import copy
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


#: Metals that were made in this process, by seed, with the generator that makes more: EMT takes 8 ms for each.
_metals: dict[int, tuple[np.random.Generator, list[Atoms]]] = {}


def metal_frames(n: int, seed: int = 0) -> list[Atoms]:
    """Return rattled, strained metal crystals with EMT's energy, forces and stress."""
    rng, frames = _metals.setdefault(seed, (np.random.default_rng(seed), []))
    for i in range(len(frames), n):
        symbol = ("Cu", "Al", "Ni", "Pd")[i % 4]
        atoms = bulk(symbol, cubic=True) * (1 + i % 2, 1, 1 + i % 3)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.01, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        frames.append(labelled(atoms, **results))
    return copy.deepcopy(frames[:n])


#: eV/angstrom^2: force constants of bonds to hydrogen by the other element, of other bonds, and of all other pairs.
_BONDS, _BOND, _PAIR = {6: 31.0, 7: 40.0, 8: 48.0}, 40.0, 0.5


def molecule_frames(n: int, seed: int = 0) -> list[Atoms]:
    """Return rattled molecules with a toy label: springs between all atoms, stiff ones along bonds, and exact forces."""
    rng = np.random.default_rng(seed)
    names = ("H2O", "CH4", "C6H6", "CH3OH", "NH3")
    frames = []
    for i in range(n):
        atoms = molecule(names[i % len(names)])
        one, two = np.triu_indices(len(atoms), 1)
        rest = np.linalg.norm(atoms.positions[one] - atoms.positions[two], axis=1)
        low, high = np.sort(atoms.numbers[np.stack([one, two])], axis=0)
        bonds = np.array([_BONDS.get(z, _BOND) if y == 1 else _BOND for y, z in zip(low, high, strict=True)])
        k = np.where(rest < np.where(low == 1, 1.3, 1.8), np.where(high == 1, _PAIR, bonds), _PAIR)
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        vector = atoms.positions[one] - atoms.positions[two]
        length = np.linalg.norm(vector, axis=1)
        pull = -(k * (length - rest) / length)[:, None] * vector
        forces = np.zeros_like(atoms.positions)
        np.add.at(forces, one, pull)
        np.add.at(forces, two, -pull)
        frames.append(labelled(atoms, 0.5 * float((k * (length - rest) ** 2).sum()), forces))
    return frames


def mixed_frames(n: int, seed: int = 0) -> list[Atoms]:
    """Return crystals and molecules in turn."""
    pairs = zip(metal_frames((n + 1) // 2, seed), molecule_frames(n // 2 + 1, seed), strict=False)
    return [frame for pair in pairs for frame in pair][:n]
