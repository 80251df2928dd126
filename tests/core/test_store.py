"""Store: create, open, append, read back, time travel, keys, tags."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError, ReadOnlyError, StoreExistsError, TeacherError
from tests.samples import metal_frames, mixed_frames, molecule_frames


@pytest.fixture
def store(tmp_path):
    return ml.create(tmp_path / "d.zarr")


def test_append_and_read_back(store):
    frames = mixed_frames(9)
    assert store.append(frames, teacher="emt") == 1
    snap = ml.open(store.url).snapshot()
    assert (len(snap), snap.version, snap.teachers) == (9, 1, ("emt",))
    assert snap.n_atoms == sum(len(frame) for frame in frames)
    for i, frame in enumerate(frames):
        back = snap[i]
        assert np.array_equal(back.numbers, frame.numbers)
        # Stored as float32: half a unit in the last place of a coordinate below 16 angstrom is 5e-7.
        np.testing.assert_allclose(back.positions, frame.positions, atol=5e-7)
        assert back.get_potential_energy() == frame.calc.results["energy"]
        np.testing.assert_allclose(back.get_forces(), frame.calc.results["forces"], rtol=1e-7, atol=1e-7)
        assert back.pbc.tolist() == frame.pbc.tolist()


def test_float64_store_keeps_every_bit(tmp_path):
    store = ml.create(tmp_path / "d.zarr", precision="float64")
    frames = metal_frames(3)
    store.append(frames)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(frames, store.snapshot(), strict=True))


def test_read_in_any_order_over_segments(store):
    frames = mixed_frames(23)
    for start in range(0, 23, 5):
        store.append(frames[start : start + 5])
    snap = store.snapshot()
    everything = snap.read()
    index = [22, 3, 3, 0, 11, 7, -1, 15]
    some = snap.read(index)
    expected = everything.take(index)
    for name, column in expected.columns.items():
        assert np.array_equal(some.columns[name], column), name
    for name, column in expected.labels["reference"].items():
        assert np.array_equal(some.labels["reference"][name], column, equal_nan=True), name
    assert np.array_equal(snap.read(slice(4, 17)).positions, everything[4:17].positions)
    assert np.array_equal(snap.read(everything.n_atoms > 5).energy, everything.energy[everything.n_atoms > 5])
    assert len(snap.read([])) == 0
    with pytest.raises(IndexError, match="index 23 is outside the 23 samples"):
        snap.read([23])
    with pytest.raises(IndexError, match="expected integers"):
        snap.read([0.5])


def test_sequence_manners(store):
    frames = mixed_frames(5)
    store.append(frames)
    snap = store.snapshot()
    assert [len(a) for a in snap] == [len(a) for a in frames]
    assert [len(a) for a in snap[1:4]] == [len(a) for a in frames[1:4]]
    assert len(snap[-1]) == len(frames[-1])


def test_columns_can_be_chosen(store):
    store.append(metal_frames(4))
    batch = store.snapshot().read(columns=["energy"])
    assert set(batch.columns) == {"n_atoms"}
    assert set(batch.labels["reference"]) == {"energy"}
    with pytest.raises(DataError, match="columns: expected"):
        store.snapshot().read(columns=["enrgy"])


def test_a_key_is_committed_once(store):
    assert store.append(metal_frames(2), key="task-1") == 1
    assert store.append(metal_frames(2), key="task-1") == 1
    with pytest.raises(ConflictError, match="'task-1': version 1 holds other samples"):
        store.append(metal_frames(3, seed=9), key="task-1")
    assert len(store) == 2
    assert store.keys() == {"task-1": 1}
    assert [file.path for file in store._storage.list("segments")] == [store.snapshot().segments[0].path]


def test_snapshots_never_change(store):
    store.append(metal_frames(2))
    before = store.snapshot()
    energy = before.read().energy
    store.append(metal_frames(3, seed=1))
    assert (len(before), len(store.snapshot()), len(store.snapshot(1)), len(store.snapshot(0))) == (2, 5, 2, 0)
    assert np.array_equal(before.read().energy, energy)
    with pytest.raises(DataError, match="version: expected 0 to 2, got 3"):
        store.snapshot(3)


def test_snapshot_and_store_can_be_pickled(store):
    store.append(mixed_frames(4))
    snap = store.snapshot()
    store.append(mixed_frames(2, seed=3))
    again = pickle.loads(pickle.dumps(snap))
    assert (len(again), again.version) == (4, 1)
    assert np.array_equal(again.read().positions, snap.read().positions)
    assert len(pickle.loads(pickle.dumps(store))) == 6


def test_two_teachers_are_never_mixed(store):
    store.append(metal_frames(2), teacher="emt")
    store.append(molecule_frames(3), teacher="toy")
    snap = store.snapshot()
    assert snap.teachers == ("emt", "toy")
    batch = snap.read()
    assert np.isnan(batch.label("energy", "emt")[2:]).all()
    with pytest.raises(TeacherError, match="choose one"):
        _ = batch.energy
    assert snap.read([3, 2]).teachers == ("toy",)
    assert snap[0].info["teacher"] == "emt"
    with pytest.raises(TeacherError, match="expected one of emt, toy, got 'dft'"):
        snap.read(teacher="dft")


def test_a_teacher_name_stands_for_one_model(store):
    store.append(metal_frames(1), teacher="m", teachers={"m": {"fingerprint": "sha256:aa"}})
    before = sorted(found.path for found in store._storage.list(""))
    with pytest.raises(
        ConflictError, match="teacher 'm': the store holds labels of 'sha256:aa', these are of 'sha256:bb'"
    ):
        store.append(metal_frames(1, seed=2), teacher="m", teachers={"m": {"fingerprint": "sha256:bb"}})
    assert sorted(found.path for found in store._storage.list("")) == before
    assert store.snapshot().teacher_info("m") == {"fingerprint": "sha256:aa"}


def test_vocabularies_merge(store):
    store.append(metal_frames(2), source="b", sampler="rattle")
    store.append(metal_frames(2, seed=1), source=["a", "b"], sampler="md")
    batch = store.snapshot().read([3, 2, 1, 0])
    assert batch.source == ["b", "a", "b", "b"]
    assert batch.sampler == ["md", "md", "rattle", "rattle"]


def test_quarantine_keeps_samples_and_reasons(store):
    batch = ml.SampleBatch.from_ase(metal_frames(4))
    bad = batch.take([1, 3])
    version = store.commit(batch.take([0, 2]), rejected=bad, reasons=["too close", "too far"], key="k")
    snap = store.snapshot(version)
    assert (len(snap), snap.n_quarantined) == (2, 2)
    rejected = snap.quarantine
    assert rejected.reasons() == ["too close", "too far"]
    assert np.array_equal(rejected.read().energy, bad.energy)
    assert len(pickle.loads(pickle.dumps(rejected))) == 2
    only = store.commit(None, rejected=bad, reasons=["x", "x"])
    assert store.snapshot(only).n_quarantined == 4
    with pytest.raises(DataError, match="reasons: expected one for each of 2"):
        store.commit(None, rejected=bad, reasons=["x"])


def test_create_twice(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(1))
    with pytest.raises(StoreExistsError, match="there is a store already"):
        ml.create(tmp_path / "d.zarr")
    with pytest.raises(StoreExistsError, match="other settings"):
        ml.create(tmp_path / "d.zarr", precision="float64", exist_ok=True)
    assert len(ml.create(tmp_path / "d.zarr", exist_ok=True)) == 1


def test_an_interrupted_creation_is_finished(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    (tmp_path / "d.zarr" / "_log" / f"{0:020d}.json").unlink()
    with pytest.raises(ml.errors.FormatError, match="interrupted"):
        ml.open(tmp_path / "d.zarr")
    assert ml.create(tmp_path / "d.zarr").uuid == store.uuid


def test_reading_mode_does_not_write(store):
    reader = ml.open(store.url)
    with pytest.raises(ReadOnlyError, match="mode='a'"):
        reader.append(metal_frames(1))
    with pytest.raises(ReadOnlyError):
        reader.writer()
    with pytest.raises(DataError, match="mode"):
        ml.open(store.url, mode="w")


def test_writer_flushes_and_checks_at_once(store):
    frames = mixed_frames(7)
    bad = metal_frames(1)[0]
    bad.calc.results["forces"] = np.full((len(bad), 3), np.nan)
    with store.writer(flush_samples=3) as writer:
        for frame in frames[:4]:
            writer.add(frame)
        with pytest.raises(DataError, match="no forces"):
            writer.add(bad)
        writer.add(frames[4:])
    assert writer.versions == [1, 2]
    assert len(store) == 7
    assert [len(a) for a in store.snapshot()] == [len(a) for a in frames]


def test_writer_keeps_what_was_added_before_an_exception(store):
    def interrupted():
        with store.writer() as writer:
            writer.add(metal_frames(2))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert len(store) == 2


def test_writer_keys_make_a_repeated_loop_harmless(store):
    for _ in range(2):
        with store.writer(flush_samples=2, key="run") as writer:
            for frame in metal_frames(5):
                writer.add(frame)
    assert len(store) == 5
    assert list(store.keys()) == ["run/0", "run/1", "run/2"]


def test_provenance_is_kept(store):
    store.append(metal_frames(1), provenance={"code": "vasp 6.4"})
    assert store.provenance() == [{"version": 1, "time": store.history()[1].time, "code": "vasp 6.4"}]
    with pytest.raises(DataError, match="provenance: expected what JSON can hold"):
        store.append(metal_frames(1), provenance={"x": object()})


def test_repr_says_what_is_there(store):
    store.append(mixed_frames(4), teacher="emt")
    assert "4 samples" in repr(store)
    assert "emt" in repr(store.snapshot())
    assert "<table>" in store._repr_html_()
    assert "mlffstore.Store" in store._repr_html_()


def test_nothing_reads_as_a_batch_of_no_samples(tmp_path):
    store = ml.create(tmp_path / "d.zarr", precision="float64")
    for snap in (store.snapshot(), store.snapshot(store.append(molecule_frames(2)))):
        batch = snap.read([])
        assert len(batch) == batch.n_atoms_total == len(batch.content_hash) == 0
        assert batch.positions.dtype == "float64"
        assert batch.to_ase() == snap[:0] == []
        assert (batch.source, batch.teachers) == ([], ())
        assert list(snap.read([], columns=["charge"]).columns) == ["n_atoms", "charge"]


def test_a_dataset_does_not_open_the_store_again(store, monkeypatch):
    """Dask names variables by their pickles unless it is told a name, and unpickling a snapshot opens its store."""
    from mlffstore.store.opening import StoreOpener

    store.append(metal_frames(2), teacher="emt")
    store.append(metal_frames(2, seed=1), teacher="other")
    snap = store.snapshot()

    def opened(*_):
        raise AssertionError("the store was opened again")

    monkeypatch.setattr(StoreOpener, "__call__", opened)
    ds = snap.to_xarray()
    one, other = (snap.to_xarray(teachers=name) for name in ("emt", "other"))
    assert np.array_equal(ds["positions"].values, snap.read().positions)
    # The names that Dask knows the variables by differ where the variables do.
    assert one["energy"].data.name != other["energy"].data.name
    assert np.isnan(one["energy"].values).sum() == np.isnan(other["energy"].values).sum() == 2
