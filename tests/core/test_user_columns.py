"""User columns: kept with their unit, checked against what the store has, per sample or per atom."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError
from tests.samples import metal_frames


@pytest.fixture
def store(tmp_path):
    return ml.create(tmp_path / "d.zarr")


def test_user_columns_and_missing_ones(store):
    def batch(extra):
        return ml.SampleBatch(
            n_atoms=[1], numbers=[1], positions=[[0, 0, 0.0]], energy=[0.0], forces=[[0.0, 0, 0]], extra=extra
        )

    store.append(batch({"gap": (np.array([1.5], np.float32), "eV", "sample"), "rank": ([7], "1", "sample")}))
    store.append(batch({}))
    read = store.snapshot().read()
    assert read.columns["gap"][0] == 1.5
    assert np.isnan(read.columns["gap"][1])
    assert read.columns["rank"].dtype == np.int64
    assert read.masks["rank"].tolist() == [True, False]  # an integer cannot say that it is missing
    assert read.user["gap"].unit == "eV"
    with pytest.raises(DataError, match="user column 'gap'"):
        store.append(batch({"gap": (np.array([1.5], np.float32), "meV", "sample")}))


def test_a_column_may_say_what_its_rows_are(store):
    lone = ml.SampleBatch(n_atoms=[1, 1], numbers=[2, 10], positions=np.zeros((2, 3)))
    store.append(lone, require=())
    store.add_column("rank", np.arange(2))
    store.add_column("site", np.arange(2), axis="atom")
    columns = store.snapshot().user_columns
    assert (columns["rank"].axis, columns["site"].axis) == ("sample", "atom")
    with pytest.raises(DataError, match="axis: expected 'sample' or 'atom', got 'row'"):
        store.add_column("other", np.arange(2), axis="row")
    store.append(metal_frames(1))
    with pytest.raises(DataError, match=r"expected one row per atom \(6\), got shape \(3,\)"):
        store.add_column("other", np.arange(3), axis="atom")
    with pytest.raises(DataError, match=r"expected one row per sample \(3\) or one row per atom \(6\)"):
        store.add_column("other", np.arange(4))
