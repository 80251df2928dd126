"""Molecular dynamics on a teacher's energy: many trajectories side by side, frames far enough apart, labels kept."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlffstore.contracts.protocols import Generated
from mlffstore.contracts.registry import shared_teacher
from mlffstore.data.concatenation import concatenate
from mlffstore.data.limits import MAX_FORCE
from mlffstore.errors import DataError
from mlffstore_generators.calls import Asking
from mlffstore_generators.further import joined
from mlffstore_generators.mmff import MMFFForces
from mlffstore_generators.rattle import log_uniform, rattled
from mlffstore_generators.samplers.base import DRAWS, Sampler, batch_of, sound
from mlffstore_generators.samplers.langevin import STEP_HYDROGEN, STEP_OTHERS, Ensemble, sampling_masses
from mlffstore_generators.seeds.base import FORCE_FIELD, NoSeedError
from mlffstore_generators.seeds.drawing import draw_together
from mlffstore_generators.seeds.relaxed import Relaxed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from mlffstore.contracts.protocols import Follower, Teacher
    from mlffstore.data.batch import SampleBatch
    from mlffstore_generators.seeds.base import Seed

#: Ratio of the temperature to the target at which a trajectory stops; the frames before are kept.
_HEAT = 3.0
#: Displacements that are tried for a frame whose atoms would touch.
_RATTLES = 10
#: Where a ramp of the temperature starts, kelvin.
_COLD = 300.0
#: Steps between two looks at bonds and contacts.
_LOOK = 20
_MASSES = ("sampling", "natural")


@dataclass(frozen=True)
class MolecularDynamics(Sampler):
    """Langevin dynamics (BAOAB) at constant volume.

    Parameters
    ----------
    seeds, frames
        See `Sampler`.
    teacher : str, optional
        Teacher that gives the forces. If the same teacher labels the part, frames keep the labels that they have.
        ``mmff94`` is the force field of RDKit, which labels nothing: a cheap sampler of molecules and clusters for an
        expensive label.
    teacher_options : mapping, optional
        Options of the teacher.
    temperatures : tuple of float, optional
        Kelvin; each seed draws one.
    masses : {"sampling", "natural"}, optional
        Masses of the atoms. By default hydrogen has 4 amu, and without hydrogen all atoms have 50: positions have the same
        distribution, with fewer steps.
    timestep_fs : float, optional
        By default 1.5 with hydrogen and 3 without; with natural masses 0.5 and 1.
    friction : float, optional
        1/fs.
    ramp_fs : float, optional
        Time in which the thermostat goes from 300 K to the temperature; its frames are discarded.
    equilibration_fs, interval_fs : float, optional
        What is discarded, and the time between frames; a frame also waits until the atoms moved by `distance` on average.
    distance : float, optional
        Angstrom. Atoms that keep their places, as in a cold crystal, may never move so far: a frame waits for ten more
        intervals at most.
    rattle : tuple of float, optional
        Range of the log-uniform amplitude of a Gaussian displacement of each frame, angstrom: what a cheap sampler's bonds
        lack of those of the teacher. None leaves the frames as they are; only for ``mmff94``.
    parallel : int, optional
        Trajectories side by side, at most: one call of the teacher moves them all. Where one ends, the next begins.

    Notes
    -----
    A trajectory stops, and its frames so far are kept, when something is not finite, a force exceeds 50 eV/angstrom, the
    kinetic temperature three times its target, a bond breaks or two atoms touch, or the teacher refuses.
    """

    name: ClassVar[str] = "md"
    frames: int = 8
    teacher: str = "gfn2-xtb"
    teacher_options: dict[str, Any] = field(default_factory=dict)
    temperatures: tuple[float, ...] = (300.0, 500.0, 800.0, 1000.0)
    masses: str = "sampling"
    timestep_fs: float | None = None
    friction: float = 0.01
    ramp_fs: float = 0.0
    equilibration_fs: float = 300.0
    interval_fs: float = 50.0
    distance: float = 0.1
    rattle: tuple[float, float] | None = None
    parallel: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures or min(self.temperatures) <= 0:
            raise DataError(f"md: expected positive temperatures, got {self.temperatures}")
        if self.masses not in _MASSES:
            raise DataError(f"md: expected masses of {' or '.join(_MASSES)}, got {self.masses!r}")
        if self.timestep_fs is not None and not 0 < self.timestep_fs <= 4:
            raise DataError(f"md: expected a timestep of at most 4 fs, got {self.timestep_fs!r}")
        if (
            self.friction <= 0
            or min(self.ramp_fs, self.equilibration_fs) < 0
            or self.interval_fs <= 0
            or self.parallel < 1
        ):
            raise DataError("md: expected positive friction, interval_fs and parallel, and no negative times")
        if self.teacher == FORCE_FIELD and self.teacher_options:
            raise DataError(f"md: {FORCE_FIELD} has no options, got {sorted(self.teacher_options)}")
        if self.rattle is not None and (
            len(self.rattle) != 2 or not 0 < self.rattle[0] <= self.rattle[1] or self.teacher != FORCE_FIELD
        ):
            raise DataError(
                f"md: expected a rattle of two rising positive amplitudes, and the teacher {FORCE_FIELD}, got "
                f"{self.rattle} and {self.teacher}; frames of a teacher keep their labels"
            )

    @property
    def methods(self) -> list[str]:
        """References of the method."""
        return ["BAOAB, doi:10.1093/amrx/abs010"]

    def preview(self) -> tuple[MolecularDynamics, float, float]:
        """Return a cheap stand-in for a plan: dynamics of a tenth of the length, from seeds that are not relaxed.

        Beside it, how many times as many calls of the teacher the dynamics itself takes, and how many the relaxation of its
        seeds takes per frame.
        """
        seeds, calls = self.seeds, 0.0
        if isinstance(self.source, Relaxed):
            seeds, calls = self.source.seeds, self.source.steps / self.frames
        short = dataclasses.replace(
            self, seeds=seeds, ramp_fs=self.ramp_fs / 10, equilibration_fs=self.equilibration_fs / 10,
            interval_fs=self.interval_fs / 10, distance=0.0,
        )  # fmt: skip
        return short, 10.0, calls

    def make(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` frames of about ``count / frames`` trajectories, with the teacher's labels."""
        teacher = None if self.teacher == FORCE_FIELD else shared_teacher(self.teacher, self.teacher_options)
        skipped: Counter[str] = Counter()
        trajectories = self._run(_Queue(self, rng, count, skipped), teacher)
        batches: list[SampleBatch] = []
        made = 0
        for one in trajectories:
            if one.reason != "done":
                skipped[f"trajectory stopped: {one.reason}"] += 1
            frames = one.frames[: count - made]
            made += len(frames)
            if frames:
                batches.append(self._batch(frames, one))
        self.check_count(made, count, skipped)
        return Generated(concatenate(batches), dict(skipped), None if teacher is None else teacher.info)

    def _run(self, queue: _Queue, teacher: Teacher | None) -> list[_Trajectory]:
        """Return all trajectories of a queue, which are run side by side."""
        follower: Follower = MMFFForces() if teacher is None else Asking(teacher)
        running: list[_Trajectory] = []
        run: Ensemble | None = None
        while True:
            fresh = queue.take(self.parallel - len(running), running)
            if isinstance(follower, MMFFForces):
                for one in fresh:
                    follower.add(one.number, one.seed)
            if fresh:
                newcomers = self._ensemble(fresh, teacher, follower)
                running += fresh
                if run is None:
                    run = newcomers
                else:
                    run.exchange(np.zeros(len(run.frames), bool), newcomers)
            if not running or run is None:
                return queue.drawn
            self._step(run, running)
            if not run.alive.all():
                for k, one in enumerate(running):
                    one.ended, one.reason = not run.alive[k], run.reasons[k]
                running = [one for one in running if not one.ended]
                if running:
                    run.exchange(~run.alive, None)
                else:
                    run = None

    def _ensemble(self, fresh: list[_Trajectory], teacher: Teacher | None, follower: Follower) -> Ensemble:
        seeds = [one.seed for one in fresh]
        start = [one.temperature if not self.ramp_fs else min(one.temperature, _COLD) for one in fresh]
        masses = None
        if self.masses == "sampling":
            masses = [sampling_masses(seed.atoms.numbers) for seed in seeds]
        return Ensemble(
            [seed.atoms for seed in seeds], [one.rng for one in fresh], teacher, np.array(start),
            np.array([one.timestep for one in fresh]), self.friction, masses, follower, [one.number for one in fresh],
        )  # fmt: skip

    def _step(self, run: Ensemble, running: list[_Trajectory]) -> None:
        """Move all by a step, and keep the frames that are due."""
        for one in running:
            one.steps += 1
        if self.ramp_fs:
            run.heat(np.array([one.thermostat(self.ramp_fs) for one in running]))
        run.drift()
        kept = np.zeros(len(running), bool)
        closely = np.zeros(len(running), bool)
        for k, one in enumerate(running):
            closely[k] = one.steps % _LOOK == 0
            if one.steps >= one.due:
                here = run.positions[run.starts[k] : run.starts[k + 1]]
                moved = np.linalg.norm(here - one.before, axis=1).mean()
                kept[k] = moved >= self.distance or one.steps >= one.due + 10 * one.apart
        run.settle(kept)
        self._look(run, [one.seed for one in running], closely | kept)
        for k in map(int, np.flatnonzero(kept & run.alive)):
            one, atoms = running[k], slice(run.starts[k], run.starts[k + 1])
            labels = (float(run.energy[k]), run.forces[atoms].copy(), run.stress[k].copy(), run.more[k])
            one.frames.append((run.frame(k), *labels))
            one.before, one.due = run.positions[atoms].copy(), one.steps + one.apart
            if len(one.frames) == self.frames:
                run.stop(k, "done")

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

    def _rattled(self, frame: Atoms, amplitude: tuple[float, float], one: _Trajectory) -> Atoms:
        """Return a frame with its atoms displaced; as it is, if they touch or bonds break however they are."""
        for _ in range(_RATTLES):
            moved = rattled(frame, log_uniform(one.rng, amplitude), one.rng)
            if sound(moved, one.seed):
                return moved
        return frame

    def _batch(self, kept: list[Frame], one: _Trajectory) -> SampleBatch:
        """Return the frames of a trajectory; those of the force field are rattled and have no labels."""
        name = f"md-{self.teacher}-{one.temperature:g}K"
        frames, energy, forces, stress, more = zip(*kept, strict=True)
        if self.teacher == FORCE_FIELD:
            if self.rattle is not None:
                frames = tuple(self._rattled(frame, self.rattle, one) for frame in frames)
            return batch_of(frames, one.seed, name)
        labels: dict[str, Any] = {"energy": np.array(energy), "forces": np.concatenate(forces).astype(np.float32)}
        if not np.isnan(np.stack(stress)).all():
            labels["stress"] = np.stack(stress)
        info = shared_teacher(self.teacher, self.teacher_options).info
        return batch_of(frames, one.seed, name).with_properties(info.name, labels | joined(more))


