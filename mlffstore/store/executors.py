"""Executors that label chunks of samples: those of the caller, of Dask, of local processes, or this process."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from mlffstore.runtime.processes import local_pool

if TYPE_CHECKING:
    import contextlib


def label_pool(stack: contextlib.ExitStack, executor: Executor | None, workers: int) -> tuple[Executor, int]:
    """Return the executor that labels chunks, and how many chunks should wait there.

    Parameters
    ----------
    stack : contextlib.ExitStack
        It shuts down a pool that is made here.
    executor : concurrent.futures.Executor, or None
        An executor to use as it is. The default is the active Dask client, if there is one.
    workers : int
        Number of processes of a pool that is made here; 1 for this process.
    """
    if executor is None:
        executor = _dask_executor()
    if executor is not None:
        return executor, max(16, 2 * workers)
    if workers == 1:
        return InProcessExecutor(), 1
    return stack.enter_context(local_pool(workers)), 2 * workers


def _dask_executor() -> Executor | None:
    """Return an executor of the active Dask client, if there is one."""
    import sys

    if "distributed" not in sys.modules:
        return None
    from distributed import get_client

    try:
        return get_client().get_executor()  # type: ignore[no-any-return]
    except ValueError:  # no client
        return None


class InProcessExecutor(Executor):
    """Runs each call immediately in this process."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run and return a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            future.set_exception(error)
        return future
