"""Molecular dynamics on a teacher's energy: many trajectories side by side, frames far enough apart, labels kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlffstore.contracts.protocols import Generated
from mlffstore.contracts.registry import shared_teacher
from mlffstore.data.concatenation import concatenate
from mlffstore.data.limits import MAX_FORCE
from mlffstore.errors import DataError
from mlffstore_generators.samplers.base import DRAWS, Sampler, batch_of, sound
from mlffstore_generators.samplers.langevin import Ensemble

if TYPE_CHECKING:
    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
    from mlffstore_generators.seeds.base import Seed

#: Ratio of the temperature to the target at which a trajectory stops; the frames before are kept.
_HEAT = 3.0
#: Where a ramp of the temperature starts, kelvin.
_COLD = 300.0
#: Steps between two looks at bonds and contacts.
_LOOK = 20


@dataclass(frozen=True)
class MolecularDynamics(Sampler):
    """Langevin dynamics (BAOAB) at constant volume.

    Parameters
    ----------
    seeds, frames
        See `Sampler`.
    teacher : str, optional
        Teacher that gives the forces. If the same teacher labels the part, frames keep the labels that they have.
    teacher_options : mapping, optional
    temperatures : tuple of float, optional
        Kelvin; each seed draws one.
    timestep_fs : float, optional
        By default 0.5 with hydrogen, 1 without.
    friction : float, optional
        1/fs.
    ramp_fs : float, optional
        Time in which the thermostat goes from 300 K to the temperature; its frames are discarded.
    equilibration_fs, interval_fs : float, optional
        What is discarded, and the time between frames; a frame also waits until the atoms moved by `distance` on average.
    distance : float, optional
        Angstrom.
    parallel : int, optional
        Trajectories side by side, at most: one call of the teacher moves them all.

    Notes
    -----
    A trajectory stops, and its frames so far are kept, when something is not finite, a force exceeds 50 eV/angstrom, the
    kinetic temperature three times its target, a bond breaks or two atoms touch, or the teacher refuses.
    """

    name: ClassVar[str] = "md"
    frames: int = 4
    teacher: str = "gfn2-xtb"
    teacher_options: dict[str, Any] = field(default_factory=dict)
    temperatures: tuple[float, ...] = (300.0, 500.0, 800.0, 1000.0)
    timestep_fs: float | None = None
    friction: float = 0.01
    ramp_fs: float = 0.0
    equilibration_fs: float = 500.0
    interval_fs: float = 100.0
    distance: float = 0.1
    parallel: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperatures", tuple(float(t) for t in self.temperatures))
        if not self.temperatures or min(self.temperatures) <= 0:
            raise DataError(f"md: expected positive temperatures, got {self.temperatures}")
        if self.timestep_fs is not None and not 0 < self.timestep_fs <= 4:
            raise DataError(f"md: expected a timestep of at most 4 fs, got {self.timestep_fs!r}")
        if (
            self.friction <= 0
            or min(self.ramp_fs, self.equilibration_fs) < 0
            or self.interval_fs <= 0
            or self.parallel < 1
        ):
            raise DataError("md: expected positive friction, interval_fs and parallel, and no negative times")
        super().__post_init__()

    @property
    def methods(self) -> list[str]:
        """References of the method."""
        return ["BAOAB, doi:10.1093/amrx/abs010"]

    def generate(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` frames of about ``count / frames`` trajectories, with the teacher's labels."""
        teacher = shared_teacher(self.teacher, self.teacher_options)
        batches: list[SampleBatch] = []
        skipped: Counter[str] = Counter()
        made = 0
        for _ in range(DRAWS):
            if made >= count:
                break
            seeds, rngs = self.draw(rng, min(self.parallel, -(-(count - made) // self.frames)), skipped)
            for batch in self._run(seeds, rngs, teacher, skipped):
                batch = batch.take(np.arange(min(len(batch), count - made)))
                made += len(batch)
                if len(batch):
                    batches.append(batch)
        self.check_count(made, count, skipped)
        return Generated(concatenate(batches), dict(skipped), teacher.info)

    def _run(
        self, seeds: list[Seed], rngs: list[np.random.Generator], teacher: Any, skipped: Counter[str]
    ) -> list[SampleBatch]:
        if not seeds:
            return []
        temperature = np.array([float(rng.choice(self.temperatures)) for rng in rngs])
        light = np.array([0.5 if 1 in seed.atoms.numbers else 1.0 for seed in seeds])
        step = np.full(len(seeds), self.timestep_fs) if self.timestep_fs else light
        ramp = np.ceil(self.ramp_fs / step) if self.ramp_fs else None
        start = temperature if ramp is None else np.minimum(temperature, _COLD)
        run = Ensemble([seed.atoms for seed in seeds], rngs, teacher, start, step, self.friction)
        first = np.ceil((self.ramp_fs + self.equilibration_fs) / step).astype(int)
        apart = np.maximum(1, np.ceil(self.interval_fs / step)).astype(int)
        due = np.maximum(first, 1)
        before = run.positions.copy()
        frames: list[list[tuple[Atoms, float, np.ndarray, np.ndarray | None]]] = [[] for _ in seeds]
        n = 0
        while run.alive.any():
            n += 1
            wanted = run.alive & (n >= due)
            if ramp is not None and n <= ramp.max():
                run.heat(start + (temperature - start) * np.minimum(n / ramp, 1))
            run.step(wanted)
            self._look(run, seeds, wanted if n % _LOOK else run.alive.copy())
            for k in np.flatnonzero(wanted & run.alive):
                atoms = slice(run.starts[k], run.starts[k + 1])
                moved = np.linalg.norm(run.positions[atoms] - before[atoms], axis=1).mean()
                if moved < self.distance and n < due[k] + 10 * apart[k]:
                    continue
                stress = None if run.stress is None else run.stress[k].copy()
                frames[k].append((run.frame(int(k)), float(run.energy[k]), run.forces[atoms].copy(), stress))
                before[atoms] = run.positions[atoms]
                due[k] = n + apart[k]
                if len(frames[k]) == self.frames:
                    run.stop(int(k), "done")
        out = []
        for i, seed in enumerate(seeds):
            if run.reasons[i] != "done":
                skipped[f"trajectory stopped: {run.reasons[i]}"] += 1
            if frames[i]:
                out.append(_labelled(frames[i], seed, f"md-{self.teacher}-{temperature[i]:g}K", teacher.info.name))
        return out

    def _look(self, run: Ensemble, seeds: list[Seed], closely: np.ndarray) -> None:
        """Stop what went wrong."""
        largest, heat = run.largest_forces(), run.temperatures()
        finite = np.isfinite(np.add.reduceat(run.positions.sum(axis=1), run.starts[:-1])) & np.isfinite(largest)
        for k in np.flatnonzero(run.alive):
            # Of a few atoms the kinetic temperature fluctuates by sqrt(2 / 3N) of itself.
            limit = _HEAT * (1 + 2 * np.sqrt(2 / (3 * len(seeds[k].atoms))))
            if not finite[k]:
                run.stop(int(k), "not finite")
            elif largest[k] > MAX_FORCE:
                run.stop(int(k), f"force above {MAX_FORCE:g} eV/angstrom")
            elif heat[k] > limit * run.temperature[k]:
                run.stop(int(k), "three times too hot")
            elif closely[k] and not sound(run.frame(int(k)), seeds[k]):
                run.stop(int(k), "a bond broke or atoms touch")


def _labelled(
    kept: list[tuple[Atoms, float, np.ndarray, np.ndarray | None]], seed: Seed, sampler: str, teacher: str
) -> SampleBatch:
    frames, energy, forces, stress = zip(*kept, strict=True)
    labels: dict[str, Any] = {"energy": np.array(energy), "forces": np.concatenate(forces).astype(np.float32)}
    if stress[0] is not None and not np.isnan(np.stack(stress)).all():
        labels["stress"] = np.stack(stress)
    return batch_of(frames, seed, sampler).with_labels(teacher, **labels)
