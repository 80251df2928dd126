"""`read_ahead`: numbered objects in order, of which the next ones are read in parallel while one is in use."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from mlffstore.runtime.threads import IO_THREADS, io_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
#: Objects that are read one after another before others are read ahead: most readers find one or two new ones.
_ALONE = 8
#: Seconds that an object takes from which on others are read ahead. Where the page cache has them, threads would only
#: take turns.
_SLOW_SECONDS = 3e-4
#: Most objects that are on the way at a time, and most that one job of the pool reads.
_MOST, _MOST_OF_JOB = 256, 32
#: Bytes of the objects on the way at a time, unless one alone has more.
_MAX_NBYTES = 32 << 20


class Sized(NamedTuple, Generic[T]):
    """An object as it was read, and the number of bytes that were read for it."""

    value: T
    nbytes: int


class _Job(NamedTuple, Generic[T]):
    """Objects that one job read: up to the first that does not exist (None), or up to an error."""

    objects: list[Sized[T] | None]
    error: Exception | None


def read_ahead(read: Callable[[int], Sized[T] | None], start: int, stop: int | None) -> Iterator[T]:
    """Yield the objects from number `start` up to the first that does not exist, or up to `stop`, which is not included.

    Parameters
    ----------
    read : callable
        It returns the object of a number, or None if there is none. It is called in several threads at once.
    start : int
    stop : int or None

    Yields
    ------
    object
        In order. A quarter as many objects are on the way as were read before, up to a limit, so that few reads are in vain
        where there are few objects. Memory holds some 32 MB of them.

    Raises
    ------
    Exception
        What `read` raises for a number, after all objects before it were yielded.
    """
    version, n_read, largest, seconds, slow = start, 0, 1, 0.0, False
    waiting: deque[tuple[Future[_Job[T]], int]] = deque()
    n_waiting = 0
    try:
        while True:
            slow = slow or (n_read > _ALONE and seconds >= _SLOW_SECONDS)
            if slow:
                room = max(1, min(n_read // 4, _MOST, _MAX_NBYTES // largest))
                size = max(1, min(_MOST_OF_JOB, room // IO_THREADS))
                while n_waiting < room and (stop is None or version < stop):
                    end = version + size if stop is None else min(stop, version + size)
                    waiting.append((io_pool().submit(_read_all, read, version, end), end - version))
                    n_waiting, version = n_waiting + end - version, end
                if not waiting:
                    return
                future, size = waiting.popleft()
                job = future.result()
                n_waiting -= size
            elif stop is None or version < stop:
                began = time.perf_counter()
                job, version = _read_all(read, version, version + 1), version + 1
                seconds += (time.perf_counter() - began - seconds) / (1 + min(n_read, _ALONE))  # a moving average
            else:
                return
            for item in job.objects:
                if item is None:
                    return
                n_read, largest = n_read + 1, max(largest, item.nbytes)
                yield item.value
            if job.error is not None:
                raise job.error
    finally:
        for future, _ in waiting:
            future.cancel()


def _read_all(read: Callable[[int], Sized[T] | None], start: int, stop: int) -> _Job[T]:
    """Read objects one after another up to the first that does not exist or cannot be read."""
    objects: list[Sized[T] | None] = []
    for number in range(start, stop):
        try:
            objects.append(read(number))
        except Exception as error:  # raised where the object would have been yielded
            return _Job(objects, error)
        if objects[-1] is None:
            break
    return _Job(objects, None)
