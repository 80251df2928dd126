"""Tasks on an executor, a bounded number at a time, in the order in which they end.

A task whose worker died is tried again at the end, by itself.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlffstore.errors import ExecutorError, StoreError
from mlffstore.pipeline.task import run_task
from mlffstore.store.executors import worker_died

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

    from mlffstore.pipeline.recipe import Recipe, Task
    from mlffstore.pipeline.task import Outcome

#: Tasks that wait at the executor, at most: more than any cluster has cores, so that an adaptive one sees why to grow.
_WINDOW = 4096
#: A task is given up after so many attempts that raised an error, or that ended with the death of the worker.
_TRIES = 2
#: An executor may drop a task (a Dask scheduler that restarts drops all) so many times in a row.
_DROPS = 3
#: When so many tasks killed their workers and none has ended otherwise, the tasks are not to blame.
_DEATHS = 3
#: When the store refused the samples of so many attempts in a row, it would refuse all others too.
_REFUSALS = 5
_SAFE = "What was committed is safe. Run the same command again, with fewer --workers if memory is short"


@dataclass(slots=True)
class Attempt:
    """A task at an executor.

    Attributes
    ----------
    task : Task
    errors, deaths, drops : int
        Attempts that raised an error, that ended with the death of their worker, and that the executor dropped.
    """

    task: Task
    errors: int = 0
    deaths: int = 0
    drops: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """The end of a task.

    Attributes
    ----------
    task : Task
    outcome : Outcome or None
        None if the task failed.
    error : Exception or None
        What the last attempt raised.
    killed : bool
        Whether the worker died in all attempts.
    refused : bool
        Whether the store refused this attempt and several others before it, with none between that ended well.
    """

    task: Task
    outcome: Outcome | None
    error: Exception | None = None
    killed: bool = False
    refused: bool = False


class Dispatcher:
    """Gives tasks to an executor; iterate over it for their ends.

    Parameters
    ----------
    recipe : Recipe
    url, uuid : str
        The store.
    executor : concurrent.futures.Executor

    Notes
    -----
    The work for each end does not depend on the number of tasks. A task whose worker died may be innocent: a Dask scheduler
    blames all tasks that the worker had. So it is tried again when all others have ended, as the only one at the executor.
    """

    def __init__(self, recipe: Recipe, url: str, uuid: str, executor: Executor) -> None:
        self._recipe, self._store, self._executor = recipe, (url, uuid), executor
        self._todo: deque[Attempt] = deque()
        self._suspects: deque[Attempt] = deque()
        self._flying: dict[Future[Outcome], Attempt] = {}
        self._ended: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._n_done = self._n_killed = self._n_refused = 0
        self._stopped = False

    def add(self, task: Task) -> None:
        """Run a task too; tasks may be added while ends are iterated over."""
        self._todo.append(Attempt(task))

    def stop(self) -> None:
        """Start no further tasks, and take back those that wait at the executor.

        Those that run now end as usual. On a Dask cluster they do so too, but their ends are not known here.
        """
        self._stopped = True
        for future in list(self._flying):
            future.cancel()

    def __iter__(self) -> Iterator[End]:
        """Yield the ends of all tasks, or after `stop` of those that were running.

        Raises
        ------
        ExecutorError
            If the executor is broken or keeps dropping tasks, or workers die whatever they do.
        """
        while True:
            self._fill()
            if not self._flying:
                return
            future = self._ended.get()
            end = self._judge(future, self._flying.pop(future))
            if end is not None:
                yield end

    def _fill(self) -> None:
        """Submit tasks up to the window; suspects one by one when nothing else is left."""
        if self._stopped:
            return
        while self._todo and len(self._flying) < _WINDOW:
            self._submit(self._todo.popleft())
        if self._suspects and not self._flying:
            self._submit(self._suspects.popleft())

    def _submit(self, attempt: Attempt) -> None:
        try:
            future = self._executor.submit(run_task, self._recipe, attempt.task, *self._store)
        except Exception as error:  # executors have no common error for being closed or broken
            raise ExecutorError(f"the executor takes no more tasks ({_line(error)}). {_SAFE}") from error
        self._flying[future] = attempt
        future.add_done_callback(self._ended.put)

    def _judge(self, future: Future[Outcome], attempt: Attempt) -> End | None:
        """Return the end of a task, or None if it is tried again."""
        try:
            outcome = future.result()
        except concurrent.futures.CancelledError as error:
            if self._stopped:
                return None
            attempt.drops += 1
            if attempt.drops >= _DROPS:
                raise ExecutorError(
                    f"the executor dropped a task {_DROPS} times, such as a lost scheduler. {_SAFE}"
                ) from error
            self._todo.append(attempt)
            return None
        except Exception as error:  # a plugin may fail in any way, and one task is no reason to stop the others
            if worker_died(error):
                return self._suspect(attempt, error)
            attempt.errors += 1
            self._n_refused = self._n_refused + 1 if isinstance(error, StoreError) else 0
            refused = self._n_refused >= _REFUSALS
            if attempt.errors < _TRIES and not self._stopped and not refused:
                self._todo.append(attempt)
                return None
            return End(attempt.task, None, error, refused=refused)
        self._n_done += 1
        self._n_refused = 0
        return End(attempt.task, outcome)

    def _suspect(self, attempt: Attempt, error: Exception) -> End | None:
        attempt.deaths += 1
        if attempt.deaths < _TRIES:
            self._suspects.append(attempt)
            return None
        self._n_killed += 1
        if not self._n_done and (self._n_killed >= _DEATHS or not self._alive()):
            name = f"{attempt.task.part.name}/{attempt.task.number}"
            raise ExecutorError(
                f"worker processes die whatever they do, the last one in task {name} ({_line(error)}): out of memory, or an "
                f"installation that crashes. {_SAFE}"
            ) from error
        return End(attempt.task, None, error, killed=True)

    def _alive(self) -> bool:
        """Return whether a worker survives a call that does nothing."""
        try:
            self._executor.submit(os.getpid).result()
        except Exception as error:
            return not worker_died(error)
        return True


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
