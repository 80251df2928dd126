"""A preview of a recipe: a few samples of each part are made and labelled, and none is stored."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.registry import get_generator, shared_teacher
from mlffstore.errors import MlffstoreError
from mlffstore.pipeline.checks import verdicts
from mlffstore.pipeline.recipe import Task
from mlffstore.pipeline.task import labelled, rng_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlffstore.pipeline.recipe import Part, Recipe

#: Edges of the histogram of sizes, atoms.
SIZES = (1, 10, 20, 40, 80, 160, 320, 640)


@dataclass(frozen=True, slots=True)
class Planned:
    """An estimate for a part of a recipe, from a few samples.

    Attributes
    ----------
    part : str
    samples : int
        Samples that the recipe asks for.
    tried : int
        Samples that were made here.
    accepted : float
        Fraction of samples that keep the limits of the recipe.
    seconds : float
        A sample, generated and labelled by one process; loading the teacher is not counted.
    hours : float
        Estimate for the whole part, on one process.
    periodic : float
        Fraction of samples that are periodic.
    elements : tuple of str
    sizes : tuple of int
        Number of the samples tried between the edges `SIZES`.
    reasons : dict of str to int
        Reasons of rejected samples and of seeds without a structure, counted.
    problem : str
        The reason why nothing could be made; empty otherwise.
    """

    part: str
    samples: int
    tried: int = 0
    accepted: float = 0.0
    seconds: float = 0.0
    hours: float = 0.0
    periodic: float = 0.0
    elements: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    reasons: dict[str, int] | None = None
    problem: str = ""


def plan(recipe: Recipe, *, count: int = 8, progress: Callable[[int, int], object] | None = None) -> list[Planned]:
    """Try every part of a recipe.

    Parameters
    ----------
    recipe : Recipe
    count : int, optional
        Samples of each part. They are those of a task that the recipe does not have, so that a run makes others.
    progress : callable, optional
        It is called with the number of parts done so far and the number of all parts.
    """
    out = []
    for k, part in enumerate(recipe.parts):
        try:
            out.append(_try(recipe, part, count))
        except MlffstoreError as error:
            out.append(Planned(part.name, part.samples, problem=str(error).split("\n")[0]))
        if progress is not None:
            progress(k + 1, len(recipe.parts))
    return out


def _try(recipe: Recipe, part: Part, count: int) -> Planned:
    from ase.data import chemical_symbols

    generator = get_generator(part.generator, **part.options)
    teacher = shared_teacher(part.teacher, part.teacher_options)
    warm: Any = generator.generate(rng_of(recipe, Task(part, part.n_tasks + 1, 1)), 1)  # loads models, compiles
    labelled(teacher, warm, recipe.precision)
    began = time.perf_counter()
    generated = generator.generate(rng_of(recipe, Task(part, part.n_tasks, count)), count)
    batch, labels = labelled(teacher, generated, recipe.precision)
    seconds = (time.perf_counter() - began) / count
    rejected = Counter(reason for reason in verdicts(batch, labels, recipe.checks) if reason)
    counts, _ = np.histogram(batch.n_atoms, (*SIZES, 10**9))
    return Planned(
        part.name, part.samples, count, 1 - sum(rejected.values()) / count, seconds, seconds * part.samples / 3600,
        float(batch.pbc.any(axis=1).mean()), tuple(chemical_symbols[z] for z in np.unique(batch.numbers)),
        tuple(counts.tolist()), dict(rejected) | {f"no structure: {k}": n for k, n in generated.skipped.items()},
    )  # fmt: skip
