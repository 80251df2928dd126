"""Several processes append to one store at the same time: everything acknowledged is there, exactly once."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

import mlffstore as ml
from tests.processes import fresh_processes
from tests.samples import metal_frames


def append_batches(url: str, who: int, batches: int, barrier, acknowledged) -> None:
    store = ml.open(url, mode="a")
    batch = ml.SampleBatch.from_ase(metal_frames(2, seed=who))
    barrier.wait()
    for i in range(batches):
        version = store.append(batch, key=f"{who}/{i}")
        acknowledged.put((version, f"{who}/{i}"))


@pytest.mark.parametrize(
    ("processes", "batches"), [(4, 50), pytest.param(16, 200, marks=pytest.mark.slow)], ids=["4 x 50", "16 x 200"]
)
@pytest.mark.parametrize("method", ["fresh", "fork"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_append_at_once(method, processes, batches, tmp_path):
    context = fresh_processes() if method == "fresh" else multiprocessing.get_context(method)
    store = ml.create(tmp_path / "d.zarr")
    barrier, acknowledged = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=append_batches, args=(store.url, who, batches, barrier, acknowledged))
        for who in range(processes)
    ]
    for worker in workers:
        worker.start()
    seen = dict(acknowledged.get(timeout=300) for _ in range(processes * batches))
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(seen) == list(range(1, processes * batches + 1))  # no version acknowledged twice, no gap
    snap = ml.open(store.url).snapshot()
    assert len(snap) == 2 * processes * batches
    assert ml.open(store.url).keys() == {key: version for version, key in seen.items()}
    by_seed = {who: np.array([f.calc.results["energy"] for f in metal_frames(2, seed=who)]) for who in range(processes)}
    energies = snap.read(columns=["energy"]).energy.reshape(-1, 2)
    for version, key in seen.items():
        assert np.array_equal(energies[version - 1], by_seed[int(key.split("/")[0])])


def race(url: str, barrier, answers) -> None:
    store = ml.open(url, mode="a")
    barrier.wait()
    answers.put(store.append(metal_frames(1), key="same"))


def test_the_same_key_from_four_processes_lands_once(tmp_path):
    context = fresh_processes()
    store = ml.create(tmp_path / "d.zarr")
    barrier, answers = context.Barrier(4), context.Queue()
    workers = [context.Process(target=race, args=(store.url, barrier, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert {answers.get(timeout=60) for _ in workers} == {1}
    for worker in workers:
        worker.join(60)
    assert len(store) == 1
    assert len(store.snapshot().segments) == 1
    # The losers removed the segments that nothing names.
    assert len(list((tmp_path / "d.zarr" / "segments").iterdir())) == 1


def create(url: str, barrier, answers) -> None:
    barrier.wait()
    answers.put(ml.create(url, exist_ok=True).uuid)


def test_creating_at_the_same_time_makes_one_store(tmp_path):
    context = fresh_processes()
    barrier, answers = context.Barrier(4), context.Queue()
    url = str(tmp_path / "d.zarr")
    workers = [context.Process(target=create, args=(url, barrier, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert len({answers.get(timeout=60) for _ in workers}) == 1
    for worker in workers:
        worker.join(60)
    assert ml.open(url).version == 0


def test_a_store_that_another_process_makes_at_the_last_moment_is_taken(tmp_path, monkeypatch):
    """Between the look for a store and the look for other files."""
    from mlffstore.store import opening

    url, read_root, made = tmp_path / "d.zarr", opening.read_root, []

    def late(storage):
        try:
            return read_root(storage)
        except ml.errors.StoreNotFoundError:
            if not made:
                made.append(None)
                made.append(ml.create(url).uuid)
            raise

    monkeypatch.setattr(opening, "read_root", late)
    assert ml.create(url, exist_ok=True).uuid == made[1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(ml.errors.StoreExistsError, match="other files"):
        ml.create(tmp_path / "other", exist_ok=True)
