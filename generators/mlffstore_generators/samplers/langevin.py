"""Langevin dynamics of many structures at once: one call of the teacher moves all of them by a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.data import atomic_masses

from mlffstore.data.batch import SampleBatch
from mlffstore.data.ragged import offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from mlffstore.contracts.protocols import Teacher
    from mlffstore.data.schema import Array


@dataclass
class Ensemble:
    """Independent structures, each with its own thermostat and random numbers.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Structures at the start; velocities are drawn from Maxwell's distribution.
    rngs : sequence of numpy.random.Generator
        One for each, so that a trajectory does not depend on its companions.
    teacher : Teacher
    temperature : ndarray, shape (S,)
        Kelvin.
    timestep : ndarray, shape (S,)
        Femtoseconds.
    friction : float
        1/fs.

    Notes
    -----
    The splitting is BAOAB (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34): half a kick, half a drift, the exact
    Ornstein-Uhlenbeck process of the momenta, half a drift, half a kick. Its configurations are right to second order in the
    timestep, and to fourth in the limit of high friction.
    """

    frames: Sequence[Atoms]
    rngs: Sequence[np.random.Generator]
    teacher: Teacher
    temperature: Array
    timestep: Array
    friction: float = 0.01

    def __post_init__(self) -> None:
        self.alive = np.ones(len(self.frames), bool)
        self.starts = offsets(np.array([len(frame) for frame in self.frames]))
        self.owner = np.repeat(np.arange(len(self.frames)), np.diff(self.starts))
        self.numbers = np.concatenate([frame.numbers for frame in self.frames])
        self.positions = np.concatenate([frame.positions for frame in self.frames]).astype(np.float64)
        self.mass = atomic_masses[self.numbers][:, None]
        self.heat(self.temperature)
        self.dt = (units.fs * np.asarray(self.timestep, np.float64))[self.owner][:, None]
        self.momenta = self._noise() * np.sqrt(self.mass * self.kt)
        self.forces = np.zeros_like(self.positions)
        self.energy = np.full(len(self.frames), np.nan)
        self.stress: Array | None = None
        self.reasons = [""] * len(self.frames)
        self.evaluate()

    def heat(self, temperature: Array) -> None:
        """Set the temperatures of the thermostats, shape (S,), kelvin."""
        self.temperature = np.asarray(temperature, np.float64)
        self.kt = (units.kB * self.temperature)[self.owner][:, None]

    def _noise(self) -> Array:
        out = np.zeros_like(self.positions)
        for k in np.flatnonzero(self.alive):
            atoms = slice(self.starts[k], self.starts[k + 1])
            out[atoms] = self.rngs[int(k)].normal(size=out[atoms].shape)
        return out

    def evaluate(self) -> None:
        """Ask the teacher for the forces on those that are alive; those that it refuses stop."""
        living = np.flatnonzero(self.alive)
        frames = [self.frames[int(k)] for k in living]
        if not len(living):
            return
        atoms = self.alive[self.owner]
        batch = SampleBatch(
            n_atoms=np.diff(self.starts)[living], numbers=self.numbers[atoms], positions=self.positions[atoms],
            cell=np.stack([frame.cell.array for frame in frames]), pbc=np.stack([frame.pbc for frame in frames]),
            charge=np.array([int(frame.info.get("charge", 0)) for frame in frames]),
            multiplicity=_multiplicities(frames),
        )  # fmt: skip
        labels = self.teacher.label(batch)
        self.forces[atoms] = labels.forces
        self.energy[living] = labels.energy
        if labels.stress is not None:
            if self.stress is None:
                self.stress = np.full((len(self.frames), 6), np.nan, np.float32)
            self.stress[living] = labels.stress
        for k, good, reason in zip(living, labels.ok, labels.reasons, strict=True):
            if not good:
                self.stop(int(k), f"teacher: {reason}")

    def stop(self, k: int, reason: str) -> None:
        """Let a structure go no further."""
        if self.alive[k]:
            self.alive[k], self.reasons[k] = False, reason

    def step(self, stored: Array | None = None) -> None:
        """Move all that are alive by one timestep.

        Parameters
        ----------
        stored : ndarray, shape (S,), bool, optional
            Structures whose new positions are rounded to what a store of float32 keeps, so that what the teacher says of
            them is their label.
        """
        moving = self.alive[self.owner][:, None]
        half, decay = 0.5 * self.dt, np.exp(-self.friction / units.fs * self.dt)
        self.momenta += half * self.forces * moving
        self.positions += half * self.momenta / self.mass * moving
        self.momenta = decay * self.momenta + np.sqrt((1 - decay**2) * self.mass * self.kt) * self._noise() * moving
        self.positions += half * self.momenta / self.mass * moving
        if stored is not None:
            atoms = stored[self.owner]
            self.positions[atoms] = self.positions[atoms].astype(np.float32)
        self.evaluate()
        self.momenta += half * self.forces * moving

    def temperatures(self) -> Array:
        """Return the kinetic temperature of each structure, shape (S,), kelvin: all 3N degrees of freedom are thermal."""
        kinetic = np.add.reduceat((self.momenta**2 / (2 * self.mass)).sum(axis=1), self.starts[:-1])
        return np.asarray(2 * kinetic / (3 * np.diff(self.starts) * units.kB))

    def largest_forces(self) -> Array:
        """Return the largest force on an atom of each structure, shape (S,), eV/angstrom."""
        return np.asarray(np.maximum.reduceat(np.linalg.norm(self.forces, axis=1), self.starts[:-1]))

    def frame(self, k: int) -> Atoms:
        """Return structure `k` as it is now."""
        out = self.frames[k].copy()
        out.positions = self.positions[self.starts[k] : self.starts[k + 1]]
        return out


def _multiplicities(frames: Sequence[Atoms]) -> Array | None:
    """Return the multiplicities, the lowest that fits where it is not known; None if it is known of none."""
    known = [frame.info.get("multiplicity") for frame in frames]
    if all(m is None for m in known):
        return None
    electrons = [int(frame.numbers.sum()) - int(frame.info.get("charge", 0)) for frame in frames]
    return np.array([1 + n % 2 if m is None else int(m) for m, n in zip(known, electrons, strict=True)])
