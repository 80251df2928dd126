"""An interrupt at any line of what changes the shared state of a store; then the same store goes on."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.format import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable


class InterruptAt:
    """A trace function that raises KeyboardInterrupt at the n-th line executed in some functions of the library."""

    def __init__(self, n: int, functions: tuple[str, ...]) -> None:
        self.n, self.functions, self.raised = n, functions, False

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        code = frame.f_code
        return self._line if code.co_name in self.functions and "mlffstore" in code.co_filename else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            self.n -= 1
            if self.n == 0:
                self.raised = True
                raise KeyboardInterrupt
        return self._line


def batch(i: int) -> ml.SampleBatch:
    """Return two samples, another pair for each i."""
    positions = np.zeros((2, 3))
    positions[:, 0] = [i, i + 0.5]
    return ml.SampleBatch(
        n_atoms=[1, 1], numbers=[2, 2], positions=positions, energy=[i, i + 0.5], forces=np.zeros((2, 3))
    )


def skip(store: ml.Store, i: int) -> None:
    store.append(batch(i), on_duplicate="skip")


def reject(store: ml.Store, i: int) -> None:
    store.commit(batch(i), rejected=batch(100 + i), reasons=["hot", "cold"])


@pytest.mark.parametrize(
    ("write", "functions"),
    [
        (skip, ("add", "update", "refresh", "apply", "_append", "append", "_advance", "commit")),
        (reject, ("apply", "_append", "append", "add", "splice", "number", "lines", "save", "encode", "refresh")),
    ],
)
def test_an_interrupt_at_any_line(write: Callable[[ml.Store, int], None], functions, tmp_path, monkeypatch, thorough):
    """With --run-slow at each line, else at every fourth."""
    monkeypatch.setattr(checkpoint, "EVERY", 3)
    n = 0
    while True:
        n += 1 if thorough else 4
        store = ml.create(tmp_path / "d.zarr")
        write(store, 0)
        trace = InterruptAt(n, functions)
        sys.settrace(trace)
        try:
            write(store, 1)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        interrupted = len(store)
        assert interrupted in (2, 4)
        for i in range(1, 5) if write is skip else range(2, 6):
            write(store, i)
        fresh = ml.open(store.url)
        counts = [(len(one), one.snapshot().n_quarantined, one.snapshot().elements()) for one in (store, fresh)]
        shutil.rmtree(f"{store.url}/_checkpoint", ignore_errors=True)
        truth = ml.open(store.url)
        counts.append((len(truth), truth.snapshot().n_quarantined, truth.snapshot().elements()))
        assert counts[0] == counts[1] == counts[2]
        hashes = truth.snapshot().read().content_hash.tolist()
        assert len(hashes) == len(set(hashes)) == (10 if write is skip else interrupted + 8)
        shutil.rmtree(store.url)
        if not trace.raised:
            break
    assert n > 50


def test_verification_in_a_forked_child(tmp_path):
    """The threads of the parent, which verified before, do not exist in the child."""
    store = ml.create(tmp_path / "d.zarr")
    for i in range(20):
        store.append(batch(i))
    assert store.verify(full=True).ok
    child = os.fork()
    if child == 0:
        status = 1
        try:
            import signal

            signal.alarm(60)
            status = 0 if store.verify(full=True).ok and len(store) == 40 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
