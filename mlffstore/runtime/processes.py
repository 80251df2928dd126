"""Worker processes on this machine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import threading
from collections import deque
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any, TypeVar

from mlffstore.errors import PluginError
from mlffstore.runtime.calls import carry_out, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = TypeVar("Result")


@contextlib.contextmanager
def local_pool(workers: int) -> Iterator[Executor]:
    """Yield a pool of processes that end with this one, however it ends."""
    with _single_threaded():
        pool = IsolatedProcesses(workers)
        try:
            yield pool
        except BaseException:
            # Stopped: what the workers are doing now is made again from the same seeds, so nothing is worth waiting for.
            pool.terminate()
            raise
        pool.shutdown()


class IsolatedProcesses(Executor):
    """Processes of which one that dies takes only its own call with it.

    The pool of the standard library gives up all calls when a process dies, and cannot tell which of them killed it. Here
    each process has one call at a time. The future of a call whose process dies raises `BrokenProcessPool`; another process
    takes the place of the dead one.

    Parameters
    ----------
    workers : int
        Number of processes. They start with the first calls.
    """

    def __init__(self, workers: int) -> None:
        self._lock = threading.RLock()
        self._pools: list[ProcessPoolExecutor] = [_one_process() for _ in range(workers)]
        self._idle = list(range(workers))
        self._calls: deque[tuple[Future[Any], bytes]] = deque()
        self._closed = False

    def submit(self, function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Run a function in one of the processes, as soon as one is idle."""
        future: Future[Result] = Future()
        try:
            call = packed(function, args, kwargs)
        except PluginError as error:
            future.set_exception(error)
            return future
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot submit calls after shutdown")
            self._calls.append((future, call))
        self._feed()
        return future

    def _feed(self) -> None:
        """Give the calls that wait to the processes that are idle."""
        while True:
            with self._lock:
                if not self._calls or not self._idle:
                    return
                future, call = self._calls.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                place = self._idle.pop()
                try:
                    answer = self._pools[place].submit(carry_out, call)
                except BrokenProcessPool:  # it died while it had nothing to do
                    self._pools[place] = _one_process()
                    answer = self._pools[place].submit(carry_out, call)
            answer.add_done_callback(functools.partial(self._end, place, future))

    def _end(self, place: int, future: Future[Any], answer: Future[bytes]) -> None:
        """Hand on what became of a call, and use its process for the next one."""
        if answer.cancelled():
            future.set_exception(BrokenProcessPool("the pool was shut down"))
            return
        error = answer.exception()
        with self._lock:
            if isinstance(error, BrokenProcessPool) and not self._closed:
                self._pools[place] = _one_process()
            self._idle.append(place)
        _settle(future, answer)
        self._feed()

    def terminate(self) -> None:
        """End all processes now, and give up all calls."""
        with self._lock:
            self._closed = True
            pools = list(self._pools)
        self._cancel()
        for pool in pools:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when the calls have ended."""
        if cancel_futures:
            self._cancel()
        with self._lock:
            waiting = [future for future, *_ in self._calls]
        if wait:
            concurrent.futures.wait(waiting)
        with self._lock:
            self._closed = True
            pools = list(self._pools)
        for pool in pools:
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _cancel(self) -> None:
        with self._lock:
            calls, self._calls = list(self._calls), deque()
        for future, *_ in calls:
            future.cancel()
            future.set_running_or_notify_cancel()


def _settle(future: Future[Any], answer: Future[bytes]) -> None:
    """Copy the answer of a process, which has come, to the future of a call."""
    try:
        result = unpacked(answer.result())
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _one_process() -> ProcessPoolExecutor:
    # spawn: torch, tblite's OpenMP and our own threads do not survive a fork.
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)


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
                # A process of multiprocessing waits for its children when it ends, after this. Queues close at priority 10.
                Finalize(self, self._pool.shutdown, kwargs={"cancel_futures": True}, exitpriority=100)
            future: Future[Result] = Future()
            try:
                answer = self._pool.submit(carry_out, packed(function, args, {}))
            except (BrokenProcessPool, PluginError) as error:  # broken: since the last call
                future.set_exception(error)
            else:
                answer.add_done_callback(functools.partial(_settle, future))
            return future

    def restart(self) -> None:
        """Let the next call start new processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Let child processes that start meanwhile compute with one thread each; the workers are the parallelism.

    When workers are stopped, multiprocessing's own process removes their semaphores; it does not warn of them.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in (*names, "PYTHONWARNINGS")}
    os.environ.update({name: "1" for name in names if before[name] is None})
    chosen = before["PYTHONWARNINGS"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [chosen, "ignore:resource_tracker"]))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _start_worker() -> None:
    """Ignore Ctrl-C, which the parent handles, and end when the parent has died.

    What a plugin prints goes to stderr: the results of a command, such as one JSON document, are on stdout.
    """
    import signal

    with contextlib.suppress(OSError):  # closed
        os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="mlffstore-parent-watch").start()
