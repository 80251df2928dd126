"""Writers: what an exception, an unclear commit and a second run do to what was added."""

from __future__ import annotations

import errno
import logging

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, StorageError
from mlffstore.storage import local


@pytest.fixture
def store(tmp_path):
    return ml.create(tmp_path / "d.zarr")


def sample(i: int) -> ml.SampleBatch:
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0 + 0.01 * i]])
    return ml.SampleBatch(n_atoms=[2], numbers=[1, 1], positions=positions, energy=[float(i)], forces=np.zeros((2, 3)))


def energies(store: ml.Store) -> list[float]:
    return store.snapshot().read().energy.tolist() if len(store) else []


def program(
    store: ml.Store, n: int, stop: int | None = None, key: str | None = "job", size: int = 10, **options
) -> None:
    """Write n samples in order; raise before sample `stop`."""
    with store.writer(size, key=key, **options) as writer:
        for i in range(n):
            if i == stop:
                raise KeyboardInterrupt
            writer.add(sample(i))


@pytest.mark.parametrize("stops", [[0], [7], [10], [25], [3, 12, 12, 19, 27]])
def test_a_keyed_program_that_is_interrupted_and_run_again_writes_each_sample_once(store, stops, caplog):
    for stop in stops:
        with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
            program(store, 33, stop=stop)
        assert energies(store) == list(range(max(len(store), stop // 10 * 10)))
    assert ("samples waiting; they were not committed" in caplog.text) == any(stop % 10 for stop in stops)
    for _ in range(2):
        program(store, 33)
        assert energies(store) == list(range(33))


def test_other_samples_under_the_keys_of_a_program_are_refused(store):
    program(store, 15)
    with pytest.raises(ConflictError, match="key 'job/1'"):
        program(store, 20)  # the last block had 5 samples
    with pytest.raises(ConflictError, match="key 'job/0'"):
        program(store, 15, size=5)
    assert energies(store) == list(range(15))


def test_without_a_key_an_exception_commits_what_waits(store):
    with pytest.raises(KeyboardInterrupt):
        program(store, 33, stop=25, key=None)
    assert energies(store) == list(range(25))


def test_skipping_duplicates_makes_an_unkeyed_program_repeatable(store):
    with pytest.raises(KeyboardInterrupt):
        program(store, 33, stop=25, key=None, on_duplicate="skip")
    program(store, 33, key=None, on_duplicate="skip")
    assert energies(store) == list(range(33))


@pytest.mark.parametrize("key", [None, "job"])
@pytest.mark.parametrize("failures", [1, 2, 3, 4])
def test_a_failing_disk_never_doubles_a_block(store, monkeypatch, key, failures):
    """fsync of the log's folder fails after the entry has become visible; the writer goes on, or is run again."""
    real, left = local._fsync_folder, [failures]

    def failing(path):
        if path.endswith("_log") and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error", path)
        real(path)

    monkeypatch.setattr(local, "_fsync_folder", failing)
    if failures == 1:
        program(store, 33, key=key)
    else:
        with pytest.raises(StorageError, match="survives a power loss is unknown"):
            program(store, 33, key=key)
    left[0] = 0
    if key is not None:
        program(store, 33, key=key)
        assert energies(store) == list(range(33))
    values = energies(ml.open(store.url))
    assert values == list(range(len(values)))
    assert len(values) >= 10
    assert store.verify(full=True).ok


def test_samples_that_may_not_be_committed_wait(store):
    program(store, 10)
    writer = store.writer(100, key="job")
    writer.add(sample(50))
    with pytest.raises(ConflictError):
        writer.flush()
    with pytest.raises(ConflictError):
        writer.flush()
    writer.key = "another job"
    writer.flush()
    assert energies(store) == [*range(10), 50]
