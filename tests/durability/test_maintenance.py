"""Compaction and garbage collection change how a store lies on disk, never what it holds."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.schema import label_column
from mlffstore.errors import ConflictError, DataError, ReadOnlyError, StorageError
from mlffstore.format import checkpoint
from mlffstore.format.records import layer_document
from mlffstore.format.segment import write_layer, write_segment
from tests.processes import fresh_processes
from tests.samples import metal_frames, mixed_frames, molecule_frames


@pytest.fixture
def store(tmp_path):
    return ml.create(tmp_path / "d.zarr")


def add_layer(store, i: int, teacher: str = "other") -> None:
    segment = store.snapshot().segments[i]
    layer = write_layer(
        store._storage, segment, [(label_column("energy", teacher), np.arange(segment.n_samples) + 0.5)]
    )
    store._log.commit("layer", None, {"layers": [layer_document(layer)]}, lambda state: None)


def same(a: ml.SampleBatch, b: ml.SampleBatch) -> bool:
    """Return whether two batches hold the same, NaN labels where there are none."""
    columns = all(
        np.array_equal(a.columns[name], b.columns[name]) for name in b.columns if name not in ("source", "sampler")
    )
    words = a.source == b.source and a.sampler == b.sampler
    labels = all(
        np.array_equal(a.label(k, who), v, equal_nan=True) for who in b.labels for k, v in b.labels[who].items()
    )
    return columns and words and labels and a.teachers == b.teachers


def folders(store) -> set[str]:
    root = Path(store.url)
    return {path.relative_to(root).as_posix() for kind in ("segments", "layers") for path in root.glob(f"{kind}/*")}


# -- compact -----------------------------------------------------------------------------------------------------


def test_compaction_keeps_samples_order_labels_and_old_versions(store):
    for i in range(4):
        store.append(mixed_frames(5, seed=i), source=f"source {i}", sampler="rattle")
        store.append(molecule_frames(3, seed=i), teacher="second", sampler=f"sampler {i % 2}")
    add_layer(store, 2)
    add_layer(store, 5)
    versions = {version: store.snapshot(version).read() for version in range(1, store.version + 1)}
    splits = store.snapshot().split_codes()
    summary = store.snapshot().summary()
    done = store.compact()
    assert (done.n_before, done.n_after, done.n_conflicts) == (8, 1, 0)
    snap = ml.open(store.url).snapshot()
    assert len(snap.segments) == 1
    assert same(snap.read(), versions[max(versions)])
    assert np.array_equal(snap.split_codes(), splits)
    ours = snap.summary()
    for name in ("samples", "atoms", "elements", "teachers", "periodic", "n_atoms_min", "n_atoms_max"):
        assert ours[name] == summary[name]
    for version, batch in versions.items():
        assert same(store.snapshot(version).read(), batch)
    assert store.compact().versions == ()  # there is nothing left to merge
    assert store.history(1)[0].note == "8 segments merged into 1"
    assert store.verify(full=True).ok


def test_segments_of_half_the_target_stay(store):
    for i in range(6):
        store.append(metal_frames(4 if i % 3 else 40, seed=i))
    before = store.snapshot().segments[:]
    size = sum(stored.rows * stored.column.row_nbytes for stored in before[0].columns.values())
    done = store.compact(target_nbytes=2 * size)
    after = store.snapshot().segments
    assert done.n_after == 4
    assert [segment.n_samples for segment in after] == [40, 8, 40, 8]
    assert (after[0].path, after[2].path) == (before[0].path, before[3].path)


def weighted(weight: float) -> ml.SampleBatch:
    """Return two samples with a user column."""
    return ml.SampleBatch(
        n_atoms=[1, 1], numbers=[1, 1], positions=np.zeros((2, 3)), energy=np.zeros(2), forces=np.zeros((2, 3)),
        extra={"weight": (np.full(2, weight), "1", "sample")},
    )  # fmt: skip


def test_accepted_and_rejected_samples_are_merged_apart(store):
    plain = ml.SampleBatch.from_ase(metal_frames(2))
    for i in range(4):
        batch = weighted(float(i)) if i >= 2 else plain
        store.commit(batch, rejected=plain, reasons=[f"reason {i}", "common"])
    done = store.compact()
    assert (done.n_before, done.n_after) == (8, 2)
    assert [sorted(segment.columns).count("weight") for segment in store.snapshot().segments] == [1]
    assert store.snapshot().quarantine.reasons() == [x for i in range(4) for x in (f"reason {i}", "common")]
    weight = store.snapshot().read().columns["weight"]
    assert np.array_equal(weight, [np.nan] * 4 + [2, 2, 3, 3], equal_nan=True)
    assert store.verify(full=True).ok


def test_a_run_that_changes_meanwhile_is_left_alone(store, monkeypatch):
    from mlffstore.store.maintenance import compaction

    for i in range(3):
        store.append(metal_frames(2, seed=i))

    def meddle(storage, batch):
        add_layer(ml.open(store.url, "a"), 1)
        return write_segment(storage, batch)

    monkeypatch.setattr(compaction, "write_segment", meddle)
    before = folders(store)
    done = store.compact()
    assert (done.versions, done.n_conflicts, done.n_after) == ((), 1, 3)
    assert {
        path for path in folders(store) - before if path.startswith("segments")
    } == set()  # and leaves nothing behind
    monkeypatch.undo()
    assert store.compact().n_after == 1
    assert store.snapshot().read().label("energy", "other")[2] == 0.5
    assert store.verify(full=True).ok


def test_a_layer_over_a_segment_that_was_merged_is_refused(store):
    store.append(metal_frames(2))
    store.append(metal_frames(2, seed=1))
    segment = store.snapshot().segments[0]
    layer = write_layer(store._storage, segment, [(label_column("energy", "other"), np.arange(2.0))])
    store.compact()

    def check(state):
        if state.segments.find(layer.segment) is None:
            raise ConflictError("gone")

    with pytest.raises(ConflictError):
        store._log.commit("layer", None, {"layers": [layer_document(layer)]}, check)


def append_many(url: str, who: int, n: int) -> None:
    store = ml.open(url, mode="a")
    for i in range(n):
        store.append(metal_frames(1, seed=who), key=f"{who}/{i}")


def test_compaction_while_four_processes_append(store):
    context = fresh_processes()
    workers = [context.Process(target=append_many, args=(store.url, who, 30)) for who in range(4)]
    for worker in workers:
        worker.start()
    merged = 0
    while any(worker.is_alive() for worker in workers):
        merged += len(store.compact(target_nbytes=100_000).versions)
        store.gc(dry_run=False, expire_before=store.version)
        time.sleep(0.02)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    merged += len(store.compact().versions)
    assert merged  # how many of them meet the appends depends on the machine
    keys = store.keys()
    assert sorted(keys) == sorted(f"{who}/{i}" for who in range(4) for i in range(30))
    energies = [metal_frames(1, seed=who)[0].calc.results["energy"] for who in range(4)]
    order = sorted(keys, key=keys.__getitem__)
    expected = [energies[int(key[0])] for key in order]
    assert np.array_equal(ml.open(store.url).snapshot().read(columns=["energy"]).energy, expected)
    assert store.verify(full=True).ok


# -- gc ----------------------------------------------------------------------------------------------------------


def test_garbage_is_what_nothing_needs_and_is_old(store):
    store.append(metal_frames(2))
    orphan = write_segment(store._storage, ml.SampleBatch.from_ase(metal_frames(2)).hashed())
    (Path(store.url) / "_log" / ".tmp-1").write_bytes(b"x")
    (Path(store.url) / ".tmp-2").write_bytes(b"x")
    (Path(store.url) / "notes.txt").write_text("mine")
    here = folders(store)
    found = store.gc()
    assert (found.paths, found.dry_run) == ((), True)
    assert found.n_young > 2
    found = store.gc(grace=0)
    assert found.paths == (".tmp-2", "_log/.tmp-1", orphan.path)
    assert folders(store) == here  # a dry run
    found = store.gc(grace=0, dry_run=False)
    assert found.paths == (".tmp-2", "_log/.tmp-1", orphan.path)
    assert found.nbytes > orphan.nbytes
    assert folders(store) == here - {orphan.path}
    assert (Path(store.url) / "notes.txt").exists()  # nobody's but the user's
    assert store.gc(grace=0).paths == ()
    assert store.verify(full=True).ok


def test_expired_versions_free_space_and_tagged_ones_stay(store):
    for i in range(6):
        store.append(metal_frames(2, seed=i))
        if i == 1:
            store.tag("v1")  # of version 2
    tagged = store.snapshot(tag="v1").read()
    latest = store.snapshot().read()
    store.compact()
    old = folders(store)
    assert store.gc(grace=0, expire_before=store.version).paths  # a dry run says what it would do
    assert store.history()[-1].operation == "replace"
    found = store.gc(grace=0, dry_run=False, expire_before=store.version)
    assert len(found.paths) == 4  # those of the tag stay
    assert len(folders(store)) == len(old) - 4
    assert same(store.snapshot(tag="v1").read(), tagged)
    assert same(ml.open(store.url).snapshot().read(), latest)
    with pytest.raises(DataError, match=r"version 4 has expired.*tagged 2"):
        store.snapshot(4)
    with pytest.raises(DataError, match="has expired"):
        store.tag("v0", 4)
    assert store.verify(full=True).ok
    with pytest.raises(DataError, match="expected 0 to"):
        store.gc(expire_before=99)
    with pytest.raises(DataError, match="grace"):
        store.gc(grace=-1)


def test_data_that_waited_too_long_for_its_commit_is_not_committed(store, monkeypatch):
    """A laptop that slept for a week between data and commit finds its data collected."""
    from mlffstore.store import transaction as module

    assert store.append(metal_frames(2)) == 1

    def slow(storage, batch):
        segment = write_segment(storage, batch)
        ml.open(store.url, "a").gc(grace=0, dry_run=False)
        return segment

    monkeypatch.setattr(module, "write_segment", slow)
    with pytest.raises(StorageError, match="written too long before its commit"):
        store.append(metal_frames(2), key="a")
    monkeypatch.undo()
    assert store.append(metal_frames(2), key="a") == 2
    assert store.verify(full=True).ok


def test_readers_may_not(store):
    reader = ml.open(store.url)
    for call in (reader.compact, reader.gc):
        with pytest.raises(ReadOnlyError):
            call()


def test_command_line(store):
    from tests.command import cli

    for i in range(3):
        store.append(metal_frames(2, seed=i))
    assert "3 segments, now 1" in cli("compact", store.url).stdout
    assert "0 files" in cli("gc", store.url).stdout
    done = cli("gc", store.url, "--grace", "0s", "--expire-before", 4, "--delete")
    assert "in 3 places removed" in done.stdout
    assert len(folders(store)) == 1
    assert "expected a number" in cli("gc", store.url, "--grace", "soon", code=2).stderr


# -- checkpoints -------------------------------------------------------------------------------------------------


class CountingStorage:
    """Counts the reads of log entries."""

    def __init__(self, inner):
        self._inner, self.entries = inner, 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def read(self, path, *args):
        self.entries += path.startswith("_log/")
        return self._inner.read(path, *args)


def reads_to_open(store) -> int:
    from mlffstore.format.log import Log

    log = Log(CountingStorage(store._storage), store._log._empty)
    log.refresh()
    return log.storage.entries


def test_opening_reads_only_what_follows_the_checkpoint(store, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 10)
    monkeypatch.setattr(checkpoint, "STAYING", 4)
    batch = ml.SampleBatch.from_ase(metal_frames(1))
    for i in range(47):
        store.append(batch, key=f"{i}")
    assert reads_to_open(store) == 10  # the entry of the checkpoint (39), the eight after it, and one that is not there
    state, replayed = ml.open(store.url)._log.refresh(), store._log.replay(store._log.fresh())
    assert list(state.segments) == list(replayed.segments)
    assert (state.keys, state.totals, state.parent) == (replayed.keys, replayed.totals, replayed.parent)
    kept = sorted(int(path.stem) for path in (Path(store.url) / "_checkpoint").glob("0*[0-9].json"))
    assert kept == [19, 29, 39]  # the newest, which is whole, and those that make up the one before
    for version in (5, 19, 25, 47):
        assert len(store.snapshot(version)) == version
    # Damaged, deleted or misleading checkpoints only cost time.
    newest = Path(store.url) / "_checkpoint" / f"{39:020d}.json"
    data = newest.read_bytes()
    newest.write_bytes(data[:100])
    assert len(ml.open(store.url)) == 47
    assert len(ml.open(store.url, "a").snapshot().read()) == 47
    newest.unlink()
    assert len(ml.open(store.url)) == 47
