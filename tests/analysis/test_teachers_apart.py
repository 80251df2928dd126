"""Labels of teachers in variables of their own: embeddings of different widths, and releases of several teachers."""

from __future__ import annotations

import logging

import dask
import numpy as np
import pytest
import xarray as xr

import mlffstore as ml
from mlffstore.errors import DataError

WIDTHS = {"a": 3, "b": 5}


def made(path, names, teachers):
    """Two commits; teacher b labelled the second one alone. `names` of properties that they gave."""
    store, rng = ml.create(path), np.random.default_rng(4)
    for who, n in ((teachers[:1], 12), (teachers, 20)):
        shapes = {"energy": (n,), "forces": (2 * n, 3), "stress": (n, 6), "charges": (2 * n,)}
        labels = {
            t: {
                name: rng.normal(size=shapes.get(name, (2 * n, WIDTHS.get(t))))
                for name in names
                if t != "c" or name == "energy"
            }
            for t in who
        }
        store.append(
            ml.SampleBatch(
                n_atoms=[2] * n, numbers=rng.choice([1, 6, 8], 2 * n), positions=rng.normal(size=(2 * n, 3)) * 9,
                cell=np.eye(3) * rng.uniform(9, 12, (n, 1, 1)), pbc=np.ones((n, 3), bool), labels=labels,
            ),
            require=(),
        )  # fmt: skip
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return made(tmp_path_factory.mktemp("apart") / "d.zarr", ("energy", "forces", "embedding"), ("a", "b"))


SELECTIONS = {
    "one": (lambda ds: ds.sel(teacher="a"), ["a"]),
    "the second": (lambda ds: ds.isel(teacher=1), ["b"]),
    "a list": (lambda ds: ds.sel(teacher=["b"]), ["b"]),
    "another order": (lambda ds: ds.sel(teacher=["b", "a"]), ["b", "a"]),
    "all": (lambda ds: ds, ["a", "b"]),
    "embeddings alone": (lambda ds: ds.drop_vars(["energy", "forces"]), ["a", "b"]),
    "one of these": (lambda ds: ds.drop_vars(["energy", "forces"]).sel(teacher="b"), ["b"]),
}


@pytest.mark.parametrize("way", SELECTIONS)
@pytest.mark.parametrize("chunks", [(), None])
def test_selected_teachers_of_different_widths(store, way, chunks):
    select, teachers = SELECTIONS[way]
    ds = select(store.snapshot().to_xarray(chunks=chunks))
    whole = store.snapshot().read()
    batch = ds.mlff.to_batch()
    assert sorted(batch.teachers) == sorted(teachers)
    for teacher in teachers:
        assert set(batch.labels[teacher]) == set(whole.labels[teacher]) - ({"energy", "forces"} - set(ds))
        for name, values in batch.labels[teacher].items():
            np.testing.assert_array_equal(values, whole.labels[teacher][name])
    document = ml.statistics(ds, neighbours=False).to_dict()["teachers"]
    assert list(document) == teachers
    for teacher in teachers:
        assert document[teacher]["properties"]["embedding"]["samples"] == {"a": 32, "b": 20}[teacher]
        assert document[teacher]["samples"] == ({"a": 32, "b": 20}[teacher] if "energy" in ds else 0)
    assert ml.validate(ds).flags["teacher"].values.tolist() == teachers


def test_embeddings_alone_in_a_store(tmp_path):
    store = made(tmp_path / "d.zarr", ("embedding",), ("a", "b"))
    statistics = ml.statistics(store, neighbours=False)
    assert statistics.teachers == ("a", "b")
    assert statistics.to_dict()["teachers"]["b"]["properties"]["embedding"]["samples"] == 20
    assert store.snapshot().to_xarray().mlff.to_batch().teachers == ("a", "b")
    assert ml.validate(store).flags["teacher"].values.tolist() == ["a", "b"]


def test_a_teacher_without_a_name_beside_others(store):
    for use in (lambda ds: ds.mlff.to_batch(), ml.statistics, ml.validate):
        with pytest.raises(DataError, match="name of the teacher beside labels of a, b"):
            use(store.snapshot().to_xarray().sel(teacher="a", drop=True))


@pytest.mark.parametrize("names", [("energy", "forces", "stress"), ("energy", "forces", "charges", "embedding")])
@pytest.mark.parametrize("chunks", [{}, None, "loaded", "many blocks"])
def test_a_group_of_a_release_of_several_teachers(tmp_path, names, chunks, caplog):
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib").use("agg")
    store = made(tmp_path / "d.zarr", names, ("a", "b", "c"))
    path = ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "x.h5", teacher=["a", "b", "c"])
    lazy = {} if chunks == {} else None
    with (
        dask.config.set({"array.chunk-size": "200B" if chunks == "many blocks" else "128MiB"}),
        caplog.at_level(logging.WARNING),
        xr.open_dataset(path, group="train", engine="h5netcdf", chunks=lazy) as ds,
    ):
        if chunks == "loaded":
            ds.load()
        batch, statistics = ds.mlff.to_batch(), ml.statistics(ds, neighbours=False).to_dict()["teachers"]
        turned, only = ds.transpose().mlff.to_batch(), ds.mlff.sel(teacher="b").mlff.to_batch()
        assert ds.mlff.plot.force() is not None
        spread, flags = ds.mlff.disagreement()["force_max"].values, ml.validate(ds).flags["teacher"].values
    assert "left out" not in caplog.text
    want = ml.open_release(path).read(ml.open_release(path).split_indices("train"))
    assert batch.teachers == tuple(statistics) == tuple(flags) == ("a", "b", "c")
    for teacher in "abc":
        assert set(batch.labels[teacher]) == set(want.labels[teacher])
        for name, values in want.labels[teacher].items():
            np.testing.assert_array_equal(batch.labels[teacher][name], values, err_msg=f"{name} of {teacher}")
            np.testing.assert_array_equal(turned.labels[teacher][name], values, err_msg=f"{name} of {teacher}")
        assert statistics[teacher]["samples"] == np.isfinite(want.labels[teacher]["energy"]).sum() > 0
    assert only.teachers == ("b",)
    assert len(only) == np.isfinite(want.labels["b"]["energy"]).sum() < len(batch) == len(spread)


def test_labels_in_both_forms_are_refused(store):
    ds = store.snapshot().to_xarray()
    both = ds.assign({"energy.c": ds["energy"][:, 0].drop_vars("teacher").assign_attrs(teacher="c")})
    with pytest.raises(DataError, match=r"energy\.c: expected the dimension teacher, as energy, forces has"):
        both.mlff.to_batch()
