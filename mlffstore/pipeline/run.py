"""Running a recipe: its tasks on an executor, with progress, and resuming by the keys in the log."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.metadata
import logging
import multiprocessing
import os
import platform
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlffstore.errors import MlffstoreError, RecipeError
from mlffstore.pipeline.task import Outcome, run_task
from mlffstore.registry import get_generator, get_teacher
from mlffstore.store import create

if TYPE_CHECKING:
    from mlffstore.pipeline.recipe import Recipe
    from mlffstore.store import Store

_log = logging.getLogger(__name__)
#: A task that fails is tried again so often before the run gives up on it.
_TRIES = 2
#: Packages whose versions decide what a run makes.
_PACKAGES = (
    "mlffstore", "numpy", "ase", "rdkit", "pymatgen", "vesin", "tblite", "chgnet", "torch", "zarr", "numcodecs",
)  # fmt: skip
Progress = Callable[[Outcome], None]


@dataclass(slots=True)
class RunReport:
    """What a run did."""

    n_tasks: int
    n_done_before: int
    accepted: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)


def software() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what a run makes."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def prepare(recipe: Recipe) -> Store:
    """Make or open the recipe's store, and put the resolved recipe, seeds, versions and teachers on record, once.

    Raises
    ------
    RegistryError, MissingDependencyError, RecipeError
        If a generator or teacher cannot be had, before anything is written.
    """
    generators, teachers = {}, {}
    for part in recipe.parts:
        try:
            generators[part.name] = dict(get_generator(part.generator, **part.options).provenance())
            teachers[part.name] = get_teacher(part.teacher, **part.teacher_options).info
        except TypeError as error:
            raise RecipeError(f"part {part.name!r}: an option that does not exist: {error}") from error
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
    recipe: Recipe, *, workers: int = 1, executor: Executor | None = None, progress: Progress | None = None
) -> RunReport:
    """Make what the recipe says and the store does not have yet.

    Parameters
    ----------
    recipe : Recipe
    workers : int, optional
        Processes on this machine.
    executor : concurrent.futures.Executor, optional
        Where to run the tasks instead, such as ``dask.distributed.Client.get_executor()``. It is not shut down.
    progress : callable, optional
        Called with the `Outcome` of each task, in the order in which they end.

    Returns
    -------
    RunReport

    Notes
    -----
    It may be stopped or killed at any point; calling it again goes on. A task is done when its key is in the log, so no
    task is done twice, and two runs of one recipe at the same time share the work without harm.
    """
    store = prepare(recipe)
    done = store.keys()
    tasks = [(part, task) for part, task in recipe.tasks() if recipe.key(part, task) not in done]
    report = RunReport(len(recipe.tasks()), len(recipe.tasks()) - len(tasks))
    if not tasks:
        return report
    with contextlib.ExitStack() as stack:
        pool = executor or stack.enter_context(_local_pool(min(workers, len(tasks))))
        waiting: dict[Future[Outcome], tuple[int, int]] = {}

        def submit(i: int, tries: int) -> None:
            waiting[pool.submit(run_task, recipe, *tasks[i], store.url)] = (i, tries)

        for i in range(len(tasks)):
            submit(i, 1)
        while waiting:
            ended, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                i, tries = waiting.pop(future)
                part, task = tasks[i]
                try:
                    outcome = future.result()
                except concurrent.futures.BrokenExecutor as error:
                    raise MlffstoreError(
                        f"a worker process died in or near task {part.name}/{task} (out of memory?); what was committed "
                        "is safe. Run the same command again, with fewer --workers if memory is short"
                    ) from error
                except MlffstoreError as error:
                    if tries >= _TRIES:
                        report.failed.append(f"{part.name}/{task}: {error}")
                        _log.error("task %s/%d failed: %s", part.name, task, error)
                    else:
                        submit(i, tries + 1)
                    continue
                report.accepted += outcome.accepted
                report.rejected += outcome.rejected
                report.reasons.update(outcome.reasons)
                if progress is not None:
                    progress(outcome)
    return report


@contextlib.contextmanager
def _local_pool(workers: int) -> Iterator[Executor]:
    """Yield a pool of processes that end with this one, however it ends."""
    # spawn: torch, tblite's OpenMP and our own threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with _single_threaded():
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
        try:
            yield pool
        except BaseException:
            # Stopped: what the workers are doing now is made again from the same seeds, so nothing is worth waiting for.
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Let child processes that start meanwhile compute with one thread each; the workers are the parallelism."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: "1" for name in names if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _start_worker() -> None:
    """Ignore Ctrl-C, which the parent handles, and end when the parent has died."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="mlffstore-parent-watch").start()