#: Structure, energy, forces, stress and the other labels.
Frame = tuple["Atoms", float, np.ndarray, np.ndarray, "Mapping[str, np.ndarray]"]


class _Trajectory:
    """A seed on its way, and the frames that were kept of it."""

    def __init__(self, number: int, seed: Seed, rng: np.random.Generator, options: MolecularDynamics) -> None:
        self.number, self.seed, self.rng = number, seed, rng
        self.temperature = float(rng.choice(options.temperatures))
        hydrogen = bool((seed.atoms.numbers == 1).any())
        default = (STEP_HYDROGEN if hydrogen else STEP_OTHERS) if options.masses == "sampling" else 1.0 - 0.5 * hydrogen
        self.timestep = options.timestep_fs or default
        self.apart = max(1, int(np.ceil(options.interval_fs / self.timestep)))
        self.due = max(1, int(np.ceil((options.ramp_fs + options.equilibration_fs) / self.timestep)))
        self.before = seed.atoms.positions.copy()
        self.steps, self.ended, self.reason = 0, False, ""
        self.frames: list[Frame] = []

    def thermostat(self, ramp_fs: float) -> float:
        """Return the temperature of the thermostat now, kelvin."""
        start = min(self.temperature, _COLD)
        share = min(self.steps / float(np.ceil(ramp_fs / self.timestep)), 1.0)
        return start + (self.temperature - start) * share


