"""Rattle, relax, repeat: paths downhill from far away, on a teacher's energy."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlffstore.contracts.protocols import Generated
from mlffstore.contracts.registry import shared_teacher
from mlffstore.data.concatenation import concatenate
from mlffstore.errors import DataError
from mlffstore_generators.rattle import log_uniform, rattled, strained
from mlffstore_generators.samplers.base import DRAWS, Sampler, batch_of, sound
from mlffstore_generators.samplers.teacher import label
from mlffstore_generators.seeds.relaxed import Relaxed

if TYPE_CHECKING:
    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
    from mlffstore_generators.seeds.base import Seed

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
        Teacher that gives the forces.
    teacher_options : mapping, optional
        Options of the teacher.
    amplitude : tuple of float, optional
        Range of the log-uniform amplitude of the rattle, angstrom.
    strain : float, optional
        Standard deviation of the six components of the strain of cells.
    steps : int, optional
        Downhill, after each rattle.
    parallel : int, optional
        Seeds side by side, at most: one call of the teacher moves them all.
    size : float, optional
        Step of the first, angstrom^2/eV; step n is this over n (Robbins and Monro).

    Notes
    -----
    After Gardner et al., arXiv:2506.10956, who distil foundation models from structures made like this.
    """

    name: ClassVar[str] = "rattle-relax"
    frames: int = 6
    teacher: str = "gfn2-xtb"
    teacher_options: dict[str, Any] = field(default_factory=dict)
    amplitude: tuple[float, float] = (0.05, 0.15)
    strain: float = 0.02
    steps: int = 8
    size: float = 0.02
    parallel: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.amplitude) != 2 or not 0 < self.amplitude[0] <= self.amplitude[1]:
            raise DataError(f"rattle-relax: expected an amplitude of two positive numbers, got {self.amplitude}")
        if min(self.steps, self.parallel) < 1 or not self.size > 0 or not 0 <= self.strain < 0.2:
            raise DataError("rattle-relax: expected positive steps, size and parallel, and a strain from 0 to 0.2")

    @property
    def methods(self) -> list[str]:
        """References of the method."""
        return ["arXiv:2506.10956"]

    def preview(self) -> tuple[RattleRelax, float, float]:
        """Return a cheap stand-in for a plan, with what `plan` multiplies and adds: a frame of a seed costs what each does.

        Where seeds are relaxed first, all frames share the price, so that nothing is cheaper than itself.
        """
        return self if isinstance(self.source, Relaxed) else dataclasses.replace(self, frames=1), 1.0, 0.0

    def make(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` structures of about ``count / frames`` seeds, one of each round, at a random step of its path."""
        batches: list[SampleBatch] = []
        skipped: Counter[str] = Counter()
        made, draws = 0, DRAWS * count
        while made < count and draws > 0:
            failed = skipped.total()
            seeds, rngs = self.draw(rng, min(self.parallel, -(-(count - made) // self.frames)), skipped, draws)
            draws -= len(seeds) + skipped.total() - failed
            walkers = [_Walker(seed, rng) for seed, rng in zip(seeds, rngs, strict=True)]
            for _ in range(2 * self.frames):
                self._round([one for one in walkers if not one.reason and len(one.frames) < self.frames])
            for one in walkers:
                frames = one.frames[: count - made]  # what came before a refusal is as good as any
                made += len(frames)
                if frames:
                    batches.append(batch_of(frames, one.seed, self.name))
                if one.reason or not frames:
                    skipped[one.reason or "bonds broke or atoms touch on every path"] += 1
        self.check_count(made, count, skipped)
        return Generated(concatenate(batches), dict(skipped))

    def _round(self, walkers: list[_Walker]) -> None:
        """Rattle, and go downhill; one call of the teacher moves all walkers by a step."""
        teacher = shared_teacher(self.teacher, self.teacher_options)
        for one in walkers:
            start = strained(one.start, self.strain, one.rng) if one.start.pbc.all() and self.strain else one.start
            one.atoms = rattled(start, log_uniform(one.rng, self.amplitude), one.rng)
            one.kept = int(one.rng.integers(1, self.steps + 1))
        for n in range(1, self.steps + 1):
            walkers = [one for one in walkers if not one.reason]
            if not walkers:
                return
            labels = label(teacher, [one.atoms for one in walkers])
            forces = np.split(labels.forces.astype(np.float64), np.cumsum([len(one.atoms) for one in walkers])[:-1])
            for k, one in enumerate(walkers):
                if not labels.ok[k]:
                    one.reason = f"teacher: {labels.reasons[k]}"
                    continue
                move = self.size / n * forces[k]
                longest = float(np.linalg.norm(move, axis=1).max())
                one.atoms.positions += move * min(1.0, _STEP / max(longest, 1e-12))
                if n == one.kept and sound(one.atoms, one.seed):
                    one.frames.append(one.atoms.copy())
        for one in walkers:
            one.start = one.atoms if sound(one.atoms, one.seed) else one.seed.atoms


class _Walker:
    """A seed on its way."""

    def __init__(self, seed: Seed, rng: np.random.Generator) -> None:
        self.seed, self.rng = seed, rng
        self.start: Atoms = seed.atoms
        self.atoms: Atoms = seed.atoms
        self.kept = 0
        self.frames: list[Atoms] = []
        self.reason = ""
