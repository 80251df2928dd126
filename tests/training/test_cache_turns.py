"""Of several processes that need a cold cache one builds it, and the others wait for it or take over."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.runtime import folders
from mlffstore.runtime.turns import BuildTurn
from mlffstore.training import cache
from mlffstore.training.sources import source

N = 60

_CHILD = """
import signal, sys
import mlffstore as ml
from mlffstore.training import cache
from mlffstore.training.sources import source
build, stop = cache._build, sys.argv[2] == "stop"
def counted(*args):
    print("builds", flush=True)
    return build(*args)
cache._build = counted
def progress(done, total):
    print(done, total, flush=True)
    if stop:
        signal.pause()
sys.stdin.readline()
print(cache.mapped(source(sys.argv[1], None), progress).rows.tolist() != [], flush=True)
"""


@pytest.fixture
def store(tmp_path, caches):
    rng = np.random.default_rng(0)
    store = ml.create(tmp_path / "d.zarr")
    store.append(ml.SampleBatch(
        n_atoms=[3] * N, numbers=[6] * 3 * N, positions=rng.normal(size=(3 * N, 3)), energy=np.arange(float(N)),
        forces=rng.normal(size=(3 * N, 3)),
    ))  # fmt: skip
    return store


@pytest.fixture
def start(store):
    """Return a function that starts a process, which begins when it is told to."""
    children = []

    def start(stop=False):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, store.url, "stop" if stop else "go"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_one_process_builds_and_the_others_wait(start, caches):
    children = [start() for _ in range(4)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=120)[0].splitlines() for child in children]
    assert all(lines[-1] == "True" for lines in outputs)
    assert sum("builds" in lines for lines in outputs) == 1
    assert len(list(caches.iterdir())) == len(cache.cached()) == 1


def test_a_waiting_process_shows_the_progress_and_takes_over_from_one_that_is_killed(store, start, caches):
    builder = start(stop=True)
    builder.stdin.write("\n")
    builder.stdin.flush()
    assert [builder.stdout.readline() for _ in range(2)] == ["builds\n", f"{N} {N}\n"]
    seen, done = [], []
    waiting = threading.Event()

    def progress(*numbers):
        seen.append(numbers)
        waiting.set()

    thread = threading.Thread(target=lambda: done.append(cache.mapped(source(store, None), progress)))
    thread.start()
    assert waiting.wait(60)
    assert seen[0] == (N, N)  # what the other process reported
    assert not done
    assert len(cache.cached()) == 0
    builder.send_signal(signal.SIGKILL)
    thread.join(60)
    assert len(done[0]) == N
    assert len(cache.cached()) == 1


def test_threads_wait_for_each_other(store, monkeypatch):
    builds, build = [], cache._build
    monkeypatch.setattr(cache, "_build", lambda *args: builds.append(1) or build(*args))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(len(cache.mapped(source(store, None))))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (results, builds) == ([N] * 4, [1])


def test_a_build_that_fails_lets_others_try(store, monkeypatch, caches):
    build = cache._build

    def fails(*args):
        raise RuntimeError("stopped")

    monkeypatch.setattr(cache, "_build", fails)
    with pytest.raises(RuntimeError, match="stopped"):
        cache.mapped(source(store, None))
    assert list(caches.iterdir()) == []
    monkeypatch.setattr(cache, "_build", build)
    assert len(cache.mapped(source(store, None))) == N


def test_the_line_for_people(store, monkeypatch, caplog):
    cache.mapped(source(store, None))
    (folder,) = [one.path for one in cache.cached()]
    folders.clear()
    turn = BuildTurn(folder)
    assert turn.take()
    turn.report(5, N)
    monkeypatch.setattr(cache, "_FIRST_LINE", 0.0)
    threading.Timer(0.5, turn.release).start()
    assert len(cache.mapped(source(store, None))) == N
    line = caplog.records[0].getMessage()
    assert line.endswith(f"waiting for the process that is building the cache, 5 of {N} samples")


def test_lock_files_of_killed_processes_are_removed_and_others_are_not(store, caches):
    caches.mkdir(exist_ok=True)
    (caches / f"{'0' * 32}.lock").write_text("")
    turn = BuildTurn(caches / ("1" * 32))
    assert turn.take()
    assert not BuildTurn(caches / ("1" * 32)).take()
    folders.sweep()
    assert [path.name for path in caches.iterdir()] == [f"{'1' * 32}.lock"]
    turn.release()
    assert list(caches.iterdir()) == []
