"""Strain and rattle: random displacements of all atoms, and random strains of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.further import joined
from mlffstore_generators.rattle import log_uniform, rattled, strained
from mlffstore_generators.samplers.base import SeedSampler, batch_of, sound
from mlffstore_generators.seeds.base import NoSeedError, check_share

if TYPE_CHECKING:
    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
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
    strained : float, optional
        Fraction of the structures whose cell is strained.
    path : int, optional
        Structures of the path of a relaxation that are kept of each seed beside the others, with the labels that they have:
        its end, and one at random from each of as many equal stretches as are left; 0 keeps none. Only seeds of the class
        ``relaxed`` have a path.
    """

    name: ClassVar[str] = "rattle"
    amplitude: tuple[float, float] | None = None
    strain: float = 0.02
    strained: float = 1.0
    path: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.amplitude is not None and not 0 < self.amplitude[0] <= self.amplitude[1]:
            raise DataError(f"rattle: expected an amplitude of two rising positive numbers, got {self.amplitude}")
        if not 0 <= self.strain < 0.2:
            raise DataError(f"rattle: expected a strain from 0 to 0.2, got {self.strain!r}")
        check_share("rattle", "strained", self.strained)
        if not 0 <= self.path < self.frames:
            raise DataError(f"rattle: expected a path from 0 to fewer than frames ({self.frames}), got {self.path!r}")

    def sample(self, seed: Seed, rng: np.random.Generator, count: int) -> list[SampleBatch]:
        """Return frames of the path, and displaced copies."""
        limits = self.amplitude or (_MOLECULES if len(seed.bonds) or not seed.periodic else _CRYSTALS)
        out = [] if seed.path is None or not self.path else [path_batch(seed, min(self.path, count), rng)]
        frames: dict[str, list[Atoms]] = {"rattle": [], "strain-rattle": []}
        for _ in range(count - sum(map(len, out))):
            whole = bool(seed.atoms.pbc.all() and self.strain) and (self.strained == 1 or rng.random() < self.strained)
            atoms = strained(seed.atoms, self.strain, rng) if whole else seed.atoms
            frame = rattled(atoms, log_uniform(rng, limits), rng)
            if not sound(frame, seed):
                raise NoSeedError("atoms too close after the rattle")
            frames["strain-rattle" if whole else "rattle"].append(frame)
        return out + [batch_of(some, seed, label) for label, some in frames.items() if some]


def path_batch(seed: Seed, count: int, rng: np.random.Generator) -> SampleBatch:
    """Return frames of a seed's path with their labels: the last one, and one of each stretch of those before it.

    The first is one of the others: were it always kept, a third of the samples of a mix with two frames of each path would
    be structures that nothing has relaxed.
    """
    path = seed.path
    assert path is not None
    last = len(path.frames) - 1
    stretches = np.array_split(np.arange(last), count - 1) if count > 1 else []
    chosen = [*(int(rng.choice(stretch)) for stretch in stretches if len(stretch)), last]
    batch = batch_of([path.frames[k] for k in chosen], seed, f"relaxation-{path.teacher.name}")
    if np.isnan(path.energy).all():
        return batch
    labels: dict[str, Any] = {
        "energy": path.energy[chosen], "forces": np.concatenate([path.forces[k] for k in chosen]).astype(np.float32),
    }  # fmt: skip
    if np.isfinite(path.stress[chosen]).any():
        labels["stress"] = path.stress[chosen]
    further = joined([path.more[k] for k in chosen]) if path.more else {}
    return batch.with_properties(path.teacher.name, labels | further)
