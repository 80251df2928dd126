"""A preview of a recipe: a few samples of each part are made and labelled, and none is stored."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.registry import available, get_generator, shared_teacher
from mlffstore.data.batch import SampleBatch
from mlffstore.data.concatenation import concatenate
from mlffstore.data.properties import ordered
from mlffstore.errors import MlffstoreError
from mlffstore.pipeline.checks import verdicts
from mlffstore.pipeline.recipe import Task
from mlffstore.pipeline.task import Made, asked, label_all, rng_of
from mlffstore.runtime.processes import local_pool
from mlffstore.store.labelling import label_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from mlffstore.contracts.protocols import Generator
    from mlffstore.pipeline.recipe import Part, Recipe

#: Seconds of one core after which no more seeds of a part are tried.
_PATIENCE = 3.0
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
        Time of one core for a sample that is kept, generated and labelled; loading the teacher is not counted.
    hours : float
        Estimate for the whole part, on one core.
    calls : float
        Structures that teachers label for a sample that is kept.
    periodic : float
        Fraction of samples that are periodic.
    elements : tuple of str
    sizes : tuple of int
        Number of the samples tried between the edges `SIZES`.
    reasons : dict of str to int
        Reasons of rejected samples and of seeds without a structure, counted.
    labels : dict of str to tuple of str
        Names of the labels that are stored of each teacher.
    problem : str
        The reason why nothing could be made; empty otherwise.
    """

    part: str
    samples: int
    tried: int = 0
    accepted: float = 0.0
    seconds: float = 0.0
    hours: float = 0.0
    calls: float = 0.0
    periodic: float = 0.0
    elements: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    reasons: dict[str, int] | None = None
    labels: dict[str, tuple[str, ...]] | None = None
    problem: str = ""

    @property
    def samples_per_hour(self) -> float:
        """Samples that one core makes in an hour."""
        return 3600 / self.seconds if self.seconds else 0.0


def plan(
    recipe: Recipe,
    *,
    count: int = 8,
    workers: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> list[Planned]:
    """Try every part of a recipe.

    Parameters
    ----------
    recipe : Recipe
    count : int, optional
        Samples of each part: whole seeds until there are so many, or some seconds are over. They are those of tasks that the
        recipe does not have, so that a run makes others.
    workers : int, optional
        Number of processes; 1 tries the parts in this one.
    progress : callable, optional
        It is called with the number of parts done so far and the number of all parts.

    Notes
    -----
    A generator may have a method ``warm()``, which loads what is not to be timed, and one ``preview()`` that returns a cheap
    stand-in for itself, how many times as many calls of teachers it makes, and further calls per sample.
    """
    out: list[Planned] = []
    with contextlib.ExitStack() as stack:
        if workers > 1:
            pool = stack.enter_context(local_pool(min(workers, len(recipe.parts))))
            futures = [(part, pool.submit(try_part, recipe, part, count)) for part in recipe.parts]
            results: Iterable[Planned] = (_planned(part, future) for part, future in futures)
        else:
            results = (try_part(recipe, part, count) for part in recipe.parts)
        for one in results:
            out.append(one)
            if progress is not None:
                progress(len(out), len(recipe.parts))
    return out


def _planned(part: Part, future: Future[Planned]) -> Planned:
    """Return the estimate for one part; a part that kills its worker process has that problem, the others have not."""
    try:
        return future.result()
    except BrokenExecutor as error:
        return Planned(part.name, part.samples, problem=f"its worker process died ({error}): out of memory, or a crash")


def try_part(recipe: Recipe, part: Part, count: int) -> Planned:
    """Return the estimate for one part; a problem of the library becomes part of it."""
    try:
        return _try(recipe, part, count)
    except MlffstoreError as error:
        return Planned(part.name, part.samples, problem=str(error).split("\n")[0])


def _try(recipe: Recipe, part: Part, count: int) -> Planned:
    from ase.data import chemical_symbols

    generator: Any = get_generator(part.generator, **part.options)
    generator, times, further = generator.preview() if hasattr(generator, "preview") else (generator, 1.0, 0.0)
    _warm(recipe, part, generator)
    whole = int(getattr(generator, "frames", count))  # the cost of a seed is shared by all of its frames
    attempts: list[_Attempt] = []
    while not attempts or (
        sum(len(one.made.batch) for one in attempts) < count and sum(one.seconds for one in attempts) < _PATIENCE
    ):
        attempts.append(_attempt(recipe, part, generator, Task(part, part.n_tasks + len(attempts), whole)))
    batch = concatenate([one.made.batch.structures() for one in attempts])
    rejected = sum((one.rejected for one in attempts), Counter[str]())
    skipped = sum((Counter(one.made.skipped) for one in attempts), Counter[str]())
    tried, before = len(batch), sum(one.calls for one in attempts)
    kept, generating = max(tried - sum(rejected.values()), 1), sum(one.generating for one in attempts)
    labelling = sum(one.seconds for one in attempts) - generating
    after = sum(sum(one.made.calls.values()) for one in attempts) - before
    seconds = (generating * times + labelling) / kept + (further * generating / before if before else 0.0)
    counts, _ = np.histogram(batch.n_atoms, (*SIZES, 10**9))
    return Planned(
        part.name, part.samples, tried, 1 - sum(rejected.values()) / tried, seconds, seconds * part.samples / 3600,
        (before * times + after) / kept + further, float(batch.pbc.any(axis=1).mean()),
        tuple(chemical_symbols[z] for z in np.unique(batch.numbers)), tuple(counts.tolist()),
        dict(rejected) | {f"no structure: {k}": n for k, n in skipped.items()},
        {teacher: tuple(ordered(named)) for one in attempts for teacher, named in one.made.batch.labels.items()},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Samples of a part, the teacher calls and the seconds of one core that generating them took, and all seconds."""

    made: Made
    rejected: Counter[str]
    calls: int
    generating: float
    seconds: float


def _attempt(recipe: Recipe, part: Part, generator: Generator, task: Task) -> _Attempt:
    began = time.process_time()
    generated = generator.generate(rng_of(recipe, task), task.count)
    generating = time.process_time() - began
    made = label_all(recipe, part, generated)
    rejected = Counter(reason for reason in verdicts(made.batch, made.labels, recipe.checks) if reason)
    return _Attempt(made, rejected, sum(generated.calls.values()), generating, time.process_time() - began)


def _warm(recipe: Recipe, part: Part, generator: Any) -> None:
    """Load teachers and whatever the generator needs: that is done once per process, and not a matter of samples."""
    teachers = asked(recipe, part)
    if "teacher" in part.options and part.options["teacher"] in available("teacher"):
        teachers.append((shared_teacher(part.options["teacher"], part.options.get("teacher_options", {})), None))
    for teacher, properties in teachers:
        batch, labels = label_batch(teacher, concatenate([_molecule(), _crystal()]), properties)
        verdicts(batch, labels, recipe.checks)
    if hasattr(generator, "warm"):
        generator.warm()


def _molecule() -> SampleBatch:
    positions = [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]]
    return SampleBatch(n_atoms=[3], numbers=[8, 1, 1], positions=positions)


def _crystal() -> SampleBatch:
    cell = 2.8 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    return SampleBatch(
        n_atoms=[2], numbers=[11, 17], positions=[[0.0, 0.0, 0.0], [2.8, 0.0, 0.0]], cell=cell[None], pbc=[[True] * 3]
    )
