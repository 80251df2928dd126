"""Dask clusters in tests: each with a port of its own for its web server, since tests run side by side."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def cluster(*, active: bool, **options: Any) -> Iterator[Any]:
    """Yield a client of a cluster on this machine, which may be the active one or not."""
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "dashboard_address": ":0", **options}
    with distributed.LocalCluster(**options) as local, distributed.Client(local, set_as_default=active) as client:
        yield client


def scheduler(file: Path, port: int = 0) -> subprocess.Popen[bytes]:
    """Start a scheduler, a process of its own that writes its address in a file."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port),
               "--no-dashboard", "--dashboard-address", ":0", "--scheduler-file", str(file)]  # fmt: skip
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def worker(file: Path) -> subprocess.Popen[bytes]:
    """Start a worker of a scheduler."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-dashboard",
               "--nworkers", "1", "--nthreads", "1"]  # fmt: skip
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # for classes that tests define
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=file.parent, env=env)


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
