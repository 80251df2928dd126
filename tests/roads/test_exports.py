"""Our own plain exports come back through the importer with all that their layout holds."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.electrons import lowest_multiplicity
from mlffstore.data.masks import user_rows
from mlffstore.data.schema import STANDARD
from mlffstore.release.selection import select
from tests.exporters.test_fields import samples
from tests.signals import assert_same, signals

NEEDS = {"parquet": "pyarrow", "atompack": "atompack"}
#: Labels that a layout has a place for; all where it is not named.
LABELS = {"deepmd": ("energy", "forces", "stress", "atomic_energies", "dipole")}


def exporter(layout):
    """Return an exporter by its module: those of a checkout that is not installed have no entry points yet."""
    return getattr(importlib.import_module(f"mlffstore_exporters.{layout}"), f"export_{layout}")


def possible(batch):
    """Return samples with multiplicities that their electrons allow: an import refuses others."""
    return batch.with_columns(multiplicity=lowest_multiplicity(batch.numbers, batch.charge, batch.offsets))


@pytest.fixture
def snap(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 0.5, "val": 0.3, "test": 0.2}, split_seed=3)
    for seed in range(3):  # three, since a property may have no value in one of the batches
        store.append(signals(seed), key=f"part {seed}", require=())
    store.append(signals(9).structures(), require=())  # without labels: they are left out
    return store.snapshot()


def there_and_back(snap, layout, teacher, path):
    """Export, import into a new store, and return what was exported and what came back, in one order."""
    if layout in NEEDS:
        pytest.importorskip(NEEDS[layout])
    if layout in ("nvalchemi", "atompack") and not isinstance(teacher, str):
        pytest.skip("the layout has one teacher")
    out = exporter(layout)(snap, path / "out", teacher=teacher)
    report = ml.import_files(out, path / "again")
    assert {use.fate for use in report.keys} <= {"kept"}
    again = ml.open(path / "again").snapshot()
    teachers = [teacher] if isinstance(teacher, str) else teacher
    index = np.sort(np.concatenate(list(select(snap, teachers).values())))
    before, after = snap.read(index, teacher=teachers), again.read()
    order, back = np.argsort(before.content_hash, kind="stable"), np.argsort(after.content_hash, kind="stable")
    np.testing.assert_array_equal(snap.split_codes()[index][order], again.split_codes()[back])
    assert again.settings == snap.settings
    return before.take(order), after.take(back), again


def assert_same_samples(before, after):
    for name in STANDARD:
        if name in ("source", "sampler"):
            assert getattr(before, name) == getattr(after, name)
        else:
            assert before.columns[name].dtype == after.columns[name].dtype
            np.testing.assert_array_equal(before.columns[name], after.columns[name], err_msg=name)


@pytest.mark.parametrize("layout", ["zarr", "parquet", "nvalchemi", "atompack"])
@pytest.mark.parametrize("teacher", ["a", ["a", "b"]])
def test_layouts_that_hold_everything(snap, layout, teacher, tmp_path):
    before, after, again = there_and_back(snap, layout, teacher, tmp_path)
    assert_same_samples(before, after)
    assert_same(before, after)
    assert {name: column.long_name for name, column in after.user.items()} == {
        name: column.long_name for name, column in before.user.items()
    }
    for name in again.teachers:
        assert again.teacher_info(name) == snap.teacher_info(name)


@pytest.mark.parametrize("layout", ["deepmd"])
def test_layouts_of_one_teacher_keep_what_they_have_a_place_for(snap, layout, tmp_path):
    before, after, again = there_and_back(snap, layout, "a", tmp_path)
    assert_same_samples(before, after)
    assert again.teachers == ("a",)
    assert set(after.labels["a"]) == set(LABELS[layout])
    for name, values in after.labels["a"].items():
        np.testing.assert_array_equal(values, before.labels["a"][name], err_msg=name)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("layout", ["zarr", "parquet", "nvalchemi", "atompack"])
def test_user_columns_and_missing_values(layout, seed, tmp_path):
    store = ml.create(tmp_path / "d.zarr", precision="float64" if seed % 2 else "float32")
    store.append(possible(samples(seed)), require=())
    store.append(possible(samples(seed + 100, 6)), require=())  # with other user columns
    before, after, _ = there_and_back(store.snapshot(), layout, "reference", tmp_path)
    assert_same_samples(before, after)
    assert_same(before, after)
    for name, column in store.snapshot().user_columns.items():
        (ours, there), (theirs, also) = user_rows(before, column), user_rows(after, column)
        assert name not in after.user or after.user[name] == column
        np.testing.assert_array_equal(there, also, err_msg=name)
        np.testing.assert_array_equal(ours[there], theirs[there], err_msg=name)


@pytest.mark.parametrize("layout", ["zarr", "parquet", "deepmd", "nvalchemi", "atompack"])
def test_what_would_be_lost_is_refused(snap, layout, tmp_path):
    if layout in NEEDS:
        pytest.importorskip(NEEDS[layout])
    out = exporter(layout)(snap, tmp_path / "out", teacher="a")
    with pytest.raises(ml.errors.DataError, match="expected an export of mlffstore to bring its teachers"):
        ml.import_files(out, tmp_path / "again", teacher="other")
    assert not (tmp_path / "again").exists()


def test_a_damaged_export_is_refused(snap, tmp_path):
    import zarr

    out = ml.get_exporter("zarr")(snap, tmp_path / "out", teacher="a")
    group = zarr.open_group(out, mode="a", use_consolidated=False)
    group["source"].attrs["meanings"] = "[]"
    with pytest.raises(ml.errors.DataError, match="source"):
        ml.import_files(out, tmp_path / "again")
    del group["cell"]
    with pytest.raises(ml.errors.DataError, match="expected the columns cell, got none"):
        ml.import_files(out, tmp_path / "again")
    assert not (tmp_path / "again").exists()
