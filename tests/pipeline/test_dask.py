"""Runs on real Dask clusters of processes: workers are killed, run out of memory, and come and go; a scheduler restarts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import mlffstore as ml
from mlffstore.errors import MlffstoreError
from mlffstore.pipeline.account import account
from mlffstore.pipeline.run import run
from tests.clusters import cluster, scheduler, until, worker
from tests.pipeline.faults import check_set_aside, recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

dask = pytest.importorskip("dask")
pytest.importorskip("distributed")


@pytest.fixture(autouse=True)
def _one_death_is_enough() -> Iterator[None]:
    """Let a task be on a worker that dies once more, and no more often."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        yield


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tasks_that_kill_dask_workers_are_set_aside_while_workers_are_killed_at_random(tmp_path):
    parsed = recipe(tmp_path, 0.1)
    with cluster(active=False, n_workers=2) as client:
        outcomes, killed = list[Any](), list[int]()

        def progress(outcome: Any) -> None:
            outcomes.append(outcome)
            if len(outcomes) >= 4 and not killed:  # any worker, whatever it does; a task may have killed one just now
                killed.extend(sorted(client.run(os.getpid, on_error="ignore").values())[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

        report = run(parsed, executor=client, progress=progress)
    assert killed
    check_set_aside(parsed)
    assert len(report.set_aside) == 1
    assert "KilledWorker" in report.set_aside[0] or "Attempted to run task" in report.set_aside[0]
    assert not report.failed
    assert not report.short


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_task_that_needs_more_memory_than_dask_allows_is_set_aside(tmp_path):
    parsed = recipe(tmp_path, 0.1, how="memory")
    with cluster(active=False, n_workers=1, memory_limit="700 MB") as client:
        report = run(parsed, executor=client)
    check_set_aside(parsed)
    assert not report.failed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_adaptive_cluster_grows_and_shrinks_and_the_run_ends(tmp_path):
    parsed = recipe(tmp_path, 0.0, samples=40)
    with cluster(active=False, n_workers=0) as client:
        client.cluster.adapt(minimum=0, maximum=2, interval="200ms", target_duration="1s")
        report = run(parsed, executor=client)
    assert report.accepted == len(ml.open(parsed.store)) == 40


@pytest.mark.slow
def test_a_scheduler_that_restarts_costs_a_run_nothing(tmp_path):
    parsed = recipe(tmp_path, 0.0, samples=60)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(parsed.model_dump(mode="json", exclude_none=True)))
    file = tmp_path / "scheduler.json"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    processes = [scheduler(file, port)]
    try:
        until(file.exists)
        processes.append(worker(file))
        driver = subprocess.Popen(
            [sys.executable, "-m", "mlffstore", "run", str(path), "--scheduler-file", str(file), "--no-recheck"],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        processes.append(driver)
        until(lambda: _n_samples(parsed.store) >= 5)
        processes[0].kill()
        processes[0].wait()
        before = _n_samples(parsed.store)
        processes += [scheduler(file, port), worker(file)]
        _, stderr = driver.communicate(timeout=300)
        assert driver.returncode == 0, stderr
        assert 0 < before < 60
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert _n_samples(parsed.store) == 60
    assert account(parsed, n_environments=0).parts[0].set_aside == {}


def _n_samples(store: str) -> int:
    try:
        return len(ml.open(store))
    except MlffstoreError:
        return 0
