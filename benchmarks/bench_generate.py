"""Generation: structures a second of every generator, labelled samples an hour end to end, and dynamics beside ASE's.

    python benchmarks/bench_generate.py [--samples 16] [--end-to-end 160] [--workers 2] [--recipe recipes/production.yaml]
                                         [--only end-to-end|parts|dynamics]

- End to end: both halves of the recipe, molecules and what is periodic, each cut to so many samples in the recipe's
  shares and run as `mlffstore run` does it: processes start, models load, samples are generated, labelled, checked and
  committed durably.
- Every part of the recipe: structures a second that its generator makes in one process, warm (models loaded, tables
  read), and samples a second that its teacher labels.
- Dynamics: steps of a structure a second, ours side by side against ASE's LangevinBAOAB with the same teacher one
  structure at a time, rounds interleaved, medians.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import mlffstore as ml
from mlffstore.contracts.registry import shared_teacher
from mlffstore.pipeline.recipe import Recipe, Task, load_recipe
from mlffstore.pipeline.run import run
from mlffstore.pipeline.task import rng_of
from mlffstore_generators.samplers.base import Sampler
from mlffstore_generators.seeds.base import NoSeedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlffstore.pipeline.recipe import Part

ROOT = Path(__file__).parents[1]


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def each_part(recipe: Recipe, count: int) -> None:
    """Print structures a second of each part's generator, and samples a second of its teacher."""
    print(f"\n{count} structures of each part, one process, warm")
    print(f"{'part':<18} {'generator':<13} {'seeds':<15} {'structures/s':>12} {'labelled/s':>11} {'atoms':>6}")
    for part in recipe.parts:
        generator = ml.get_generator(part.generator, **part.options)
        teacher = shared_teacher(part.teacher, part.teacher_options)
        warm_up = rng_of(recipe, Task(part, part.n_tasks + 1, 1))
        if isinstance(generator, Sampler):
            for _ in range(20):  # prototypes, radii, database: read by some draws and not by others
                with contextlib.suppress(NoSeedError):
                    generator.source.draw(warm_up)
        generator.generate(warm_up, 1)
        made: list[ml.SampleBatch] = []

        def make(generator=generator, part=part, made=made) -> None:
            made.append(generator.generate(rng_of(recipe, Task(part, part.n_tasks, count)), count).batch)

        seconds = timed(make)
        batch = made[0].astype("float32").structures()
        teacher.label(batch.take(np.arange(1)))
        labelling = timed(lambda teacher=teacher, batch=batch: teacher.label(batch))
        seeds = part.options.get("seeds", "")
        seeds = seeds["name"] if isinstance(seeds, dict) else seeds
        print(
            f"{part.name:<18} {part.generator:<13} {seeds:<15} {count / seconds:>12.2f} {count / labelling:>11.2f} "
            f"{batch.n_atoms.mean():>6.0f}",
            flush=True,
        )


def end_to_end(recipe: Recipe, periodic: bool, samples: int, workers: int) -> None:
    """Print labelled samples an hour of one half of the recipe."""
    half = [part for part in recipe.parts if (part.teacher == "chgnet") == periodic]
    total = sum(part.samples for part in half)

    def cut(part: Part) -> Part:
        wanted = max(1, round(part.samples / total * samples))
        return part.model_copy(update={"samples": wanted, "samples_per_task": min(wanted, 16)})

    with tempfile.TemporaryDirectory() as folder:
        small = recipe.model_copy(
            update={"parts": tuple(map(cut, half)), "store": str(Path(folder) / "d.zarr"), "release": None}
        )
        began = time.perf_counter()
        report = run(small, workers=workers)
        seconds = time.perf_counter() - began
    name = "periodic" if periodic else "molecules"
    print(
        f"{name:<10} {report.accepted:>6} samples, {report.rejected} rejected, {seconds:>6.0f} s: "
        f"{report.accepted / seconds * 3600:>7,.0f} an hour on {workers} processes",
        flush=True,
    )


def dynamics(rounds: int, steps: int = 20) -> None:
    """Print steps a second of our ensemble and of ASE's integrator, with the same teacher."""
    from ase import units
    from ase.md.langevinbaoab import LangevinBAOAB

    from mlffstore_generators.samplers.langevin import Ensemble
    from mlffstore_generators.samplers.teacher import TeacherCalculator

    print(f"\ndynamics, {steps} steps, median of {rounds} rounds: steps of a structure a second")
    cases = (
        ("chgnet", ml.get_generator("crystals", max_atoms=40, frames=1)),
        ("gfn2-xtb", ml.get_generator("molecules", max_atoms=30, frames=1)),
    )
    for name, generator in cases:
        teacher = shared_teacher(name, {})
        frames = generator.generate(np.random.default_rng(0), 16).batch.structures().to_ase()
        figures: dict[str, list[float]] = {"ours": [], "ase": []}

        def ours(frames=frames, teacher=teacher) -> None:
            n = len(frames)
            rngs = [np.random.default_rng([1, i]) for i in range(n)]
            ensemble = Ensemble(frames, rngs, teacher, np.full(n, 300.0), np.full(n, 0.5))
            for _ in range(steps):
                ensemble.step()

        def ase(frames=frames, teacher=teacher) -> None:
            for i, frame in enumerate(frames):
                one = frame.copy()
                one.calc = TeacherCalculator(teacher)
                rng = np.random.default_rng([1, i])
                LangevinBAOAB(one, 0.5 * units.fs, temperature_K=300.0, T_tau=100 * units.fs, rng=rng).run(steps)

        for k in range(rounds + 1):
            for what, call in (("ours", ours), ("ase", ase)):
                seconds = timed(call)
                if k:  # the first round warms up
                    figures[what].append(len(frames) * steps / seconds)
        own, other = (statistics.median(figures[what]) for what in ("ours", "ase"))
        print(
            f"{name:<9} 16 side by side {own:>7.1f}, ASE one at a time {other:>7.1f}: {own / other:.2f} x", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", default=ROOT / "recipes" / "production.yaml")
    parser.add_argument("--samples", type=int, default=16, help="structures of each part")
    parser.add_argument("--end-to-end", type=int, default=160, help="samples of each half")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("end-to-end", "parts", "dynamics"))
    args = parser.parse_args()
    recipe = load_recipe(args.recipe)
    if args.only in (None, "end-to-end"):
        print("end to end", flush=True)
        for periodic in (False, True):
            end_to_end(recipe, periodic, args.end_to_end, args.workers)
    if args.only in (None, "parts"):
        each_part(recipe, args.samples)
    if args.only in (None, "dynamics"):
        dynamics(args.rounds)


if __name__ == "__main__":
    main()
