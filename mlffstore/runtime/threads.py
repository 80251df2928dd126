"""The pools of threads that the library works with: one for each purpose, made when first needed, anew after a fork."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

#: Computing threads. Compression and checksums release the interpreter's lock.
CPU_THREADS = min(8, os.cpu_count() or 1)
#: Threads that wait for the disk or the network; more than cores is right.
IO_THREADS = 8

_pools: dict[tuple[int, str], ThreadPoolExecutor] = {}


def _pool(kind: str, workers: int) -> ThreadPoolExecutor:
    """Return this process's pool of a kind. The threads of the parent do not exist in a forked child."""
    key = (os.getpid(), kind)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix=f"mlffstore-{kind}")
    return _pools[key]


def cpu_pool() -> ThreadPoolExecutor:
    """Return the pool for computing. Its jobs must not wait for other jobs of the same pool."""
    return _pool("cpu", CPU_THREADS)


def io_pool() -> ThreadPoolExecutor:
    """Return the pool for reading and writing. Its jobs may wait for jobs of `cpu_pool`."""
    return _pool("io", IO_THREADS)
