"""Executors that label chunks of samples: those of the caller, of Dask, of local processes, or this process."""

from __future__ import annotations

import concurrent.futures
import sys
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, TypeVar

from mlffstore.errors import ExecutorError
from mlffstore.runtime.calls import contained
from mlffstore.runtime.dask_client import active_client, as_executor
from mlffstore.runtime.processes import local_pool

if TYPE_CHECKING:
    import contextlib

    from distributed import Client

T = TypeVar("T")


def label_pool(stack: contextlib.ExitStack, executor: Executor | Client | None, workers: int) -> tuple[Executor, int]:
    """Return the executor that labels chunks, and how many chunks should wait there.

    Parameters
    ----------
    stack : contextlib.ExitStack
        It shuts down a pool that is made here.
    executor : concurrent.futures.Executor, or distributed.Client, or None
        What to use instead. The default is the active Dask client, if there is one.
    workers : int
        Number of processes of a pool that is made here; 1 for this process.

    Raises
    ------
    ExecutorError
        If the active Dask client has no connection to its scheduler.
    """
    if executor is None and (client := active_client()) is not None:
        executor = client
    if executor is not None:
        return as_executor(executor), max(16, 2 * workers)
    if workers == 1:
        return InProcessExecutor(), 1
    return stack.enter_context(local_pool(workers)), 2 * workers


def worker_died(error: Exception) -> bool:
    """Return whether the error of a future says that a worker process died, here or on a Dask cluster."""
    if isinstance(error, concurrent.futures.BrokenExecutor):
        return True
    scheduler = sys.modules.get("distributed.scheduler")
    return scheduler is not None and isinstance(error, scheduler.KilledWorker)


def result_of(future: Future[T], doing: str) -> T:
    """Return the result of a call.

    Parameters
    ----------
    future : concurrent.futures.Future
    doing : str
        What the call is part of; an error begins with it.

    Raises
    ------
    ExecutorError
        If the worker died, or the executor dropped the call.
    """
    safe = "What was committed is safe: run it again, with fewer workers if memory is short"
    try:
        return future.result()
    except concurrent.futures.CancelledError as error:
        raise ExecutorError(
            f"{doing}: the executor dropped a call, as when Dask's scheduler is lost. {safe}"
        ) from error
    except Exception as error:
        if worker_died(error):
            raise ExecutorError(f"{doing}: a worker process died ({error}). {safe}") from error
        raise


class InProcessExecutor(Executor):
    """Runs each call immediately in this process."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run and return a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(contained(function, *args, **kwargs))
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            future.set_exception(error)
        return future
