"""Every property and strings, from a store to releases and exports; what has no place is named."""

from __future__ import annotations

import json
import logging

import ase.io
import h5py
import numpy as np
import pytest
import xarray as xr

import mlffstore as ml
from mlffstore.data import properties
from mlffstore.data.properties import PROPERTIES
from mlffstore.release.reading import Release
from mlffstore_exporters.hdf5 import export_hdf5
from tests.signals import CUSTOM, POLARIZABILITY, assert_same, signals

ALL = {"train": 1.0, "val": 0.0, "test": 0.0}


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits=ALL)
    store.append(signals(), require=())
    store.append(signals(1).take([1]), require=())
    return store


def of_teacher(batch, teacher):
    """Return a batch with the labels of one teacher alone."""
    return batch.structures().with_properties(teacher, batch.labels[teacher], batch.properties)


@pytest.mark.parametrize("teacher", ["a", "b", ["a", "b"]])
def test_a_release_holds_every_property(store, tmp_path, teacher, monkeypatch):
    snap = store.snapshot()
    path = export_hdf5(snap, tmp_path / "out.h5", teacher=teacher)
    whole = snap.read()
    expected = whole if isinstance(teacher, list) else of_teacher(whole, teacher)
    monkeypatch.setattr(properties, "_registered", {})
    release = Release(path)
    assert_same(expected, release.read("train"))
    for name in release.teachers:
        assert release.labels(name) == {*PROPERTIES, *CUSTOM}
    assert ml.verify_release(path).ok
    with h5py.File(path) as file:
        suffix = ".a" if isinstance(teacher, list) else ""
        dataset = file["train"][f"{POLARIZABILITY.name}{suffix}"]
        assert dataset.attrs["units"] == "e*angstrom^2/V"
        assert dataset.attrs["turns"] == "tensor"
        assert json.loads(dataset.attrs["inner"]) == ["xyz", "xyz"]
        types = file["train/config_type"]
        words, mask = json.loads(types.attrs["meanings"]), file["train"][types.attrs["ancillary_variables"]][...]
        assert [words[code] if there else None for code, there in zip(types, mask, strict=True)] == whole.strings(
            "config_type"
        )


def test_a_group_of_a_release_is_a_dataset(store, tmp_path):
    path = export_hdf5(store.snapshot(), tmp_path / "out.h5", teacher="a")
    store.snapshot().to_xarray()  # registers the accessor
    with xr.open_dataset(path, group="train", engine="h5netcdf") as ds:
        assert_same(of_teacher(store.snapshot().read(), "a"), ds.mlff.to_batch())


def test_a_wrong_description_is_refused(store, tmp_path):
    path = export_hdf5(store.snapshot(), tmp_path / "out.h5", teacher="a")
    with h5py.File(path, "r+") as file:
        file[f"train/{POLARIZABILITY.name}"].attrs["turns"] = "twice"
    with pytest.raises(ml.errors.FormatError, match="turns"):
        Release(path)


def test_extxyz_holds_every_property(store, tmp_path):
    snap = store.snapshot()
    folder = ml.get_exporter("extxyz")(snap, tmp_path / "xyz", teacher="a")
    frames = ase.io.read(folder / "train.extxyz", ":")
    again = ml.SampleBatch.from_ase(frames, teacher="a").labels["a"]
    for name, array in snap.read(teacher="a").labels["a"].items():
        np.testing.assert_array_equal(again[name].reshape(array.shape), array, err_msg=name)
    assert frames[0].info["config_type"] == "two words"
    assert frames[0].arrays["residue"].tolist() == ["ALA", "GLY"]


def test_what_has_no_place_is_named(store, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        ml.get_exporter("mace")(store.snapshot(), tmp_path / "mace", teacher="a")
        ml.get_exporter("concatenated")(store.snapshot(), tmp_path / "out.h5", teacher="a")
    for name in (*PROPERTIES, *CUSTOM):
        assert (f"{name} (the layout has" in caplog.text) == (name not in ("energy", "forces", "stress")), name
    assert caplog.text.count("mace has no place") == 1
    assert "residue (MACE reads numbers)" in caplog.text
    with h5py.File(tmp_path / "mace" / "train" / "train_0.h5") as file:
        kinds = [config["config_type"][()].decode() for config in file["config_batch_0"].values()]
    assert kinds == ["two words", "Default", "bulk", "run 0", "Default"]


def test_aselmdb_holds_every_property(store, tmp_path):
    pytest.importorskip("ase_db_backends")
    from ase.db import connect

    folder = ml.get_exporter("aselmdb")(store.snapshot(), tmp_path / "db", teacher="a")
    labels = store.snapshot().read(teacher="a").labels["a"]
    with connect(folder / "train" / "data.0000.aselmdb", type="aselmdb", readonly=True) as database:
        row = next(database.select())
    np.testing.assert_array_equal(row.data["embedding"], labels["embedding"][:2])
    np.testing.assert_allclose(row.charges, labels["charges"][:2])
    assert row.data["config_type"] == "two words"
    assert row.data["residue"] == ["ALA", "GLY"]
