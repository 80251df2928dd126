"""Parquet, read by pyarrow and by the package `datasets` of Hugging Face."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.masks import user_rows
from mlffstore.data.properties import PROPERTIES
from mlffstore.release.selection import select
from mlffstore_exporters import parquet
from tests.exporters.test_fields import samples
from tests.signals import CUSTOM, signals

pq = pytest.importorskip("pyarrow.parquet")


def test_hugging_face_loads_it(store, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(parquet, "FILE_NBYTES", 1000)
    monkeypatch.setattr(parquet, "BLOCK", 10)
    snap = store.snapshot()
    folder = ml.get_exporter("parquet")(snap, tmp_path / "hub", teacher="emt", licence="cc-by-4.0")
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert len(list((folder / "data").glob("train-*-of-*.parquet"))) > 1
    for split, index in select(snap, ("emt",)).items():
        batch = snap.read(index, teacher="emt")
        rows = loaded[parquet.HUB_SPLITS[split]]
        assert len(rows) == len(batch)
        for i, row in enumerate(rows):
            atoms = slice(batch.offsets[i], batch.offsets[i + 1])
            assert np.array_equal(row["numbers"], batch.numbers[atoms])
            assert np.array_equal(np.asarray(row["positions"], "f4"), batch.positions[atoms])
            assert np.array_equal(np.asarray(row["forces"], "f4"), batch.forces[atoms])
            assert np.array_equal(row["cell"], batch.cell[i])
            assert np.array_equal(row["pbc"], batch.pbc[i])
            assert row["energy"] == batch.energy[i]
            assert row["root"] == batch.root[i]
            assert row["source"] == batch.source[i]
            assert (row["stress"] is None) == bool(np.isnan(batch.stress[i]).any())


def test_every_property_comes_back_and_what_is_missing_is_null(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    store.append(signals(), require=())
    store.append(signals(1).take([1]), require=())
    snap = store.snapshot()
    folder = ml.get_exporter("parquet")(snap, tmp_path / "hub", teacher=["a", "b"])
    table = pq.read_table(folder / "data" / "train-00000-of-00001.parquet")
    whole = snap.read()
    for teacher in "ab":
        assert whole.labels[teacher].keys() == {*PROPERTIES, *CUSTOM}
        for name, values in whole.labels[teacher].items():
            column = table.column(f"{name}.{teacher}").to_pylist()
            per_atom = len(values) == whole.n_atoms_total
            for i, found in enumerate(column):
                expected = values[whole.offsets[i] : whole.offsets[i + 1]] if per_atom else values[i]
                if np.isnan(expected.astype("f8")).any():
                    assert found is None, name
                else:
                    assert np.array_equal(np.asarray(found, expected.dtype), expected), name
    assert table.column("config_type").to_pylist() == whole.strings("config_type")
    flat = [word for row in table.column("residue").to_pylist() for word in row]
    assert flat == whole.strings("residue")
    assert table.schema.field("forces.a").metadata[b"units"] == b"eV/angstrom"
    assert json.loads(table.schema.metadata[b"mlffstore"])["store_uuid"] == snap.store_uuid


def test_user_columns_that_some_samples_lack(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    store.append(samples(5), require=())
    store.append(samples(105, 6), require=())
    snap = store.snapshot()
    folder = ml.get_exporter("parquet")(snap, tmp_path / "hub")
    table = pq.read_table(folder / "data" / "train-00000-of-00001.parquet")
    whole = snap.read(select(snap, ("reference",))["train"])
    assert snap.user_columns
    for name, column in snap.user_columns.items():
        values, there = user_rows(whole, column)
        found = table.column(name).to_pylist()
        if column.axis == "atom":
            found = [value for row in found for value in row]
        assert [value is not None for value in found] == there.tolist(), name
        for value, expected in zip(np.array(found, object)[there], values[there], strict=True):
            assert np.array_equal(np.asarray(value, expected.dtype), expected, equal_nan=expected.dtype.kind == "f")
