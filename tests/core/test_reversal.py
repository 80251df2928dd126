"""Whole commits are taken back, wherever their samples are by then."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.schema import label_column
from mlffstore.errors import ConflictError, DataError
from mlffstore.format.records import layer_document
from mlffstore.format.segment import write_layer
from tests.samples import metal_frames, mixed_frames


@pytest.fixture
def store(tmp_path):
    """Version 1 to 3: three appends of 4 samples; version 4: the column `number`."""
    store = ml.create(tmp_path / "d.zarr")
    for i in range(3):
        store.append(mixed_frames(4, seed=i))
    store.add_column("number", np.arange(12), axis="sample")
    return store


def numbers(snapshot: ml.Snapshot) -> list[int]:
    return snapshot.read().columns["number"].tolist()


def same(a: ml.SampleBatch, b: ml.SampleBatch) -> bool:
    """Return whether two batches hold the same samples in the same order."""
    return (
        a.teachers == b.teachers
        and set(a.columns) == set(b.columns)
        and all(
            np.array_equal(a.columns[name], b.columns[name]) for name in b.columns if name not in ("source", "sampler")
        )
        and all(
            np.array_equal(a.labels[who][name], values, equal_nan=True)
            for who, named in b.labels.items()
            for name, values in named.items()
        )
    )


@pytest.mark.parametrize("compacted", [False, True])
def test_an_append_is_taken_back(store, compacted):
    before = store.snapshot().read()
    store.remove([5], reason="bad")
    if compacted:
        store.compact()
    store.append(metal_frames(2, seed=9))
    version = store.revert(2, reason="wrong import")
    assert version == store.version
    snap = ml.open(store.url).snapshot()
    assert (
        snap.read(columns=["content_hash"]).content_hash.tolist()[:8]
        == before.content_hash[[*range(4), *range(8, 12)]].tolist()
    )
    assert len(snap) == 10
    assert numbers(snap.quarantine) == [5, 4, 6, 7]
    assert snap.quarantine.reasons() == ["bad"] + ["wrong import"] * 3
    assert store.history(1)[0].note == "version 2 taken back, 3 samples removed: wrong import"
    assert same(store.snapshot(4).read(), before)
    assert store.verify(full=True).ok
    with pytest.raises(DataError, match="version 2: nothing of it is left"):
        store.revert(2, reason="again")


@pytest.mark.parametrize("compacted", [False, True])
def test_a_removal_is_taken_back_and_that_too(store, compacted):
    before = store.snapshot().read()
    gone = [1, 4, 5, 6, 7]
    removal = store.remove(gone, reason="bad")
    store.commit(None, rejected=before.take([0]), reasons=["rejected"])
    if compacted:
        store.compact()  # the quarantine too
        store.gc(dry_run=False, grace=0, expire_before=store.version)  # the quarantine is enough to bring samples back
    back = store.revert(removal, reason="they are fine")
    snap = store.snapshot()
    order = [i for i in range(12) if i not in gone] + gone
    assert same(snap.read(), before.take(order))
    assert snap.quarantine.reasons() == ["rejected"]
    assert snap.summary()["elements"] == store.snapshot().summary()["elements"]
    commit = store.history(1)[0]
    assert (commit.operation, commit.n_samples, commit.n_quarantined) == ("remove", 5, 0)
    # The append has its samples back too, and is found with them.
    assert store.revert(2, reason="all of it", dry_run=True).n_samples == 4
    again = store.revert(back, reason="they are not")
    assert numbers(store.snapshot()) == [i for i in range(12) if i not in gone]
    assert numbers(store.snapshot().quarantine)[1:] == gone
    store.revert(again, reason="last word")
    assert same(store.snapshot().read(), before.take(order))
    assert store.verify(full=True).ok


@pytest.mark.parametrize("compacted", [False, True])
def test_a_column_is_taken_off_and_may_be_added_in_another_unit(store, compacted):
    if compacted:
        store.compact()
    store.append(mixed_frames(2, seed=5))
    version = store.revert(4, reason="wrong unit")
    assert store.snapshot().user_columns == {}
    store.add_column("number", np.arange(14.0), unit="eV")
    assert numbers(store.snapshot()) == list(range(14))
    with pytest.raises((ConflictError, DataError), match="have other values"):
        store.revert(version, reason="too late")
    with pytest.raises(DataError, match="version 4: nothing of it is left"):
        store.revert(4, reason="the values are those of another commit by now")
    store.revert(store.version, reason="once more")
    store.revert(version, reason="the first was right")
    assert store.revert(4, reason="wrong after all", dry_run=True).n_samples == 12
    batch = store.snapshot().read()
    assert batch.columns["number"].dtype == np.int64
    assert batch.columns["number"].tolist() == [*range(12), 0, 0]
    assert batch.masks["number"].tolist() == [True] * 12 + [False] * 2
    assert store.verify(full=True).ok


@pytest.mark.parametrize("compacted", [False, True])
def test_a_label_pass_is_taken_back_segment_by_segment(tmp_path, compacted):
    store = ml.create(tmp_path / "d.zarr")
    for i in range(2):
        store.append(metal_frames(3, seed=i))
    report = store.add_labels("emt")
    assert len(report.versions) == 2
    labelled = store.snapshot().read()
    store.remove([0], reason="bad")
    if compacted:
        store.compact()
    segment = store.snapshot(report.versions[0] - 1).segments
    first = [store.snapshot(report.versions[0]).segments[i].teachers != ("reference",) for i in range(len(segment))]
    cleared = np.repeat(first, 3)[1:]
    version = store.revert(report.versions[0], reason="wrong weights")
    energy = store.snapshot().read().label("energy", "emt")
    assert np.array_equal(np.isnan(energy), cleared)
    store.revert(version, reason="right after all")
    assert same(store.snapshot().read(), labelled.take(np.arange(1, 6)))
    assert store.verify(full=True).ok


def test_labels_that_came_later_stay(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(3))
    first = store.add_labels("emt").versions[0]
    removal = store.remove([1], teacher="emt", reason="bad")
    second = store.add_labels("emt").versions  # completes the segment
    assert [commit.operation for commit in store.history(1)] == ["replace"]
    with pytest.raises(ConflictError, match=r"completed the labels of 'emt' .*store\.remove\(teacher='emt'"):
        store.revert(first, reason="wrong")
    with pytest.raises(ConflictError, match=r"1 of the samples have other values of energy\.emt"):
        store.revert(removal, reason="wrong")
    with pytest.raises(DataError, match="it completed labels; remove those of the teacher"):
        store.revert(second[0], reason="wrong")
    assert np.isfinite(store.snapshot().read().label("energy", "emt")).all()
    assert store.version == second[0]


def test_labels_that_were_removed_come_back_unless_they_expired(store):
    before = store.snapshot().read()
    removal = store.remove([2, 3, 4], teacher="reference", reason="bad")
    store.compact()
    store.remove([3], reason="bad sample")
    plan = store.revert(removal, reason="fine", dry_run=True)
    assert (plan.action, plan.n_samples, plan.n_gone, plan.labels) == ("refill", 2, 1, {"reference": 2})
    store.revert(removal, reason="fine")
    assert same(store.snapshot().read(), before.take([i for i in range(12) if i != 3]))
    other = store.remove([0], teacher="reference", reason="bad")
    store.gc(dry_run=False, grace=0, expire_before=store.version)
    with pytest.raises(DataError, match=f"version {other - 1} has expired"):
        store.revert(other, reason="fine")
    assert store.verify(full=True).ok


def test_labels_of_another_model_keep_removed_ones_out(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    frames = metal_frames(2)
    store.append(frames[:1], teacher="model", teachers={"model": {"fingerprint": "old"}})
    samples = store.remove([0], reason="bad")
    store.append(frames[1:], teacher="model", teachers={"model": {"fingerprint": "new"}})
    with pytest.raises(ConflictError, match="the store holds labels of 'new', these are of 'old'"):
        store.revert(samples, reason="fine")
    store.remove([0], reason="bad")
    store.revert(samples, reason="fine")
    assert store.snapshot().teacher_info("model") == {"fingerprint": "old"}


def test_what_cannot_be_taken_back_says_what_to_do(store):
    store.compact()
    store.tag("v1")
    store.untag("v1")
    store.gc(dry_run=False, expire_before=1)
    for version, text in ((0, "remove the store instead"), (5, "it merged segments"), (6, "withdraw the tag"),
                          (7, "set the tag again"), (8, "restore them from a backup")):  # fmt: skip
        with pytest.raises(DataError, match=f"version {version} .*cannot be taken back: .*{text}"):
            store.revert(version, reason="why not")
    for version in (-1, 9):
        with pytest.raises(DataError, match="version: expected 0 to 8"):
            store.revert(version, reason="why not")
    with pytest.raises(DataError, match="reason: expected a text"):
        store.revert(1, reason="")
    assert store.append(mixed_frames(4), on_duplicate="skip", key="nothing new") == 9
    with pytest.raises(DataError, match="nothing of it is left"):
        store.revert(9, reason="why not")


def test_a_key_takes_back_once(store):
    assert store.revert(1, reason="bad", key="undo") == 5
    assert store.revert(1, reason="bad", key="undo") == 5
    assert store.revert(1, reason="bad", key="undo", dry_run=True).done == 5
    with pytest.raises(ConflictError, match="key 'undo': version 5 did something else"):
        store.revert(2, reason="bad", key="undo")
    with pytest.raises(ConflictError, match="did something else"):
        store.remove([0], reason="bad", key="undo")
    assert len(store) == 8


def test_layers_of_other_writers_with_different_columns_are_refused(store):
    layers = []
    for i, name in enumerate(("energy", "energy", "forces")):
        segment = store.snapshot().segments[i]
        shape = (segment.n_samples,) if name == "energy" else (segment.n_atoms, 3)
        layers.append(
            write_layer(
                store._storage, segment, [(label_column(name, "x"), np.ones(shape, label_column(name, "x").dtype))]
            )
        )
    version = store._log.commit(
        "layer", None, {"layers": [layer_document(layer) for layer in layers]}, lambda state: None
    )[0]
    with pytest.raises(DataError, match="its layers have different columns"):
        store.revert(version, reason="bad")


def helium(numbers, **labels):
    """Atoms at different places, one for each number."""
    x = np.asarray(numbers, float)
    return ml.SampleBatch(
        n_atoms=[1] * len(x), numbers=[2] * len(x), positions=np.repeat(x[:, None], 3, axis=1), **labels
    )


def energies(store):
    return store.snapshot().read().labels.get("t", {}).get("energy", np.array([])).tolist()


@pytest.fixture
def bare(tmp_path):
    """Four samples without labels, version 1."""
    store = ml.create(tmp_path / "bare.zarr")
    store.append(helium(range(4)), require=())
    return store


def test_labels_that_another_commit_gave_stay(bare):
    first = bare.attach_labels([0, 1], helium([0, 1], energy=[1.0, 2.0], teacher="t"))  # a layer
    second = bare.attach_labels([2, 3], helium([2, 3], energy=[3.0, 4.0], teacher="t"))  # written anew
    assert bare.revert(first, reason="wrong", dry_run=True).n_samples == 2
    bare.revert(first, reason="the first file was wrong")
    np.testing.assert_array_equal(energies(bare), [np.nan, np.nan, 3.0, 4.0])
    bare.revert(second, reason="the second too")
    assert energies(bare) == []


def test_labels_attached_to_what_a_pass_refused_stay(tmp_path):
    store = ml.create(tmp_path / "pass.zarr")
    frames = metal_frames(3)
    frames[1].numbers[:] = 92  # EMT does not know uranium
    for frame in frames:
        frame.calc = None
    store.append(frames, require=())
    passed = store.add_labels("emt").versions[0]
    store.attach_labels([1], ml.SampleBatch.from_ase([frames[1]]).with_labels("emt", energy=np.array([7.0])))
    store.revert(passed, reason="wrong version of EMT")
    np.testing.assert_array_equal(store.snapshot().read().labels["emt"]["energy"], [np.nan, 7.0, np.nan])


def test_a_new_value_is_not_the_one_that_was_removed(tmp_path):
    store = ml.create(tmp_path / "new.zarr")
    store.append(helium([0, 1], energy=[np.nan, 5.0], teacher="t"), require=())
    wrong = store.attach_labels([0], helium([0], energy=[1.0], teacher="t"))
    removal = store.remove([0], teacher="t", reason="wrong label")
    store.attach_labels([0], helium([0], energy=[2.0], teacher="t"))
    with pytest.raises(DataError, match="nothing of it is left"):
        store.revert(wrong, reason="wrong import")
    assert energies(store) == [2.0, 5.0]
    # What was taken off and given back is its own again, also after another round.
    store.remove([0], teacher="t", reason="not right either")
    store.revert(removal, reason="the first was right")
    again = store.revert(wrong, reason="or not")
    np.testing.assert_array_equal(energies(store), [np.nan, 5.0])
    store.revert(again, reason="it was")
    assert energies(store) == [1.0, 5.0]
    store.revert(wrong, reason="no")
    np.testing.assert_array_equal(energies(store), [np.nan, 5.0])


def test_columns_of_a_commit_may_have_gone_one_by_one(bare):
    forces = np.array([[1.0] * 3, [np.nan] * 3, [np.nan] * 3])
    both = bare.attach_labels([0, 1, 2], helium([0, 1, 2], energy=[1.0, 2.0, 3.0], forces=forces, teacher="t"))
    later = bare.attach_labels([1, 2], helium([1, 2], labels={"t": {"forces": np.ones((2, 3))}}))
    with pytest.raises(ConflictError, match=r"2 of the samples have values of .* by other commits too"):
        bare.revert(both, reason="wrong")
    bare.revert(later, reason="wrong")
    assert bare.revert(both, reason="wrong", dry_run=True).n_samples == 3
    taken = bare.revert(both, reason="wrong")
    assert bare.snapshot().read().labels == {}
    bare.revert(taken, reason="right")
    np.testing.assert_array_equal(energies(bare), [1.0, 2.0, 3.0, np.nan])
