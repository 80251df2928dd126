"""Strain and rattle: random displacements of all atoms, and random strains of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mlffstore.errors import DataError
from mlffstore_generators.rattle import log_uniform, rattled, strained
from mlffstore_generators.samplers.base import SeedSampler, sound
from mlffstore_generators.seeds.base import NoSeedError

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from mlffstore_generators.seeds.base import Seed

#: Amplitudes, angstrom, that keep 99 % of the forces on molecules and on crystals below 10 eV/angstrom.
_MOLECULES, _CRYSTALS = (0.01, 0.04), (0.02, 0.12)


@dataclass(frozen=True)
class Rattle(SeedSampler):
    """Gaussian displacements of a log-uniform amplitude; cells are strained too.

    Parameters
    ----------
    seeds, frames
        See `Sampler`.
    amplitude : tuple of float, optional
        Range, angstrom; 0.01 to 0.04 where there are bonds to keep, 0.02 to 0.12 elsewhere.
    strain : float, optional
        Standard deviation of the six components of the strain of a cell.
    """

    name: ClassVar[str] = "rattle"
    amplitude: tuple[float, float] | None = None
    strain: float = 0.02

    def __post_init__(self) -> None:
        if self.amplitude is not None:
            object.__setattr__(self, "amplitude", tuple(float(a) for a in self.amplitude))
            if len(self.amplitude) != 2 or not 0 < self.amplitude[0] <= self.amplitude[1]:
                raise DataError(f"rattle: expected an amplitude of two positive numbers, got {self.amplitude}")
        if not 0 <= self.strain < 0.2:
            raise DataError(f"rattle: expected a strain from 0 to 0.2, got {self.strain!r}")
        super().__post_init__()

    def sample(self, seed: Seed, rng: np.random.Generator, count: int) -> tuple[list[Atoms], str]:
        """Return displaced copies."""
        limits = self.amplitude or (_MOLECULES if len(seed.bonds) or not seed.periodic else _CRYSTALS)
        whole = seed.atoms.pbc.all() and self.strain
        frames = []
        for _ in range(count):
            atoms = strained(seed.atoms, self.strain, rng) if whole else seed.atoms
            frame = rattled(atoms, log_uniform(rng, limits), rng)
            if not sound(frame, seed):
                raise NoSeedError("atoms too close after the rattle")
            frames.append(frame)
        return frames, "strain-rattle" if whole else "rattle"
