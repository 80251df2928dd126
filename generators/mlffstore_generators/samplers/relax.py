"""Rattle, relax, repeat: paths downhill from far away, on a teacher's energy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.rattle import log_uniform, rattled, strained
from mlffstore_generators.samplers.base import Sampler, sound
from mlffstore_generators.samplers.teacher import label, teacher_of
from mlffstore_generators.seeds.base import NoSeedError, Seed

if TYPE_CHECKING:
    from ase import Atoms

#: A step moves no atom farther than this, angstrom.
_STEP = 0.1


@dataclass(frozen=True)
class RattleRelax(Sampler):
    """Displace, go downhill for a few steps of falling size, keep a frame on the way, and again from there.

    Parameters
    ----------
    seeds, frames
        See `Sampler`.
    teacher : str, optional
        Whose forces.
    teacher_options : mapping, optional
    amplitude : tuple of float, optional
        Range of the log-uniform amplitude of the rattle, angstrom.
    strain : float, optional
        Of cells, standard deviation of its six components.
    steps : int, optional
        Downhill, after each rattle.
    size : float, optional
        Step of the first, angstrom^2/eV; step n is this over n (Robbins and Monro).

    Notes
    -----
    After Gardner et al., arXiv:2506.10956, who distil foundation models from structures made like this.
    """

    frames: int = 6
    teacher: str = "gfn2-xtb"
    teacher_options: dict[str, Any] = field(default_factory=dict)
    amplitude: tuple[float, float] = (0.05, 0.15)
    strain: float = 0.02
    steps: int = 8
    size: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "amplitude", tuple(float(a) for a in self.amplitude))
        if len(self.amplitude) != 2 or not 0 < self.amplitude[0] <= self.amplitude[1]:
            raise DataError(f"rattle-relax: expected an amplitude of two positive numbers, got {self.amplitude}")
        if self.steps < 1 or not self.size > 0 or not 0 <= self.strain < 0.2:
            raise DataError("rattle-relax: expected positive steps and size, and a strain from 0 to 0.2")
        super().__post_init__()

    @property
    def name(self) -> str:
        """Name of the entry point."""
        return "rattle-relax"

    @property
    def methods(self) -> list[str]:
        """References of the method."""
        return ["arXiv:2506.10956"]

    def sample(self, seed: Seed, rng: np.random.Generator, count: int) -> tuple[list[Atoms], str]:
        """Return one frame of each round, at a random step of its path."""
        teacher = teacher_of(self.teacher, self.teacher_options)
        atoms: Atoms = seed.atoms.copy()
        frames: list[Atoms] = []
        for _ in range(2 * count):
            if len(frames) == count:
                break
            start = strained(atoms, self.strain, rng) if atoms.pbc.all() and self.strain else atoms
            walker = rattled(start, log_uniform(rng, self.amplitude), rng)
            kept = int(rng.integers(1, self.steps + 1))
            for n in range(1, self.steps + 1):
                found = label(teacher, [walker])
                if not found.ok[0]:
                    raise NoSeedError(f"teacher: {found.reasons[0]}")
                move = self.size / n * found.forces.astype(np.float64)
                longest = float(np.linalg.norm(move, axis=1).max())
                walker.positions += move * min(1.0, _STEP / max(longest, 1e-12))
                if n == kept and sound(walker, seed):
                    frames.append(walker.copy())
            atoms = walker if sound(walker, seed) else seed.atoms.copy()
        if not frames:
            raise NoSeedError("bonds broke or atoms touch on every path")
        return frames, "rattle-relax"
