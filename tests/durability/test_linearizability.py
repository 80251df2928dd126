"""What several processes did and saw, checked against the log as docs/format.md has it.

A history is linearizable if each operation takes effect at one instant between its call and its return. The log is
the order of the commits, so a checker needs no search (Herlihy and Wing, ACM TOPLAS 12, 463, 1990): a commit that is
acknowledged is in the log at its version; an operation that began after another had returned comes after it; a read
sees exactly what the log says as of one version, which lies between the versions that had been acknowledged before it
began and those that existed when it ended.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

import mlffstore as ml
from tests.durability.log_reader import View, read_log
from tests.processes import fresh_processes

pytestmark = pytest.mark.timeout(3600)  # at nightly size, on a busy machine

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Operation:
    """One call: when it was made and when it returned, on the clock of the machine, and what came of it."""

    kind: str
    called: float
    returned: float
    version: int
    key: str | None = None
    energies: tuple[float, ...] = ()


def batch(energies: list[float]) -> ml.SampleBatch:
    n = len(energies)
    return ml.SampleBatch(
        n_atoms=[1] * n,
        numbers=[2] * n,
        positions=np.zeros((n, 3)),
        multiplicity=[1] * n,
        energy=energies,
        forces=np.zeros((n, 3)),
        teacher="t",
    )


def act(url: str, process: int, n: int, barrier, results) -> None:
    """Append, read, compact and repeat appends with known keys at random."""
    rng = random.Random(process)
    store = ml.open(url, "a")
    history: list[Operation] = []
    barrier.wait()
    for i in range(n):
        kind = rng.choices(["append", "again", "read", "reopen", "compact"], [6, 1, 4, 2, 1])[0]
        key = f"{process}/{i if kind == 'append' else rng.randrange(i + 1)}" if rng.random() < 0.8 else None
        energies = [float(1000 * process + i)] * rng.randint(1, 3)
        called = time.monotonic()
        if kind == "append":
            version = store.append(batch(energies), key=key)
            history.append(Operation("append", called, time.monotonic(), version, key, tuple(energies)))
        elif kind == "again" and (known := [op for op in history if op.kind == "append" and op.key]):
            earlier = rng.choice(known)
            version = store.append(batch(list(earlier.energies)), key=earlier.key)
            history.append(Operation("again", called, time.monotonic(), version, earlier.key, earlier.energies))
        elif kind == "compact":
            versions = store.compact().versions
            history += [Operation("compact", called, time.monotonic(), version) for version in versions]
        else:
            snap = (ml.open(url) if kind == "reopen" else store).snapshot()
            returned = time.monotonic()
            seen = tuple(snap.read(columns=["energy"]).energy.tolist()) if len(snap) else ()
            history.append(Operation("read", called, returned, snap.version, None, seen))
    results.put(history)


def check(views: list[View], history: list[Operation]) -> None:
    """Raise unless the history is linearizable in the order of the log."""
    for op in history:
        assert 0 <= op.version < len(views), f"a version that the log does not have: {op}"
        view, before = views[op.version], views[op.version - 1]
        if op.kind == "read":
            assert op.energies == view.energies, f"not what the log says as of version {op.version}"
        elif op.kind in ("append", "again"):
            if op.key is not None:
                assert view.keys[op.key] == op.version, f"acknowledged with another version: {op}"
            assert view.energies == before.energies + op.energies, f"not what was appended: {op}"
        else:
            assert view.energies == before.energies, f"a compaction that changed something: {op}"
    commits = [op.version for op in history if op.kind in ("append", "compact")]
    assert sorted(commits) == list(range(1, len(views))), "a commit of nobody, or acknowledged twice"
    called = {op.version: op.called for op in history if op.kind in ("append", "compact")}
    for op in history:  # nothing is seen before it was called for
        assert called.get(op.version, 0.0) <= op.returned, f"from the future: {op}"
    newest, returned = 0, sorted(history, key=lambda op: op.returned)
    waiting = iter(returned)
    past = next(waiting, None)
    for op in sorted(
        history, key=lambda op: op.called
    ):  # what had returned before a call is not newer than what it saw
        while past is not None and past.returned < op.called:
            newest, past = max(newest, past.version), next(waiting, None)
        if op.kind != "again":  # which answers with a version of the past
            assert op.version >= newest, f"began after version {newest} had been seen or acknowledged: {op}"


@pytest.mark.parametrize(("processes", "n"), [(3, 40), pytest.param(6, 400, marks=pytest.mark.slow)])
def test_histories_are_linearizable(processes, n, tmp_path):
    views, history = run(tmp_path / "d.zarr", processes, n)
    check(views, history)
    assert {op.kind for op in history} == {"append", "again", "read", "compact"}


def run(folder: Path, processes: int, n: int) -> tuple[list[View], list[Operation]]:
    ml.create(folder)
    context = fresh_processes()
    barrier, results = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=act, args=(str(folder), k, n, barrier, results)) for k in range(processes)]
    for worker in workers:
        worker.start()
    history = [op for _ in workers for op in results.get(timeout=1800)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    return read_log(folder), history


def test_the_checker_finds_what_is_wrong(tmp_path):
    """Histories with one flaw each are refused."""
    store = ml.create(tmp_path / "d.zarr")
    for i in range(3):
        store.append(batch([float(i)]), key=f"{i}")
    views = read_log(tmp_path / "d.zarr")
    good = [Operation("append", float(i), i + 0.5, i + 1, f"{i}", (float(i),)) for i in range(3)]
    check(
        views,
        [*good, Operation("read", 2.1, 2.6, 2, None, (0.0, 1.0)), Operation("read", 3, 4, 3, None, (0.0, 1.0, 2.0))],
    )
    flaws = {
        "not what the log says": [*good, Operation("read", 3, 4, 3, None, (0.0, 1.0))],  # a torn read
        "had been seen or acknowledged": [*good, Operation("read", 3, 4, 2, None, (0.0, 1.0))],  # a stale read
        "from the future": [*good, Operation("read", 0, 0.2, 3, None, (0.0, 1.0, 2.0))],
        "does not have": [*good, Operation("append", 3, 4, 4, "3", (3.0,))],  # acknowledged and lost
        "acknowledged twice": [*good, Operation("append", 2, 4, 3, "2", (2.0,))],
        "a commit of nobody": good[:2],
        "another version": [*good[:2], Operation("append", 2, 2.5, 3, "1", (2.0,))],
    }
    for message, history in flaws.items():
        with pytest.raises(AssertionError, match=message):
            check(views, history)
