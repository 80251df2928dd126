"""User columns: kept with their unit, checked against what the store has, per sample or per atom."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ase.build import bulk

import mlffstore as ml
from mlffstore.errors import DataError
from tests.samples import metal_frames
from tests.signals import signals


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


def test_no_column_has_the_name_of_a_dimension(store, tmp_path):
    """Whatever dimensions and coordinates Datasets, results of their accessor and files have."""
    batch = signals()
    store.append(batch, require=())
    store.add_column("velocity", np.zeros((batch.n_atoms_total, 3, 2)))
    ds = store.snapshot().to_xarray()
    results = (
        ds,
        ds.mlff.composition(),
        ds.mlff.per_element("forces"),
        ds.mlff.hist("n_atoms"),
        ds.mlff.disagreement(),
    )
    names = {str(name) for result in results for name in (*result.dims, *result.coords)}
    export = ml.get_exporter("hdf5")
    for teacher in ("a", "b"):
        with h5py.File(export(store.snapshot(), tmp_path / f"{teacher}.h5", teacher=teacher)) as file:
            names |= {name for name, dataset in file["train"].items() if dataset.is_scale}
    expected = {"sample", "atom", "teacher", "xyz", "xyz_2", "voigt", "vector", "principal", "element", "bin",
                "velocity_dim1", "velocity_dim2", "embedding_width"}  # fmt: skip
    assert expected <= names
    for name in (name for name in names if "." not in name):
        with pytest.raises(DataError, match=f"got '{name}'"):
            store.add_column(name, np.zeros(len(batch)))
        with pytest.raises(DataError, match=f"got '{name}'"):
            ml.SampleBatch(n_atoms=[1], numbers=[2], positions=[[0, 0, 0]], extra={name: ([1.0], "1", "sample")})
        with pytest.raises(DataError, match="choose another name"):
            ml.Property(name, axis="sample")
    for name in ("xyzs", "elements", "velocity_dim", "dim1", "width"):
        store.add_column(name, np.zeros(len(batch)))
    snap = store.snapshot()
    assert set(snap.to_xarray().load().mlff.to_batch().user) == set(snap.user_columns)
    ml.statistics(snap)


def test_the_error_says_what_to_do(store):
    store.append(metal_frames(2))
    with pytest.raises(
        DataError, match=r"no dimension of datasets and releases \(sample, .*\), got 'vector'; rename it"
    ):
        store.add_column("vector", np.zeros(2))


def one(symbol, **extra):
    columns = {name: (values, "1", "sample") for name, values in extra.items()}
    number = bulk(symbol).numbers
    return ml.SampleBatch(n_atoms=[1], numbers=number, positions=np.zeros((1, 3)), extra=columns)


def test_rejected_samples_have_columns_of_their_own(store):
    """0.5 was read as the integer 0, since the first rejected sample had an integer of that name."""
    store.commit(None, rejected=one("Cu", score=[3], why=["far"]), reasons=["a"])
    store.commit(None, rejected=one("Ag", score=[0.5]), reasons=["b"])
    store.append(one("Au", gap=[2.0]), require=())
    snap = store.snapshot()
    rejected = snap.quarantine
    assert (set(snap.user_columns), set(rejected.user_columns)) == ({"gap"}, {"score", "why"})
    for k, score in enumerate((3, 0.5)):
        values = rejected.read([k]).columns["score"]
        assert values.tolist() == [score]
        assert values.dtype == type(score)
    for read in (rejected.read, rejected.table, lambda: rejected.to_xarray().load()):
        with pytest.raises(DataError, match=r"user column 'score': these samples have it as int64 .* and as float64"):
            read()
    assert rejected.read(columns=["n_atoms", "numbers"]).numbers.tolist() == [29, 47]
    assert store.compact().n_after >= 2
    assert store.snapshot().quarantine.read([1]).columns["score"].tolist() == [0.5]


def test_the_table_of_rejected_samples_has_their_columns(store):
    store.commit(None, rejected=one("Cu", score=[3]), reasons=["a"])
    store.append(one("Au", score=[2.5]), require=())
    assert store.snapshot().quarantine.table().to_pandas()["score"].tolist() == [3]
    assert store.snapshot().table().to_pandas()["score"].tolist() == [2.5]
