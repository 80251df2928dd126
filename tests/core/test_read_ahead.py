"""Many log entries are read in parallel: in order, with the errors of one after another, and few of them at a time."""

from __future__ import annotations

import threading
import time

import pytest

import mlffstore as ml
from mlffstore.errors import CorruptionError
from mlffstore.format import read_ahead as module
from mlffstore.format.entry import entry_path
from mlffstore.format.read_ahead import Sized, read_ahead
from tests.samples import metal_frames


class Objects:
    """So many numbered objects; it counts the reads and how many of them happen at the same time."""

    def __init__(self, n: int, nbytes: int = 10, bad: int | None = None) -> None:
        self.n, self.nbytes, self.bad = n, nbytes, bad
        self.asked: list[int] = []
        self.yielded = self.most_unused = 0
        self._lock = threading.Lock()

    def read(self, number: int) -> Sized[int] | None:
        with self._lock:
            self.asked.append(number)
            self.most_unused = max(self.most_unused, len(self.asked) - self.yielded)
        if number == self.bad:
            raise CorruptionError(f"{number} is damaged")
        return Sized(number, self.nbytes) if number < self.n else None

    def all(self, start: int = 0, stop: int | None = None) -> list[int]:
        out = []
        for value in read_ahead(self.read, start, stop):
            out.append(value)
            self.yielded += 1
        return out


@pytest.fixture(autouse=True, params=["slow", "fast"])
def storage(request, monkeypatch):
    """Objects count as slow to read, or as fast, however long they take."""
    monkeypatch.setattr(module, "_SLOW_SECONDS", 0.0 if request.param == "slow" else 1e9)
    return request.param


@pytest.mark.parametrize("n", [0, 1, 8, 9, 10, 11, 100, 3000])
def test_all_come_in_order_and_the_end_is_found(n):
    assert Objects(n).all() == list(range(n))
    assert Objects(n).all(stop=n) == list(range(n))
    assert Objects(n).all(start=n // 2, stop=n - 1) == list(range(n // 2, n - 1))


def test_nothing_beyond_the_stop_is_read_and_little_beyond_the_end():
    objects = Objects(5000)
    assert objects.all(stop=700) == list(range(700))
    assert sorted(objects.asked) == list(range(700))
    for n in range(9):  # as after most commits
        few = Objects(n)
        few.all()
        assert few.asked == list(range(n + 1))


def test_an_error_comes_where_its_object_would_have_come():
    for bad in (0, 2, 9, 40, 999):
        values = read_ahead(Objects(2000, bad=bad).read, 0, None)
        assert [next(values) for _ in range(bad)] == list(range(bad))
        with pytest.raises(CorruptionError, match=f"^{bad} is damaged"):
            next(values)


def test_an_error_beyond_the_end_is_none():
    assert Objects(50, bad=52).all() == list(range(50))


def test_what_waits_is_bounded_by_number_and_by_size(storage):
    small, large = Objects(5000), Objects(300, nbytes=8 << 20)
    small.all()
    large.all()
    assert small.most_unused <= 300
    assert (small.most_unused > 8) == (storage == "slow")
    assert large.most_unused <= 5


def test_reads_that_take_long_wait_at_the_same_time(storage, monkeypatch):
    monkeypatch.undo()
    if storage == "fast":
        pytest.skip("the time that the reads take counts")
    waiting, most, lock = 0, 0, threading.Lock()

    def read(number: int) -> Sized[int] | None:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        time.sleep(0.001)
        with lock:
            waiting -= 1
        return Sized(number, 1) if number < 600 else None

    assert list(read_ahead(read, 0, None)) == list(range(600))
    assert most >= 4


def test_history_and_provenance_of_many_commits(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    for i in range(60):
        store.append(metal_frames(1), key=str(i), provenance={"task": i})
    assert [commit.key for commit in store.history()] == [None, *map(str, range(60))]
    assert [note["task"] for note in store.provenance(since=30)] == list(range(29, 60))
    (tmp_path / "d.zarr" / entry_path(40)).write_bytes(b"{}")
    with pytest.raises(CorruptionError, match=r"0040\.json: the log entry is damaged"):
        store.history()
