"""Workers that die and schedulers that are lost during a pass: one clear error, and nothing that was committed is lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import mlffstore as ml
from mlffstore.errors import ExecutorError
from mlffstore.runtime import dask_client
from mlffstore.runtime.dask_client import as_executor
from tests.clusters import scheduler, until, worker
from tests.samples import metal_frames

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> ml.Store:
    """Return a store of four segments without labels."""
    store = ml.create(tmp_path / "d.zarr")
    for seed in range(4):
        frames = metal_frames(5, seed=seed)
        for frame in frames:
            frame.calc = None
        store.append(frames, require=())
    return store


class Deadly:
    """A teacher whose process, or another one, is killed when the second chunk is labelled."""

    def __init__(self, folder: Path, pid: int | None = None) -> None:
        self.inner = ml.get_teacher("emt")
        self.info = self.inner.info
        self.folder, self.pid = folder, pid

    def label(self, batch: ml.SampleBatch) -> Any:
        try:
            (self.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            os.kill(self.pid or os.getpid(), signal.SIGKILL)
            if self.pid:
                signal.pause()
        return self.inner.label(batch)


def test_a_worker_that_dies(store, tmp_path):
    with pytest.raises(ExecutorError, match=r"a worker process died .* What was committed is safe"):
        store.add_labels(Deadly(tmp_path), workers=2, chunk_samples=5)
    assert_the_rest_can_be_labelled(store)


@contextlib.contextmanager
def own_processes(folder: Path) -> Iterator[tuple[Any, subprocess.Popen[bytes]]]:
    """Yield a client, the active one, of a scheduler and a worker that are processes of their own, and the scheduler."""
    distributed = pytest.importorskip("distributed")
    file = folder / "scheduler.json"
    processes = [scheduler(file)]
    try:
        until(file.exists)
        processes.append(worker(file))
        with distributed.Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(1)
            yield client, processes[0]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_scheduler_that_is_lost(store, tmp_path, monkeypatch):
    """Dask takes work for a scheduler that is gone, and would wait for it for ever."""
    monkeypatch.setattr(dask_client, "_PATIENCE", 0.2)
    with own_processes(tmp_path) as (client, process):
        with pytest.raises(ExecutorError, match=r"dropped a call, .* scheduler is lost"):
            store.add_labels(Deadly(tmp_path, process.pid), chunk_samples=5)
        until(lambda: client.status == "connecting")
        for call in (
            lambda: store.add_labels("emt"),
            lambda: ml.verify(store.url),
            lambda: ml.statistics(store).compute(),
            lambda: ml.validate(store).compute(),
        ):
            with pytest.raises(ExecutorError, match="has no connection to its scheduler"):
                call()
    assert_the_rest_can_be_labelled(store)


class Fatal:
    """A result that kills a process, the scheduler, when the worker sends it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __reduce__(self) -> Any:
        os.kill(self.pid, signal.SIGKILL)
        return dict, ()


def test_a_result_that_is_lost_on_its_way(tmp_path):
    """The future of Dask's own executor would never end: it is replaced, also where it is passed."""
    with own_processes(tmp_path) as (client, process):
        future = as_executor(client.get_executor()).submit(Fatal, process.pid)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=300)


def assert_the_rest_can_be_labelled(store: ml.Store) -> None:
    assert store.verify(full=True).ok
    assert store.add_labels("emt").labelled > 0
    assert not store.snapshot().to_xarray()["energy"].isnull().any()
