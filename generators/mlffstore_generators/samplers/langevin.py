"""Langevin dynamics of many structures at once: one call of the teacher moves all of them by a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.data import atomic_masses

from mlffstore.data.batch import SampleBatch
from mlffstore.data.ragged import offsets
from mlffstore_generators.calls import Asking, ask
from mlffstore_generators.further import further_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from mlffstore.contracts.protocols import Follower, Teacher, TeacherLabels
    from mlffstore.data.schema import Array

#: Masses with which positions are sampled, amu, and the timesteps that go with them, fs: of hydrogen where there is some, of
#: all atoms elsewhere. With 4 amu the stretch of C-H has a period of 20 fs; with 50 that of N-N in azides has 30, and the
#: hardest mode of diamond 51.
HYDROGEN, OTHERS = 4.0, 50.0
STEP_HYDROGEN, STEP_OTHERS = 1.5, 3.0


def sampling_masses(numbers: Array) -> Array:
    """Return masses for dynamics that samples positions, amu: they do not change the canonical distribution of positions.

    Parameters
    ----------
    numbers : ndarray, shape (N,)
        Atomic numbers of one structure.

    Notes
    -----
    The positions of a canonical ensemble do not depend on the masses; only times do. Hydrogen is made heavier (Feenstra,
    Hess and Berendsen, J. Comput. Chem. 20, 786 (1999)), and without hydrogen all atoms are made equal, so that the timestep
    can be three times as long.
    """
    masses = np.asarray(atomic_masses[numbers], np.float64)
    if (numbers == 1).any():
        masses[numbers == 1] = HYDROGEN
        return masses
    return np.full(len(numbers), OTHERS)


@dataclass
class Ensemble:
    """Independent structures, each with its own thermostat and random numbers.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Structures at the start; velocities are drawn from Maxwell's distribution.
    rngs : sequence of numpy.random.Generator
        One for each, so that a trajectory does not depend on its companions.
    teacher : Teacher or None
        It labels the frames that are kept; None if `follower` does.
    temperature : ndarray, shape (S,)
        Kelvin.
    timestep : ndarray, shape (S,)
        Femtoseconds.
    friction : float
        1/fs.
    masses : sequence of ndarray of shape (N,), optional
        Of each structure, amu; natural ones by default.
    follower : Follower, optional
        What gives the forces of the motion; by default that of the teacher.
    keys : sequence of int, optional
        What the follower knows the structures by.

    Notes
    -----
    The splitting is BAOAB (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34): half a kick, half a drift, the exact
    Ornstein-Uhlenbeck process of the momenta, half a drift, half a kick. Its configurations are right to second order in the
    timestep, and to fourth in the limit of high friction.
    """

    frames: Sequence[Atoms]
    rngs: Sequence[np.random.Generator]
    teacher: Teacher | None
    temperature: Array
    timestep: Array
    friction: float = 0.01
    masses: Sequence[Array] | None = None
    follower: Follower | None = None
    keys: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self.frames, self.rngs = list(self.frames), list(self.rngs)
        self.keys = list(range(len(self.frames))) if self.keys is None else list(self.keys)
        if self.follower is None:
            assert self.teacher is not None
            self.follower = Asking(self.teacher)
        self.alive = np.ones(len(self.frames), bool)
        self.numbers = np.concatenate([frame.numbers for frame in self.frames])
        self.positions = np.concatenate([frame.positions for frame in self.frames]).astype(np.float64)
        masses = atomic_masses[self.numbers] if self.masses is None else np.concatenate(list(self.masses))
        self.mass = np.asarray(masses, np.float64)[:, None]
        self._count()
        self.heat(self.temperature)
        self.dt = (units.fs * np.asarray(self.timestep, np.float64))[self.owner][:, None]
        self.momenta = self._noise() * np.sqrt(self.mass * self.kt)
        self.forces = np.zeros_like(self.positions)
        self.energy = np.full(len(self.frames), np.nan)
        self.stress = np.full((len(self.frames), 6), np.nan, np.float32)
        self.reasons = [""] * len(self.frames)
        #: What the teacher gave beside energy, forces and stress, of each structure when it was stored last.
        self.more: list[Mapping[str, Array]] = [{}] * len(self.frames)
        self._evaluate(self.alive, stored=False)

    def _count(self) -> None:
        self.starts = offsets(np.array([len(frame) for frame in self.frames], np.int64))
        self.owner = np.repeat(np.arange(len(self.frames)), np.diff(self.starts))

    def exchange(self, gone: Array, newcomers: Ensemble | None) -> None:
        """Replace structures by others, so that a batch stays full when trajectories end.

        Parameters
        ----------
        gone : ndarray, shape (S,), bool
            Structures that leave.
        newcomers : Ensemble or None
            Structures that come after those that stay, with the same teacher and friction.
        """
        stay, both = ~gone, [self] if newcomers is None else [self, newcomers]
        for name in ("frames", "rngs", "keys", "reasons", "more"):
            kept = [value for value, keep in zip(getattr(self, name), stay, strict=True) if keep]
            setattr(self, name, kept + (list(getattr(newcomers, name)) if newcomers is not None else []))
        for name in ("numbers", "positions", "mass", "dt", "kt", "momenta", "forces"):
            rows = [getattr(self, name)[stay[self.owner]], *(getattr(one, name) for one in both[1:])]
            setattr(self, name, np.concatenate(rows))
        for name in ("alive", "energy", "stress", "temperature"):
            rows = [getattr(self, name)[stay], *(getattr(one, name) for one in both[1:])]
            setattr(self, name, np.concatenate(rows))
        self._count()

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

    def _evaluate(self, chosen: Array, *, stored: bool) -> None:
        """Compute the forces on some structures; those that the teacher refuses stop."""
        living = np.flatnonzero(chosen)
        if not len(living):
            return
        frames = [self.frames[int(k)] for k in living]
        atoms = chosen[self.owner]
        batch = SampleBatch(
            n_atoms=np.diff(self.starts)[living], numbers=self.numbers[atoms], positions=self.positions[atoms],
            cell=np.stack([frame.cell.array for frame in frames]), pbc=np.stack([frame.pbc for frame in frames]),
            charge=np.array([int(frame.info.get("charge", 0)) for frame in frames]),
            multiplicity=_multiplicities(frames),
        )  # fmt: skip
        labels = self._labels(batch, living, stored)
        self.forces[atoms] = labels.forces
        self.energy[living] = labels.energy
        if labels.stress is not None:
            self.stress[living] = labels.stress
        if stored:
            for i, k in enumerate(living):
                self.more[int(k)] = further_labels(labels, batch, i)
        for k, good, reason in zip(living, labels.ok, labels.reasons, strict=True):
            if not good:
                self.stop(int(k), f"teacher: {reason}")

    def _labels(self, batch: SampleBatch, living: Array, stored: bool) -> TeacherLabels:
        assert self.follower is not None
        assert self.keys is not None
        if stored and self.teacher is not None:
            return ask(self.teacher, batch)
        return self.follower.label(batch, [self.keys[int(k)] for k in living])

    def stop(self, k: int, reason: str) -> None:
        """Let a structure go no further."""
        if self.alive[k]:
            self.alive[k], self.reasons[k] = False, reason

    def step(self, stored: Array | None = None) -> None:
        """Move all that are alive by one timestep; see `drift` and `settle`."""
        self.drift()
        self.settle(np.zeros(len(self.frames), bool) if stored is None else stored)

    def drift(self) -> None:
        """Move the positions of all that are alive by one timestep; `settle` must follow."""
        moving = self.alive[self.owner][:, None]
        half, decay = 0.5 * self.dt, np.exp(-self.friction / units.fs * self.dt)
        self.momenta += half * self.forces * moving
        self.positions += half * self.momenta / self.mass * moving
        self.momenta = decay * self.momenta + np.sqrt((1 - decay**2) * self.mass * self.kt) * self._noise() * moving
        self.positions += half * self.momenta / self.mass * moving

    def settle(self, stored: Array) -> None:
        """Compute the forces at the new positions and end the timestep.

        Parameters
        ----------
        stored : ndarray, shape (S,), bool
            Structures that are kept: their positions are rounded to what a store of float32 keeps, and the teacher labels
            them without regard to the steps before, so that what it says of them is their label.
        """
        moving = self.alive[self.owner][:, None]
        stored = stored & self.alive
        atoms = stored[self.owner]
        self.positions[atoms] = self.positions[atoms].astype(np.float32)
        others = self.alive & ~stored
        self._evaluate(stored, stored=True)
        self._evaluate(others, stored=False)
        self.momenta += 0.5 * self.dt * self.forces * moving

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
