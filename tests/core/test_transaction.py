"""Transactions: many batches, one commit, or nothing at all."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError, StorageError
from mlffstore.format.log import Log
from tests.samples import metal_frames


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return ml.create(tmp_path / "d.zarr" if request.param == "local" else f"memory://{tmp_path}")


def batch(*seeds: int) -> ml.SampleBatch:
    """Return one rattled metal for each seed."""
    return ml.SampleBatch.from_ase([frame for seed in seeds for frame in metal_frames(1, seed=seed)])


def hashes(store: ml.Store) -> list[int]:
    columns = store.snapshot().read(columns=["content_hash"]).columns
    return columns.get("content_hash", np.zeros(0)).tolist()


def expected(*seeds: int) -> list[int]:
    return batch(*seeds).astype("float32").content_hash.tolist()


def segments(store: ml.Store) -> set[str]:
    """Return the folders of segments, named by the log or not."""
    return {found.path.split("/")[1] for found in store._storage.list("segments")}


def test_all_batches_appear_in_one_commit(store):
    other = ml.open(store.url, "a")
    with store.transaction(key="job", provenance={"a": 1, "b": 1}) as tx:
        tx.add(batch(0, 1))
        tx.add(None, rejected=batch(9), reasons=["too hot"])
        tx.add(batch(2), rejected=batch(8), reasons=["too cold"])
        assert (store.version, len(other), tx.n_samples, tx.n_duplicates) == (0, 0, 3, 0)
        assert other.append(batch(5)) == 1
        assert tx.commit({"b": 2}) == 2
    assert hashes(other) == expected(5, 0, 1, 2)
    assert store.snapshot().quarantine.reasons() == ["too hot", "too cold"]
    assert store.provenance()[-1] | {"time": ""} == {"version": 2, "time": "", "a": 1, "b": 2}
    assert store.history(1)[0].n_samples == 3
    with pytest.raises(DataError, match="was committed or discarded"):
        tx.add(batch(3))
    assert store.verify(full=True).ok


@pytest.mark.parametrize("how", ["leave", "raise", "discard"])
def test_without_commit_nothing_stays(store, how):
    store.append(batch(0))
    before = segments(store)

    def work() -> None:
        with store.transaction() as tx:
            tx.add(batch(1))
            assert len(segments(store)) == 2
            if how == "raise":
                raise KeyboardInterrupt
            if how == "discard":
                tx.discard()
                tx.discard()

    if how == "raise":
        with pytest.raises(KeyboardInterrupt):
            work()
    else:
        work()
    assert (segments(store), store.version) == (before, 1)


def test_a_refused_batch_leaves_the_others(store):
    nan = batch(1)
    nan.positions[0] = np.nan
    with store.transaction() as tx:
        tx.add(batch(0))
        with pytest.raises(DataError, match="finite positions"):
            tx.add(nan)
        with pytest.raises(DataError, match="reasons: expected one for each"):
            tx.add(batch(2), rejected=batch(3))
        tx.add(batch(4))
        tx.commit()
    assert hashes(store) == expected(0, 4)
    assert len(segments(store)) == 2


def test_an_empty_transaction(store):
    with store.transaction() as tx:
        assert tx.commit() == 0
    with store.transaction(key="nothing") as tx:
        assert tx.commit() == 1
    with store.transaction(provenance={"note": "nothing"}) as tx:
        assert tx.commit() == 2
    assert store.keys() == {"nothing": 1}


@pytest.mark.parametrize("rerun", [[(0, 1), (2,)], [(0,), (1, 2)], [(0, 1, 2)]])
def test_a_known_key_is_compared_and_not_written(store, rerun):
    with store.transaction(key="job") as tx:
        tx.add(batch(0, 1))
        tx.add(batch(2))
        tx.commit()
    before = segments(store)
    with store.transaction(key="job") as tx:
        for seeds in rerun:
            tx.add(batch(*seeds))
            assert segments(store) == before
        assert tx.commit() == 1
    assert store.version == 1


def changed(what: str) -> ml.SampleBatch:
    """Return batch(0) with something changed."""
    one = batch(0)
    if what == "a label":
        one.energy[0] += 1e-9
    elif what == "a user column":
        return ml.SampleBatch(
            n_atoms=one.n_atoms, numbers=one.numbers, positions=one.positions, cell=one.cell, pbc=one.pbc,
            labels=one.labels, extra={"step": (np.array([1]), "1", "sample")},
        )  # fmt: skip
    elif what == "a structure":
        return batch(1)
    else:
        return batch(0, 0)
    return one


@pytest.mark.parametrize("what", ["a label", "a user column", "a structure", "another sample"])
def test_a_key_never_stands_for_two_contents(store, what):
    store.append(batch(0), key="job")
    with pytest.raises(ConflictError, match="key 'job': version 1 holds other samples"):
        store.append(changed(what), key="job")
    assert (len(store), len(segments(store))) == (1, 1)


def test_a_key_that_another_writer_takes_meanwhile(store):
    same, other = store.transaction(key="job"), store.transaction(key="job")
    same.add(batch(0))
    other.add(batch(1))
    assert ml.open(store.url, "a").append(batch(0), key="job") == 1
    assert same.commit() == 1
    with pytest.raises(ConflictError, match="other samples"):
        other.commit()
    assert (hashes(store), len(segments(store))) == (expected(0), 1)


def test_duplicates_are_looked_for_in_the_store_and_in_the_transaction(store):
    store.append(batch(0, 1))
    with store.transaction(on_duplicate="skip") as tx:
        tx.add(batch(1, 2, 2))
        tx.add(batch(2, 3, 0))
        tx.add(batch(3))
        assert (tx.n_samples, tx.n_duplicates) == (2, 5)
        tx.commit()
    assert hashes(store) == expected(0, 1, 2, 3)
    assert store.history(1)[0].note == "5 duplicates skipped"
    with store.transaction(on_duplicate="error") as tx:
        tx.add(batch(4))
        for seeds in ((4,), (5, 0)):
            with pytest.raises(DataError, match="1 samples are there already"):
                tx.add(batch(*seeds))
        tx.add(batch(6))
        tx.commit()
    assert hashes(store) == expected(0, 1, 2, 3, 4, 6)


def test_structures_that_another_writer_commits_meanwhile(store):
    other = ml.open(store.url, "a")
    skip, error = store.transaction(on_duplicate="skip"), store.transaction(on_duplicate="error")
    for tx in (skip, error):
        tx.add(batch(0, 1, 2), rejected=batch(1), reasons=["hot"])
        tx.add(batch(3))
        tx.add(batch(4))
    other.append(batch(1, 3))
    assert skip.commit() == 2
    assert (skip.n_samples, skip.n_duplicates) == (3, 2)
    with pytest.raises(DataError, match="another process stored them meanwhile"):
        error.commit()
    assert hashes(store) == expected(1, 3, 0, 2, 4)
    assert store.snapshot().quarantine.reasons() == ["hot"]
    assert store.verify(full=True).ok
    assert store.gc(grace=0).paths == ()


def test_nothing_is_left_to_commit(store):
    tx = store.transaction(on_duplicate="skip")
    tx.add(batch(0))
    ml.open(store.url, "a").append(batch(0))
    assert (tx.commit(), tx.n_samples, tx.n_duplicates) == (1, 0, 1)
    assert store.gc(grace=0).paths == ()


@pytest.mark.parametrize("took_effect", [True, False])
def test_an_unclear_commit_may_be_repeated(store, monkeypatch, took_effect):
    """The claim raises, before or after it took effect: the same transaction commits once."""
    claim = Log._claim

    def unclear(self, path, data):
        if took_effect:
            claim(self, path, data)
        raise StorageError("no answer")

    tx = store.transaction()
    tx.add(batch(0))
    monkeypatch.setattr(Log, "_claim", unclear)
    with pytest.raises(StorageError, match="no answer"):
        tx.commit()
    monkeypatch.undo()
    ml.open(store.url, "a").append(batch(1))
    assert tx.commit() == (1 if took_effect else 2)
    assert sorted(hashes(store)) == sorted(expected(0, 1))
    assert store.verify(full=True).ok


def test_leaving_after_an_unclear_commit_removes_nothing(store, monkeypatch):
    claim = Log._claim

    def unclear(self, path, data):
        claim(self, path, data)
        raise StorageError("no answer")

    monkeypatch.setattr(Log, "_claim", unclear)
    with pytest.raises(StorageError, match="no answer"):
        store.append(batch(0))
    monkeypatch.undo()
    assert hashes(store) == expected(0)
    assert store.verify(full=True).ok


def test_columns_must_agree_within_a_transaction(store):
    def with_step(dtype):
        return ml.SampleBatch(
            n_atoms=[1], numbers=[2], positions=np.zeros((1, 3)), extra={"step": (np.zeros(1, dtype), "1", "sample")}
        )

    with store.transaction(require=()) as tx:
        tx.add(with_step(np.int64))
        with pytest.raises(DataError, match="user column 'step'"):
            tx.add(with_step(np.float64))
        tx.commit()
    assert len(store) == 1


def test_a_teacher_of_another_model_is_refused_before_and_at_the_commit(store):
    known = {"reference": {"fingerprint": "a"}}
    tx = store.transaction(teachers=known)
    tx.add(batch(0))
    store.append(batch(1), teachers={"reference": {"fingerprint": "b"}})
    with pytest.raises(ConflictError, match="reference"):
        tx.add(batch(2))
    with pytest.raises(ConflictError, match="reference"):
        tx.commit()
    assert len(segments(store)) == 1


def test_holds(store):
    store.commit(batch(0, 1), rejected=batch(7), reasons=["hot"])
    asked = np.array(expected(1, 2, 7, 0), np.uint64)
    assert store.holds(asked).tolist() == [True, False, False, True]
    ml.open(store.url, "a").append(batch(2))
    assert ml.open(store.url).holds(asked).tolist() == [True, True, False, True]
    assert store.holds(asked).tolist() == [True, True, False, True]
    assert store.holds(np.zeros(0, np.uint64)).tolist() == []