class _Queue:
    """Trajectories in the order of their seeds, as many as are needed for `count` frames.

    One is begun only if those before it can not give enough frames, so which ones there are, and with them the frames, does
    not depend on how many run side by side.
    """

    def __init__(self, options: MolecularDynamics, rng: np.random.Generator, count: int, skipped: Counter[str]) -> None:
        self._options, self._rng, self._count, self._skipped = options, rng, count, skipped
        self._draws = DRAWS * count
        self.drawn: list[_Trajectory] = []

    def take(self, room: int, running: list[_Trajectory]) -> list[_Trajectory]:
        """Return up to `room` trajectories that are to begin now."""
        fresh: list[_Trajectory] = []
        while self._draws > 0:
            ended = sum(len(one.frames) for one in self.drawn if one.ended)
            sure = (len(running) + len(fresh)) * self._options.frames
            wanted = min(room - len(fresh), -(-(self._count - ended - sure) // self._options.frames), self._draws)
            if wanted <= 0:
                break
            self._draws -= wanted
            # One stream per seed, drawn whatever becomes of it: a failure does not shift the others.
            rngs = [np.random.default_rng(self._rng.integers(2**63, size=2)) for _ in range(wanted)]
            for rng, seed in zip(rngs, draw_together(self._options.source, rngs), strict=True):
                if isinstance(seed, NoSeedError):
                    self._skipped[str(seed)] += 1
                    continue
                fresh.append(_Trajectory(len(self.drawn), seed, rng, self._options))
                self.drawn.append(fresh[-1])
        return fresh
