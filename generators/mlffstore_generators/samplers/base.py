"""What samplers share: seeds are drawn, frames are made and examined, failures are counted."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlffstore.contracts.protocols import Generated
from mlffstore.data.batch import SampleBatch
from mlffstore.data.concatenation import concatenate
from mlffstore.data.geometry import pairs
from mlffstore.data.limits import MIN_DISTANCE
from mlffstore.errors import DataError
from mlffstore_generators.calls import counted
from mlffstore_generators.options import check_options
from mlffstore_generators.seeds.base import NoSeedError, Seed, Seeds, get_seeds, teachers_of
from mlffstore_generators.seeds.drawing import draw_together

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ase import Atoms

    from mlffstore.contracts.protocols import TeacherInfo

#: Draws for every structure that is needed, before the options are called impossible.
DRAWS = 50
#: Seeds that are drawn side by side, at most: one call of a teacher serves them all.
PARALLEL = 16
#: A bond holds up to this multiple of its length in the seed.
STRETCH = 1.5
#: Atoms that are not bonded keep this multiple of the sum of their covalent radii.
CONTACT = 0.6


@dataclass(frozen=True)
class Sampler(ABC):
    """Base of the samplers.

    Parameters
    ----------
    seeds : str or mapping, optional
        A class of seeds by name, or with options: ``{name: crystals, max_atoms: 40}``.
    frames : int, optional
        Structures of a seed, at most.
    """

    #: Of the entry point.
    name: ClassVar[str]
    seeds: Any = "molecules"
    frames: int = 4

    def __post_init__(self) -> None:
        check_options(self.name, self)
        if not 1 <= self.frames <= 40:
            raise DataError(f"{self.name}: expected 1 to 40 frames of a seed, got {self.frames}")
        self.source  # noqa: B018  # wrong seeds are told of now, not in a worker

    @property
    def methods(self) -> list[str]:
        """References of the method."""
        return []

    @cached_property
    def source(self) -> Seeds:
        """The class of seeds."""
        return get_seeds(self.seeds)

    def teachers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield names and options of the teachers that it asks."""
        return teachers_of(self)

    def warm(self) -> None:
        """Load what drawing needs, so that it is not timed: one draw of the innermost class of seeds."""
        source: Any = self.source
        while hasattr(source, "source"):
            source = source.source
        with contextlib.suppress(NoSeedError):
            seed = source.draw(np.random.default_rng(0))
            sound(seed.atoms, seed)

    def generate(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` structures of about ``count / frames`` seeds, and how often teachers were asked for them."""
        with counted() as calls:
            made = self.make(rng, count)
        return dataclasses.replace(made, calls=dict(calls))

    @abstractmethod
    def make(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` structures of about ``count / frames`` seeds."""

    def draw(
        self, rng: np.random.Generator, wanted: int, skipped: Counter[str], draws: int | None = None
    ) -> tuple[list[Seed], list[np.random.Generator]]:
        """Return up to `wanted` seeds of at most `draws`, each with its own random numbers; failures are counted."""
        seeds: list[Seed] = []
        rngs: list[np.random.Generator] = []
        draws = DRAWS * wanted if draws is None else draws
        while draws and len(seeds) < wanted:
            # One stream a seed, drawn whatever becomes of it: a failure does not shift the others.
            several = [
                np.random.default_rng(rng.integers(2**63, size=2)) for _ in range(min(draws, wanted - len(seeds)))
            ]
            draws -= len(several)
            for frame_rng, seed in zip(several, draw_together(self.source, several), strict=True):
                if isinstance(seed, NoSeedError):
                    skipped[str(seed)] += 1
                else:
                    seeds.append(seed)
                    rngs.append(frame_rng)
        return seeds, rngs

    def check_count(self, made: int, count: int, skipped: Mapping[str, int]) -> None:
        """Raise `DataError` unless enough structures were made."""
        if made < count:
            raise DataError(
                f"{self.name}: {DRAWS * count} draws gave {made} of {count} structures ({dict(skipped)}); widen the options "
                "of the seeds"
            )

    def provenance(self) -> Mapping[str, Any]:
        """Return options, sources and licences of the seeds, and references."""
        return {
            "generator": self.name,
            "options": dataclasses.asdict(self),
            "seeds": self.source.provenance(),
            "methods": self.methods,
        }


class SeedSampler(Sampler):
    """Base of samplers that take one seed after the other."""

    @abstractmethod
    def sample(self, seed: Seed, rng: np.random.Generator, count: int) -> tuple[list[Atoms], str] | list[SampleBatch]:
        """Return up to `count` frames of a seed and the name under which they are recorded, or batches of them."""

    def make(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` structures of about ``count / frames`` seeds."""
        batches: list[SampleBatch] = []
        skipped: Counter[str] = Counter()
        info: TeacherInfo | None = None
        made, draws = 0, DRAWS * count
        while made < count and draws > 0:
            failed = skipped.total()
            # No more seeds than are needed at least, so that none is drawn for nothing.
            seeds, rngs = self.draw(rng, min(PARALLEL, -(-(count - made) // self.frames)), skipped, draws)
            draws -= len(seeds) + skipped.total() - failed
            for seed, frame_rng in zip(seeds, rngs, strict=True):
                try:
                    result = self.sample(seed, frame_rng, min(self.frames, count - made))
                except NoSeedError as error:
                    skipped[str(error)] += 1
                    continue
                if isinstance(result, tuple):
                    result = [batch_of(result[0], seed, result[1])] if result[0] else []
                if seed.path is not None and any(batch.labels for batch in result):
                    info = seed.path.teacher
                made += sum(map(len, result))
                batches += result
        self.check_count(made, count, skipped)
        return Generated(concatenate(batches), dict(skipped), info)


def batch_of(frames: Sequence[Atoms], seed: Seed, label: str) -> SampleBatch:
    """Return frames of one seed as a batch with root, source and sampler."""
    return SampleBatch.from_ase(list(frames), source=seed.source, sampler=label).with_columns(root=seed.root)


def sound(frame: Atoms, seed: Seed, contact: float = CONTACT) -> bool:
    """Return whether all bonds of the seed hold and no other two atoms or images touch."""
    from ase.data import covalent_radii

    positions = frame.positions
    if not np.isfinite(positions).all():
        return False
    bonds = seed.bonds
    if len(bonds):
        before = np.linalg.norm(_vectors(seed.atoms, bonds), axis=1)
        if (np.linalg.norm(_vectors(frame, bonds), axis=1) > STRETCH * before).any():
            return False
    radii = covalent_radii[frame.numbers]
    starts = np.array([0, len(frame)])
    close_pairs = pairs(
        starts, positions, frame.cell.array[None], frame.pbc[None], max(2 * contact * float(radii.max()), 0.1)
    )
    close = close_pairs.distance < contact * (radii[close_pairs.first] + radii[close_pairs.second])
    if len(bonds) and close.any():  # a bond is judged by its stretch
        n = len(frame)
        bonded = np.isin(close_pairs.first * n + close_pairs.second, np.concatenate([bonds @ [n, 1], bonds @ [1, n]]))
        close &= ~bonded | (close_pairs.distance < MIN_DISTANCE)
    return not close.any()


def _vectors(atoms: Atoms, bonds: np.ndarray) -> np.ndarray:
    from ase.geometry import find_mic

    vectors = atoms.positions[bonds[:, 1]] - atoms.positions[bonds[:, 0]]
    return np.asarray(find_mic(vectors, atoms.cell, atoms.pbc)[0] if atoms.pbc.any() else vectors)
