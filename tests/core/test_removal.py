"""Samples and labels are removed in one commit, and every reader agrees on what is left."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError, ReadOnlyError, TeacherError
from tests.samples import metal_frames, mixed_frames, molecule_frames

GONE = [0, 3, 4, 5, 11]


@pytest.fixture
def store(tmp_path):
    """Three segments of 4 samples, with a user column."""
    store = ml.create(tmp_path / "d.zarr")
    for i in range(3):
        store.append(mixed_frames(4, seed=i), source=f"source {i}")
    store.add_column("number", np.arange(12), unit="1", axis="sample")
    return store


def numbers(snapshot: ml.Snapshot) -> list[int]:
    return snapshot.read().columns["number"].tolist()


def test_every_road_reads_what_is_left(store):
    before = store.snapshot().read()
    kept = np.setdiff1d(np.arange(12), GONE)
    assert store.remove(GONE, reason="bad geometry") == 5
    snap = ml.open(store.url).snapshot()
    assert (len(store), len(snap), numbers(snap)) == (7, 7, kept.tolist())
    expected, got = before.take(kept), snap.read()
    assert np.array_equal(got.positions, expected.positions)
    assert np.array_equal(got.energy, expected.energy)
    assert got.source == expected.source
    assert [atoms.get_potential_energy() for atoms in snap] == expected.energy.tolist()
    with xr.open_dataset(store.url, engine="mlffstore", chunks={}) as ds:
        assert ds.sizes["sample"] == 7
        assert np.array_equal(ds["number"], kept)
    data = ml.TorchDataset(store.url, split=None)
    assert len(data) == 7
    assert sorted(float(data[i]["energy"]) for i in range(7)) == sorted(expected.energy.tolist())
    assert np.array_equal(snap.split_codes(), store.snapshot(4).split_codes()[kept])


def test_figures_shrink_to_those_of_a_store_without_the_samples(store, tmp_path):
    store.append(molecule_frames(1), teacher="second")
    store.remove([*GONE, 12], reason="bad")
    other = ml.create(tmp_path / "other.zarr")
    other.append(store.snapshot().read())
    ours, theirs = store.snapshot().summary(), other.snapshot().summary()
    for name in ("samples", "atoms", "periodic", "elements", "teachers", "n_atoms_min", "n_atoms_max"):
        assert ours[name] == theirs[name], name
    assert store.remove(np.ones(7, bool), reason="all of them") == 7
    empty = store.snapshot().summary()
    assert (empty["samples"], empty["elements"], empty["teachers"], empty["nbytes"]) == (0, {}, {}, 0)
    assert (empty["n_atoms_min"], empty["n_atoms_max"], empty["segments"]) == (0, 0, 0)
    assert store.append(mixed_frames(2)) == 8
    assert store.verify(full=True).ok


def test_removed_samples_are_in_the_quarantine_with_the_reason_and_all_columns(store):
    before = store.snapshot().read()
    store.commit(None, rejected=before.take([1]), reasons=["rejected"])
    store.remove(GONE, reason="bad geometry")
    quarantine = store.snapshot().quarantine
    assert quarantine.reasons() == ["rejected"] + ["bad geometry"] * 5
    batch, expected = quarantine.read(slice(1, None)), before.take(GONE)
    assert np.array_equal(batch.content_hash, expected.content_hash)
    assert np.array_equal(batch.forces, expected.forces)
    assert numbers(quarantine)[1:] == GONE
    assert store.snapshot().summary()["quarantined"] == 6
    commit = store.history(1)[0]
    assert (commit.operation, commit.n_samples, commit.n_quarantined) == ("remove", 0, 5)
    assert commit.note == "5 samples removed: bad geometry"


def test_old_versions_and_tags_stay_readable_through_compaction_and_collection(store):
    store.tag("v1")
    before = store.snapshot().read()
    store.remove(GONE, reason="bad")
    store.compact()
    store.gc(dry_run=False, grace=0)
    assert np.array_equal(store.snapshot(4).read().positions, before.positions)
    store.gc(dry_run=False, grace=0, expire_before=store.version)
    for snap in (store.snapshot(tag="v1"), ml.open(store.url).snapshot(tag="v1")):
        assert np.array_equal(snap.read().forces, before.forces)
    assert numbers(store.snapshot()) == np.setdiff1d(np.arange(12), GONE).tolist()
    assert numbers(store.snapshot().quarantine) == GONE
    assert store.verify(full=True).ok
    store.untag("v1")
    assert store.gc(dry_run=False, grace=0).paths  # only now nothing needs them
    with pytest.raises(DataError, match="has expired"):
        store.snapshot(4)
    assert store.verify(full=True).ok


def test_samples_are_named_in_several_ways(store):
    snap = store.snapshot()
    plans = [
        store.remove(what, reason="bad", dry_run=True)
        for what in (
            [0, 3, 4, 5, -1, 3],
            np.isin(np.arange(12), GONE),
            SimpleNamespace(snapshot=snap, indices=np.array(GONE)),
        )
    ]
    assert plans[0] == plans[1] == plans[2]
    assert store.remove(7, reason="bad") == 5
    assert store.remove([], reason="bad") == 5  # nothing to remove is no commit
    for what, error in (([11], IndexError), ([0.5], IndexError), (np.ones(3, bool), IndexError), (None, DataError)):
        with pytest.raises(error):
            store.remove(what, reason="bad")
    for reason in ("", " ", None):
        with pytest.raises(DataError, match="reason: expected a text"):
            store.remove([0], reason=reason)
    with pytest.raises(ReadOnlyError):
        ml.open(store.url).remove([0], reason="bad")


def test_snapshots_that_are_not_of_this_store_are_refused(store, tmp_path):
    other = ml.create(tmp_path / "other.zarr")
    for i in range(4):
        other.append(mixed_frames(2, seed=i))
    with pytest.raises(DataError, match="snapshot: expected accepted samples of"):
        store.remove([0], reason="bad", snapshot=other.snapshot())
    store.remove([0], reason="bad")
    with pytest.raises(DataError, match="got its quarantine"):
        store.remove([0], reason="bad", snapshot=store.snapshot().quarantine)
    selection = SimpleNamespace(snapshot=store.snapshot(4), indices=[0])
    with pytest.raises(DataError, match=r"expected that of the selection \(version 4\), got version 5"):
        store.remove(selection, reason="bad", snapshot=store.snapshot())


def test_indices_of_an_old_snapshot_find_their_samples(store):
    snap = store.snapshot()
    store.remove([1, 2, 8], reason="first")
    store.compact()
    store.append(mixed_frames(2, seed=9))
    plan = store.remove([2, 3, 8, 9], reason="second", snapshot=snap, dry_run=True)
    assert (plan.n_samples, plan.n_gone) == (2, 2)
    store.remove([2, 3, 8, 9], reason="second", snapshot=snap)
    left = store.snapshot().read().columns["number"][:7]
    assert left.tolist() == [0, 4, 5, 6, 7, 10, 11]
    assert store.remove([2, 3, 8, 9], reason="again", snapshot=snap) == store.version == 8
    assert numbers(store.snapshot().quarantine) == [1, 2, 8, 3, 9]


def test_a_column_for_samples_of_which_some_are_gone_is_refused(store):
    snap = store.snapshot()
    store.remove([0], reason="bad")
    with pytest.raises(ConflictError, match="removed samples of it meanwhile; take a new snapshot"):
        store.add_column("x", np.zeros(12), snapshot=snap)


def test_a_dry_run_says_what_would_go_and_writes_nothing(store, tmp_path):
    files = sorted(path for path in (tmp_path / "d.zarr").rglob("*"))
    snap = store.snapshot()
    plan = ml.open(store.url).remove(GONE, reason="bad", dry_run=True)
    assert sorted(path for path in (tmp_path / "d.zarr").rglob("*")) == files
    assert (plan.action, plan.version, plan.n_samples, plan.n_gone, plan.done) == ("remove", 4, 5, 0, None)
    assert plan.n_atoms == int(snap.read().n_atoms[GONE].sum())
    assert plan.labels == {"reference": 5}
    codes = snap.split_codes()[GONE]
    assert plan.splits == {name: int((codes == k).sum()) for k, name in enumerate(("train", "val", "test"))}
    assert plan.segments == tuple(segment.path for segment in snap.segments)
    assert plan.nbytes == sum(segment.nbytes for segment in snap.segments)


# -- keys --------------------------------------------------------------------------------------------------------


def test_a_key_removes_once(store):
    snap = store.snapshot()
    assert store.remove(GONE, reason="bad", key="a") == 5
    # The same call again means the samples of the first time, not those that moved up.
    assert store.remove(GONE, reason="bad", key="a") == 5
    assert store.remove(GONE, reason="other words", key="a", snapshot=snap) == 5
    assert store.remove(GONE, reason="bad", key="a", dry_run=True).done == 5
    for other in (
        {"samples": [0]},
        {"samples": GONE, "teacher": "reference"},
        {"samples": GONE, "snapshot": store.snapshot()},
    ):
        with pytest.raises(ConflictError, match="key 'a': version 5 did something else"):
            store.remove(**other, reason="bad", key="a")
    with pytest.raises(ConflictError, match="did something else"):
        store.revert(1, reason="bad", key="a")
    with pytest.raises(ConflictError, match="holds other samples"):
        store.append(metal_frames(1), key="a")
    assert (store.version, len(store)) == (5, 7)
    assert store.remove([], reason="none", key="b") == 6  # is on record all the same
    assert store.remove([], reason="none", key="b") == 6
    assert store.append(metal_frames(1), key="c") == 7
    with pytest.raises(ConflictError, match="did something else"):
        store.remove([0], reason="bad", key="c")
    assert ml.open(store.url).keys() == {"a": 5, "b": 6, "c": 7}


def test_an_append_with_a_key_stays_done_when_its_samples_were_removed(store):
    assert store.append(metal_frames(2, seed=7), key="task") == 5
    store.remove([12, 13], reason="bad")
    assert store.append(metal_frames(2, seed=7), key="task") == 5
    assert len(store) == 12


# -- labels ------------------------------------------------------------------------------------------------------


def test_labels_of_one_teacher_are_removed(store):
    store.append(molecule_frames(3), teacher="second")
    with pytest.raises(TeacherError, match="expected one of reference, second"):
        store.remove(teacher="third", reason="bad")
    before = store.snapshot().read()
    assert store.remove([2, 12, 13], teacher="reference", reason="wrong") == 6
    snap = store.snapshot()
    assert snap.summary()["teachers"] == {"reference": 11, "second": 3}
    after = snap.read()
    missing = np.flatnonzero(np.isnan(after.label("energy", "reference")))
    assert missing.tolist() == [2, 12, 13, 14]
    assert np.array_equal(after.label("energy", "second"), before.label("energy", "second"), equal_nan=True)
    assert np.array_equal(after.positions, before.positions)
    assert snap.n_quarantined == 0
    assert store.history(1)[0].note.endswith("of 1 sample removed: wrong")
    plan = store.remove(teacher="reference", reason="wrong", dry_run=True)
    assert (plan.action, plan.n_samples, plan.labels) == ("clear", 11, {"reference": 11})
    store.remove(teacher="reference", reason="wrong")
    assert ml.open(store.url).snapshot().teachers == ("second",)
    assert all("energy.reference" not in segment.columns for segment in store.snapshot().segments)
    assert store.snapshot(6).read().teachers == ("reference", "second")
    assert store.verify(full=True).ok


def test_another_model_may_take_the_name_once_no_label_is_left(store):
    frames = metal_frames(2, seed=5)
    store.append(frames, teacher="model", teachers={"model": {"fingerprint": "old"}})
    new = {"model": {"fingerprint": "new"}}
    store.remove([12], teacher="model", reason="wrong weights")
    with pytest.raises(ConflictError, match="labels of 'old'"):
        store.append(frames, teacher="model", teachers=new)
    store.remove(teacher="model", reason="wrong weights")
    store.append(frames, teacher="model", teachers=new)
    assert ml.open(store.url).snapshot().teacher_info("model") == {"fingerprint": "new"}
    assert store.snapshot(5).teacher_info("model") == {"fingerprint": "old"}


# -- duplicates --------------------------------------------------------------------------------------------------


def test_removed_structures_may_be_appended_again(store):
    hashes = store.snapshot().read().content_hash
    frames = mixed_frames(4, seed=0)
    assert store.holds(hashes).all()
    store.remove([0, 1], reason="bad")
    assert store.holds(hashes).tolist() == [False] * 2 + [True] * 10
    assert store.append(frames, on_duplicate="skip") == 6
    assert len(store) == 12
    assert store.history(1)[0].note == "2 duplicates skipped"
    store.append(frames[:1])  # a copy: one of two goes, and the structure is still there
    store.remove([12], reason="bad")
    assert store.holds(hashes).all()
    with pytest.raises(DataError, match="there already"):
        store.append(frames[:1], on_duplicate="error")
