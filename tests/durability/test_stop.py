"""Writers are suspended and woken at random moments while garbage is collected; nothing acknowledged is ever lost."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

import mlffstore as ml
from tests.durability.test_kill import acknowledged_commits, expected_energies, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(3600),
]
#: Longer than any suspension below, also on a busy machine.
GRACE = 60.0


@pytest.mark.parametrize(("stores", "stops"), [(1, 10), pytest.param(15, 20, marks=pytest.mark.slow)])
def test_suspended_writers_lose_nothing(stores, stops, tmp_path):
    random.seed(stores)
    for k in range(stores):  # small ones, since each collection reads a whole log
        suspend(tmp_path / f"{k}.zarr", stops)


def suspend(folder: Path, stops: int) -> None:
    """Suspend writers of a new store, collect garbage, kill one, and check what is there."""
    store = ml.create(folder)
    context = multiprocessing.get_context("fork")
    pipes, writers = [], []

    def start() -> None:
        receive, send = os.pipe()
        os.set_blocking(receive, False)
        writers.append(context.Process(target=write, args=(store.url, len(pipes), send), daemon=True))
        writers[-1].start()
        os.close(send)
        pipes.append(receive)

    for _ in range(3):
        start()
    suspended: list[int] = []
    data = [b""] * (3 + stops // 10)
    for i in range(stops):
        process = random.choice([process for process in writers if process.is_alive()])
        os.kill(process.pid, signal.SIGSTOP)
        suspended.append(process.pid)
        time.sleep(random.uniform(0, 0.05))
        store.gc(dry_run=False, grace=GRACE, short_grace=True)
        if len(suspended) == 2 or random.random() < 0.5:  # one or two sleep at a time
            for pid in suspended:
                os.kill(pid, signal.SIGCONT)
            suspended.clear()
        if i % 10 == 9:  # and some die, so that there is garbage
            process.kill()
            process.join()
            suspended = [pid for pid in suspended if pid != process.pid]
            start()
        time.sleep(random.uniform(0, 0.05))
        for k, pipe in enumerate(pipes):  # a full pipe would block its writer
            with contextlib.suppress(BlockingIOError):
                data[k] += os.read(pipe, 1 << 16)
    for process in writers:
        process.kill()
        process.join()
    acknowledged: dict[str, int] = {}
    for k, pipe in enumerate(pipes):
        while part := os.read(pipe, 1 << 16):
            data[k] += part
        acknowledged |= acknowledged_commits(data[k])
    seen = ml.open(store.url)
    keys = seen.keys()
    assert acknowledged
    assert keys | acknowledged == keys, "an acknowledged commit is gone"
    assert set(keys.values()) == set(range(1, seen.version + 1)), "a gap in the log"
    assert np.array_equal(seen.snapshot().read(columns=["energy"]).energy, expected_energies(keys))
    assert seen.verify(full=True).ok
    store.gc(dry_run=False, grace=0)
    assert seen.verify(full=True).ok
