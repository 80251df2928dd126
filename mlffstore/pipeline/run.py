"""Running a recipe: its tasks on an executor, with progress, and resuming by the keys in the log."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlffstore.contracts.protocols import AskingGenerator
from mlffstore.contracts.registry import get_generator, get_teacher
from mlffstore.errors import DataError, MlffstoreError, PluginError, RecipeError, RegistryError, TeacherError
from mlffstore.pipeline.account import REFILL, Ledger
from mlffstore.pipeline.dispatch import Dispatcher
from mlffstore.pipeline.task import Outcome, named_properties, set_aside
from mlffstore.pipeline.upkeep import Upkeep
from mlffstore.runtime.dask_client import as_executor
from mlffstore.runtime.processes import local_pool
from mlffstore.store.opening import create

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from distributed import Client

    from mlffstore.contracts.protocols import Generator
    from mlffstore.pipeline.recipe import Recipe, Task
    from mlffstore.store.facade import Store

_log = logging.getLogger(__name__)
#: Packages whose versions decide what a run makes.
_PACKAGES = (
    "mlffstore", "numpy", "ase", "rdkit", "pymatgen", "vesin", "tblite", "chgnet", "torch", "zarr", "numcodecs",
)  # fmt: skip
Progress = Callable[[Outcome], None]


@dataclass(slots=True)
class RunReport:
    """The outcome of a run."""

    n_tasks: int
    n_done_before: int
    accepted: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    #: Tasks that killed their workers, with what repeats them; other tasks make up for them.
    set_aside: list[str] = field(default_factory=list)
    #: Why the run stopped before its end; empty otherwise.
    stopped: str = ""
    #: Parts that have fewer samples than they want, with the reasons.
    short: list[str] = field(default_factory=list)
    #: Remarks that matter to users of the store.
    warnings: list[str] = field(default_factory=list)


def software() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what a run makes."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def found_generator(name: str, options: Mapping[str, Any]) -> Generator:
    """Return a generator after every teacher that it asks was found.

    Raises
    ------
    RegistryError, MissingDependencyError, TeacherError, DataError
        If it, or one of the teachers, cannot be had with its options.
    """
    generator = get_generator(name, **options)
    for teacher, given in generator.teachers() if isinstance(generator, AskingGenerator) else ():
        get_teacher(teacher, **given)
    return generator


def prepare(recipe: Recipe) -> Store:
    """Make or open the recipe's store, and put the resolved recipe, seeds, versions and teachers on record, once.

    Raises
    ------
    RegistryError, MissingDependencyError, RecipeError
        If a generator or teacher cannot be had, or a teacher does not give a property that it is asked for, before anything
        is written.
    """
    generators, teachers = {}, {}
    for part in recipe.parts:
        try:
            generators[part.name] = dict(found_generator(part.generator, part.options).provenance())
            teacher = get_teacher(part.teacher, **part.teacher_options)
        except (RegistryError, PluginError, DataError, TeacherError) as error:
            raise RecipeError(f"part {part.name!r}: {error}") from error
        named_properties(f"part {part.name!r}", teacher, part.properties)
        teachers[part.name] = teacher.info
    for more in recipe.more_teachers:
        try:
            teacher = get_teacher(more.teacher, **more.options)
        except (RegistryError, PluginError) as error:
            raise RecipeError(f"more_teachers: {error}") from error
        named_properties(f"more_teachers, {more.teacher}", teacher, more.properties)
        teachers.setdefault(f"more_teachers/{more.teacher}", teacher.info)
    record = {
        "recipe": recipe.model_dump(mode="json"),
        "software": software(),
        "generators": generators,
        "teachers": {name: info.to_json() for name, info in teachers.items()},
    }
    store = create(
        recipe.store,
        precision=recipe.precision,
        splits={"train": recipe.splits.train, "val": recipe.splits.val, "test": recipe.splits.test},
        split_seed=recipe.splits.seed,
        exist_ok=True,
    )
    import hashlib

    digest = hashlib.sha256(repr(sorted(_flatten(record))).encode()).hexdigest()[:16]
    store.commit(
        None,
        key=f"run/{recipe.name}/provenance/{digest}",
        teachers={info.name: info.to_json() for info in teachers.values()},
        provenance=record,
    )
    return store


def _flatten(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{path}/{name}")
    else:
        yield f"{path}={value!r}"


def run(
    recipe: Recipe, *, workers: int = 1, executor: Executor | Client | None = None, progress: Progress | None = None
) -> RunReport:
    """Make what the recipe asks for and the store lacks.

    Parameters
    ----------
    recipe : Recipe
    workers : int, optional
        Number of processes on this machine.
    executor : concurrent.futures.Executor, or distributed.Client, optional
        What runs the tasks instead. It is not shut down.
    progress : callable, optional
        It is called with the `Outcome` of each task, in the order in which they end.

    Returns
    -------
    RunReport

    Notes
    -----
    It may be stopped or killed at any point; calling it again goes on. A task is done when its key is in the log, so no
    task is done twice, and two runs of one recipe at the same time share the work without harm. What a part rejects is made
    up for from the same part, up to as many structures again as it wants.

    A task that kills its worker is tried once more when all others have ended, by itself; if it does so again, an empty
    commit under its key records what it was, and other tasks make up for it. Every so many commits the store is compacted.
    The run stops when the disk is nearly full.

    Raises
    ------
    ExecutorError
        If workers die whatever they do, or the executor is gone.
    """
    store = prepare(recipe)
    ledger = Ledger(recipe, store)
    ledger.refresh()
    planned = recipe.tasks()
    # The planned tasks in their mixed order, then those that a stopped run left of making up for rejected samples.
    first = [task for task in planned if task not in ledger]
    report = RunReport(len(planned), len(planned) - len(first))
    report.warnings += made_before(recipe, first, store.keys())
    for line in report.warnings:
        _log.warning("%s", line)
    first += [task for part in recipe.parts for task in ledger.follow(part)[1] if task.number >= REFILL]
    if first:
        with contextlib.ExitStack() as stack:
            pool = executor if executor is not None else stack.enter_context(local_pool(min(workers, len(first))))
            _work(recipe, ledger, first, as_executor(pool), report, progress)
    ledger.refresh()
    for part in [] if report.stopped else recipe.parts:
        counts = ledger.part(part)
        if counts.accepted < counts.wanted and not any(line.startswith(f"{part.name}/") for line in report.failed):
            reasons = Counter(counts.reasons).most_common(2)
            report.short.append(
                f"{part.name}: {counts.accepted:,} of {counts.wanted:,} samples, after as many tries again; rejected were "
                + ", ".join(f"{n:,} for {reason}" for reason, n in reasons)
            )
    return report


def made_before(recipe: Recipe, tasks: Sequence[Task], keys: Mapping[str, int]) -> list[str]:
    """Return a warning for each part whose tasks ran before with other options: their samples are in the store still.

    Parameters
    ----------
    recipe : Recipe
    tasks : sequence of Task
        Tasks that will run.
    keys : mapping of str to int
        Idempotency keys in the log of the store.
    """
    made: dict[str, set[str]] = {}
    for key in keys:
        name, _, digest = key.rpartition("/")
        made.setdefault(name, set()).add(digest)
    again: Counter[str] = Counter()
    for task in tasks:
        before = made.get(recipe.key(task).rpartition("/")[0], set())
        # A part that grows makes its last, smaller task again in full, with its own random numbers.
        sizes = range(1, task.part.samples_per_task + 1)
        in_full = (
            {recipe.key(dataclasses.replace(task, count=n)).rpartition("/")[2] for n in sizes} if before else set()
        )
        again[task.part.name] += bool(before - in_full)
    return [
        f"{name}: {n} tasks of this part ran before with other options, and their samples stay in the store; the same "
        "structures may be in it twice now. Name a new store, or a new part, to keep them apart"
        for name, n in again.items()
        if n
    ]


def _work(
    recipe: Recipe, ledger: Ledger, first: list[Task], pool: Executor, report: RunReport, progress: Progress | None
) -> None:
    """Run tasks, and those that make up for what they reject, until none is left."""
    dispatcher = Dispatcher(recipe, ledger.store.url, ledger.store.snapshot().store_uuid, pool)
    upkeep = Upkeep(ledger.store)
    running: Counter[str] = Counter()
    failed: set[str] = set()
    for task in first:
        running[task.part.name] += 1
        dispatcher.add(task)
    for end in dispatcher:
        part, name = end.task.part, f"{end.task.part.name}/{end.task.number}"
        running[part.name] -= 1
        if end.outcome is not None:
            report.accepted += end.outcome.accepted
            report.rejected += end.outcome.rejected
            report.reasons.update(end.outcome.reasons)
            if progress is not None:
                progress(end.outcome)
        elif end.killed:
            text = f"{name}: {set_aside(recipe, end.task, ledger.store, str(end.error))}"
            report.set_aside.append(text)
            _log.warning("%s", text)
        else:
            report.failed.append(f"{name}: {_told(end.error)}")
            failed.add(part.name)
            _log.error("task %s failed: %s", name, _told(end.error), exc_info=_unexpected(end.error))
        if not report.stopped:
            report.stopped = upkeep.after_task()
            if end.refused:
                report.stopped = (
                    f"the store refused the samples of one task after another, of the last one because: {end.error}. What "
                    "was committed is safe. Run the same command again when the store can be written"
                )
            if report.stopped:
                dispatcher.stop()
        if not report.stopped and not running[part.name] and part.name not in failed:
            ledger.refresh()
            for more in ledger.follow(part)[1]:
                running[part.name] += 1
                dispatcher.add(more)


def _unexpected(error: Exception | None) -> Exception | None:
    """Return an error of which the traceback is wanted: one of a plugin, or a fault of the library."""
    return None if isinstance(error, MlffstoreError) and not isinstance(error, PluginError) else error


def _told(error: Exception | None) -> str:
    return str(error) if isinstance(error, MlffstoreError) else f"{type(error).__name__}: {error}"
