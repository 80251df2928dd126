"""Crystals: prototypes and elements, as supercells, strained and rattled."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import Generated
from mlffstore.data.concatenation import concatenate
from mlffstore.errors import DataError, missing_dependency
from mlffstore_generators.options import check_options
from mlffstore_generators.prototypes import too_close
from mlffstore_generators.rattle import log_uniform, rattled, strained
from mlffstore_generators.samplers.base import batch_of
from mlffstore_generators.seeds.base import NoSeedError
from mlffstore_generators.seeds.crystals import Crystals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from mlffstore.data.batch import SampleBatch

#: Draws for every structure that is needed, before the options are called impossible.
_DRAWS = 50


@dataclass(frozen=True)
class CrystalGenerator:
    """Crystals of AFLOW prototypes and of elements, strained and rattled.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Sizes of the supercells.
    frames : int, optional
        Structures of a crystal.
    strain : float, optional
        Standard deviation of each of the six components of the strain.
    rattle : tuple of float, optional
        Range of the log-uniform amplitude of a Gaussian displacement of every coordinate, angstrom.
    elemental : float, optional
        Fraction of crystals of one element.
    elements : tuple of str, optional
        Allowed elements; all by default. Draws with others are skipped.
    """

    min_atoms: int = 10
    max_atoms: int = 60
    frames: int = 4
    strain: float = 0.02
    rattle: tuple[float, float] = (0.02, 0.12)
    elemental: float = 0.06
    elements: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_options("crystals", self)
        problems = []
        if not 1 <= self.min_atoms <= self.max_atoms:
            problems.append(f"1 <= min_atoms <= max_atoms, got {self.min_atoms} and {self.max_atoms}")
        if self.frames < 1:
            problems.append(f"at least one frame, got {self.frames}")
        if not 0 <= self.strain < 0.2:
            problems.append(f"a strain of 0 to 0.2, got {self.strain}")
        if not 0 <= self.elemental <= 1:
            problems.append(f"an elemental share of 0 to 1, got {self.elemental}")
        if len(self.rattle) != 2 or not 0 < self.rattle[0] <= self.rattle[1]:
            problems.append(f"a rattle range of two positive amplitudes, got {self.rattle}")
        if problems:
            raise DataError("crystals: expected " + "; ".join(problems))

    def generate(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` structures of about ``count / frames`` crystals."""
        crystals = self._crystals()
        batches: list[SampleBatch] = []
        skipped: Counter[str] = Counter()
        made = 0
        for _ in range(_DRAWS * count):
            if made >= count:
                break
            # One stream a crystal, drawn whatever becomes of it: a failure does not shift the others.
            frame_rng = np.random.default_rng(rng.integers(2**63, size=2))
            try:
                seed = crystals.draw(frame_rng)
                frames = [self._variant(seed.atoms, frame_rng) for _ in range(min(self.frames, count - made))]
            except NoSeedError as error:
                skipped[str(error)] += 1
                continue
            made += len(frames)
            batches.append(batch_of(frames, seed, "strain-rattle"))
        if made < count:
            raise DataError(
                f"crystals: {_DRAWS * count} draws gave {made} of {count} structures ({dict(skipped)}); "
                "widen min_atoms, max_atoms or elements"
            )
        return Generated(concatenate(batches), dict(skipped))

    def provenance(self) -> Mapping[str, Any]:
        """Return options, sources and licences."""
        from importlib.util import find_spec

        if find_spec("pymatgen") is None:
            raise missing_dependency("pymatgen", "generators", "the generator 'crystals'")
        return {
            "generator": "crystals",
            "options": dataclasses.asdict(self),
            "seeds": self._crystals().provenance(),
            "methods": ["pymatgen RLSVolumePredictor"],
        }

    def _crystals(self) -> Crystals:
        return Crystals(self.min_atoms, self.max_atoms, self.elemental, self.elements)

    def _variant(self, seed: Atoms, rng: np.random.Generator) -> Atoms:
        atoms = rattled(strained(seed, self.strain, rng), log_uniform(rng, self.rattle), rng)
        if too_close(atoms):
            raise NoSeedError("atoms too close after the rattle")
        return atoms
