"""Label passes over a store: with ASE's EMT, a real potential, which knows some metals only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError, ReadOnlyError
from mlffstore.store.labelling import label_batch
from tests.clusters import cluster
from tests.processes import fresh_processes
from tests.samples import metal_frames


def bare(n: int, seed: int = 0):
    frames = metal_frames(n, seed=seed)
    for frame in frames:
        frame.calc = None
    return frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    for seed in range(4):
        store.append(bare(5, seed), require=())
    return store


def reference(store) -> ml.SampleBatch:
    """Label the structures of the store directly."""
    return label_batch(ml.get_teacher("emt"), store.snapshot().read().structures())[0]


def assert_labels(store, expected: ml.SampleBatch) -> None:
    batch = ml.open(store.url).snapshot().read()
    for name in ("energy", "forces", "stress"):
        assert np.array_equal(batch.label(name, "emt"), expected.label(name, "emt"), equal_nan=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pass_labels_what_lacks_labels_once(store, workers):
    done: list[tuple[int, int]] = []
    report = store.add_labels("emt", workers=workers, chunk_samples=2, progress=lambda *x: done.append(x))
    assert (report.labelled, report.refused, len(report.versions)) == (20, 0, 4)
    assert done[-1] == (20, 20)
    assert_labels(store, reference(store))
    assert store.snapshot().teachers == ("emt",)
    assert store.snapshot().teacher_info("emt")["fingerprint"]
    again = store.add_labels("emt")
    assert (again.labelled, again.versions) == (0, [])
    store.append(bare(2, seed=9), require=())
    assert store.add_labels("emt").labelled == 2
    assert store.verify(full=True).ok


def test_labels_are_the_same_in_a_run_and_in_a_pass(tmp_path):
    """What the pipeline does, label then append, and what a pass does, append then label, agree in every bit."""
    later = ml.create(tmp_path / "later.zarr")
    later.append(bare(6), require=())
    later.add_labels("emt")
    first = ml.create(tmp_path / "first.zarr")
    batch, _ = label_batch(ml.get_teacher("emt"), ml.SampleBatch.from_ase(bare(6)).astype("float32"))
    first.append(batch)
    assert_labels(later, first.snapshot().read())


def test_what_a_teacher_refuses_stays_with_the_reason(store):
    mixed = [*bare(2, seed=20), molecule("H2O"), *bare(1, seed=21)]
    store.append(mixed, require=())
    report = store.add_labels("emt")
    assert (report.labelled, report.refused) == (23, 1)
    assert list(report.reasons) == ["emt does not know H, O"]
    assert np.flatnonzero(np.isnan(store.snapshot().read().label("energy", "emt"))).tolist() == [22]
    notes = [note for note in store.provenance() if note.get("refused")]
    assert notes[0]["refused"] == {"emt does not know H, O": 1}
    before = store.version
    assert store.add_labels("emt").versions == []  # it is not asked again
    assert store.version == before


def test_gaps_in_merged_segments_are_filled(store):
    """Compaction merges labelled with unlabelled segments; the pass labels what is missing and keeps what is there."""
    labelled, _ = label_batch(ml.get_teacher("emt"), ml.SampleBatch.from_ase(bare(3, seed=30)).astype("float32"))
    shifted = labelled.with_labels(
        "emt", energy=labelled.label("energy", "emt") + 1.0, forces=labelled.label("forces", "emt"),
        stress=labelled.label("stress", "emt"),
    )  # fmt: skip
    store.append(shifted)
    store.compact()
    expected = reference(store).label("energy", "emt").copy()
    expected[20:] += 1.0  # known labels are never made again
    report = store.add_labels("emt")
    assert (report.labelled, len(report.versions)) == (20, 1)
    assert np.array_equal(store.snapshot().read().label("energy", "emt"), expected)
    assert store.snapshot().summary()["teachers"] == {"emt": 23}
    assert store.verify(full=True).ok


def label_in_process(url: str, barrier) -> None:
    store = ml.open(url, "a")
    barrier.wait()
    store.add_labels("emt")


def test_several_processes_share_a_pass(store):
    for seed in range(4, 16):
        store.append(bare(3, seed), require=())
    context = fresh_processes()
    barrier = context.Barrier(3)
    workers = [context.Process(target=label_in_process, args=(store.url, barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    layers = [commit for commit in store.history() if commit.operation == "layer"]
    assert len(layers) == 16  # each segment once
    assert_labels(store, reference(store))
    assert store.verify(full=True).ok


def test_a_segment_that_somebody_else_labels_meanwhile_is_theirs(store, monkeypatch):
    from mlffstore.store import labelling

    write_layer, other = labelling.write_layer, []

    def late(storage, segment, columns):
        if not other:
            other.append(True)
            ml.open(store.url, "a").add_labels("emt")
        return write_layer(storage, segment, columns)

    monkeypatch.setattr(labelling, "write_layer", late)
    report = store.add_labels("emt")
    assert report.n_conflicts == 1
    assert_labels(store, reference(store))
    assert len([commit for commit in store.history() if commit.operation == "layer"]) == 4


def test_compaction_during_a_pass(store, monkeypatch):
    from mlffstore.store import labelling

    write_layer, merged = labelling.write_layer, []

    def late(storage, segment, columns):
        if not merged:
            merged.append(ml.open(store.url, "a").compact())
        return write_layer(storage, segment, columns)

    monkeypatch.setattr(labelling, "write_layer", late)
    report = store.add_labels("emt")
    assert report.n_conflicts == 1
    assert report.labelled == 20
    assert_labels(store, reference(store))


def test_it_runs_on_an_active_dask_client(store):
    with cluster(active=True, n_workers=1, threads_per_worker=2, processes=False):
        assert store.add_labels("emt").labelled == 20
    assert_labels(store, reference(store))


class Wrong:
    """A teacher of somebody's own that forgets an atom."""

    def __init__(self):
        self.inner = ml.get_teacher("emt")
        self.info = self.inner.info

    def label(self, batch):
        labels = self.inner.label(batch)
        return replace(labels, forces=labels.forces[1:])


def test_wrong_labels_and_other_models_change_nothing(store, tmp_path):
    before = store.version
    with pytest.raises(DataError, match="forces: expected shape"):
        store.add_labels(Wrong())
    assert store.version == before
    store.add_labels("emt")
    other = ml.get_teacher("emt")
    other._info = replace(other.info, fingerprint="another")
    store.append(bare(1, seed=40), require=())
    with pytest.raises(ConflictError, match="another teacher name"):
        store.add_labels(other)
    with pytest.raises(ReadOnlyError):
        ml.open(store.url).add_labels("emt")
    with pytest.raises(DataError, match="at least 1"):
        store.add_labels("emt", chunk_samples=0)


def test_command_line(store):
    from tests.command import cli

    assert "20 samples by emt, in 4 commits" in cli("label", store.url, "--teacher", "emt").stdout
    assert "0 samples by emt" in cli("label", store.url, "--teacher", "emt").stdout
    assert "did you mean" in cli("label", store.url, "--teacher", "emd", code=2).stderr
    assert "NAME=VALUE" in cli("label", store.url, "--teacher", "emt", "-O", "x", code=2).stderr
