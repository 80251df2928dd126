"""Checkpoints and histories say what the log says, whatever is missing, and do not grow with the square of the log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.format import checkpoint, history
from mlffstore.format.commit import Record
from mlffstore.format.log import Log
from tests.samples import metal_frames


@pytest.fixture
def every_two(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 2)
    monkeypatch.setattr(checkpoint, "STAYING", 4)


def opened(store: ml.Store):
    """Return the state as another process reads it."""
    return Log(store._storage, store._log._empty).refresh()


def assert_same(state, other) -> None:
    for role in ("segments", "quarantine"):
        ours, theirs = getattr(state, role), getattr(other, role)
        assert ours.paths == theirs.paths
        assert list(ours) == list(theirs)
        assert (ours.n_samples, ours.n_atoms) == (theirs.n_samples, theirs.n_atoms)
    for name in (
        "version",
        "parent",
        "keys",
        "tags",
        "teachers",
        "user",
        "totals",
        "rejected",
        "expired",
        "kept",
        "nbytes_log",
    ):
        assert getattr(state, name) == getattr(other, name), name


def random_commit(store: ml.Store, rng: np.random.Generator, i: int) -> None:
    """Make a commit of a random kind."""
    kind = rng.choice(["append", "append", "append", "reject", "compact", "tag", "column", "label"])
    batch = ml.SampleBatch.from_ase(metal_frames(int(rng.integers(1, 3)), seed=i))
    if kind == "append":
        store.append(batch, key=f"k{i}", provenance={"task": i})
    elif kind == "reject":
        store.commit(None, rejected=batch, reasons=["bad"] * len(batch))
    elif kind == "compact":
        store.compact(target_nbytes=int(rng.choice([3000, 10_000])))
    elif kind == "tag":
        store.tag(f"t{i}")
    elif kind == "column" and len(store):
        store.add_column(f"c{i}", np.arange(len(store)))
    elif kind == "label" and len(store):
        store.add_labels("emt")


@pytest.mark.parametrize("seed", range(3))
def test_they_agree_with_the_log_after_any_commits(seed, tmp_path, every_two):
    rng = np.random.default_rng(seed)
    store = ml.create(tmp_path / "d.zarr")
    folder = tmp_path / "d.zarr" / "_checkpoint"
    for i in range(40):
        if rng.random() < 0.3:
            store = ml.open(tmp_path / "d.zarr", "a")  # whose state begins with a checkpoint
        random_commit(store, rng, i)
        if rng.random() < 0.2:  # of writers that died, or of a disk that lost them
            for path in rng.permutation(sorted(folder.glob("0*.json")))[:2]:
                path.unlink()
        replayed = store._log.replay(store._log.fresh())
        assert_same(opened(store), replayed)
        records = [Record.of(entry.entry) for entry in store._log.entries()]
        assert store._log.history() == records
        since = int(rng.integers(0, len(records)))
        assert store._log.history(since) == records[since:]
    assert len(list(folder.glob("0*.json"))) > 4
    assert store.verify(full=True).ok
    for version in rng.integers(0, store.version, 6).tolist():
        assert_same(store._log.at(version), store._log.replay(store._log.fresh(), version + 1))


def test_their_size_grows_with_the_log(tmp_path, every_two):
    """Twice the commits are little more than twice the bytes: each segment is in log2(m)/2 of m checkpoints."""
    store = ml.create(tmp_path / "d.zarr")
    batch = ml.SampleBatch.from_ase(metal_frames(1))
    folder = tmp_path / "d.zarr" / "_checkpoint"
    sizes, written = [], []
    replace = store._storage.replace

    def count(path, data):
        written.append(len(data))
        replace(path, data)

    store._storage.replace = count
    for _ in range(2):
        for _ in range(128):
            store.append(batch)
        sizes.append((sum(path.stat().st_size for path in folder.iterdir()), sum(written)))
    for before, after in zip(*sizes, strict=True):
        assert after < 2.5 * before
    # Fenwick: at most log2(m)/2 + 1 times a line of each of 256 segments and commits, and m headers.
    line = 2500
    assert sizes[1][1] < 256 * line * (np.log2(128) / 2 + 1)


def test_the_chain_of_a_checkpoint():
    versions = [100 * number - 1 for number in (13, 12, 8)]
    assert checkpoint.chain(1299) == versions
    assert checkpoint.chain(1350) == versions
    assert checkpoint.chain(98) == []
    assert all(checkpoint.wanted(version, 1350) for version in versions)
    assert not checkpoint.wanted(1099, 1350)
    assert 1099 in checkpoint.superfluous(1299)


def test_history_of_many_commits_reads_few_objects(tmp_path, every_two):
    store = ml.create(tmp_path / "d.zarr")
    batch = ml.SampleBatch.from_ase(metal_frames(1))
    for i in range(80):
        store.append(batch, provenance={"task": i})
    reads = []
    read = store._storage.read

    def count(path, *args):
        reads.append(path)
        return read(path, *args)

    store._storage.read = count
    assert [notes["task"] for notes in store.provenance()] == list(range(80))
    assert len(reads) < 12
    reads.clear()
    assert [commit.version for commit in store.history(last=1)] == [80]
    assert len(reads) < 12


def test_a_history_of_another_store_is_ignored(tmp_path, every_two, caplog):
    store, other = (ml.create(tmp_path / name) for name in "ab")
    for i in range(8):
        for each in (store, other):
            each.append(metal_frames(1, seed=i), provenance={"of": each.url})
    path = history.path_of(7)
    (Path(store.url) / path).write_bytes((Path(other.url) / path).read_bytes())
    assert {notes["of"] for notes in store.provenance()} == {store.url}
    assert "is ignored" in caplog.text
    assert [problem.path for problem in store.verify(full=True).problems] == [path]


def test_a_slow_writer_does_not_set_the_hint_back(tmp_path, every_two):
    store = ml.create(tmp_path / "d.zarr")
    for i in range(6):
        store.append(metal_frames(1, seed=i))
    earlier = store._log.at(3)
    for i in range(4):
        store.append(metal_frames(1, seed=10 + i))
    checkpoint.save(store._storage, earlier)
    assert checkpoint.newest(store._storage) == 9
    # It may have been about to write the hint when another one removed its checkpoint: opening reads an older one.
    store._storage.replace(checkpoint.HINT, checkpoint.seal(b'{"version":5'))
    (tmp_path / "d.zarr" / checkpoint.path_of(5)).unlink(missing_ok=True)
    assert len(ml.open(store.url)) == 10
    assert store.verify(full=True).ok


def test_states_of_one_log_share_no_records(tmp_path, every_two):
    """An old snapshot that is read in between takes no record from the next checkpoint."""
    store = ml.create(tmp_path / "d.zarr")
    for i in range(7):
        store.append(metal_frames(1, seed=i))
    one, other = store._log.at(6), store._log.at(6)
    assert [record.commit.version for record in one.recent] == [record.commit.version for record in other.recent] == [6]
