"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = TypeVar("Result")


@contextlib.contextmanager
def local_pool(workers: int) -> Iterator[Executor]:
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


class Workers:
    """Processes that are kept, and started again when one of them has died.

    Parameters
    ----------
    count : int
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Result], /, *args: Any) -> Future[Result]:
        """Run a function in one of the processes; the future raises `BrokenProcessPool` if a process dies."""
        with _single_threaded():
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=_start_worker)
            try:
                return self._pool.submit(function, *args)
            except BrokenProcessPool as error:  # it broke since the last call
                future: Future[Result] = Future()
                future.set_exception(error)
                return future

    def restart(self) -> None:
        """Let the next call start new processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


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
