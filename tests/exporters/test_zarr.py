"""The plain Zarr group, opened by readers that know nothing of this package."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
import zarr

import mlffstore as ml
from mlffstore.data.properties import PROPERTIES, property_of
from mlffstore.errors import ReleaseError
from mlffstore.release.selection import select
from mlffstore_exporters import zarr_arrays
from tests.signals import CUSTOM, signals


def expected(snap: ml.Snapshot, teacher: str) -> ml.SampleBatch:
    return snap.read(np.sort(np.concatenate(list(select(snap, (teacher,)).values()))))


@pytest.fixture(params=["one shard", "many shards"])
def exported(store, tmp_path, request, monkeypatch):
    if request.param == "many shards":
        monkeypatch.setattr(zarr_arrays, "CHUNK_NBYTES", 100)
        monkeypatch.setattr(zarr_arrays, "SHARD_NBYTES", 300)
    return ml.get_exporter("zarr")(store.snapshot(), tmp_path / "plain.zarr", teacher="emt")


def test_xarray_opens_it_as_one_dataset(store, exported):
    whole = expected(store.snapshot(), "emt")
    data = xr.open_zarr(exported, consolidated=True)
    assert dict(data.sizes) == {"sample": 60, "atom": whole.n_atoms_total, "xyz": 3, "vector": 3, "voigt": 6}
    for name in ("n_atoms", "numbers", "positions", "cell", "pbc", "charge", "multiplicity", "content_hash", "root"):
        assert data[name].dtype == whole.columns[name].dtype
        assert np.array_equal(data[name], whole.columns[name]), name
    for name in ("energy", "forces", "stress"):
        assert data[name].dtype == whole.labels["emt"][name].dtype
        assert np.array_equal(data[name], whole.labels["emt"][name], equal_nan=True), name
        assert data[name].attrs["teacher"] == "emt"
    assert data.forces.attrs["units"] == "eV/angstrom"
    words = json.loads(data.source.attrs["meanings"])
    assert [words[code] for code in data.source.values] == whole.source
    assert np.array_equal(data.split, store.snapshot().split_codes())
    assert data.attrs["store_version"] == store.version
    assert data.attrs["format"] == "mlffstore-zarr 1"


def test_other_zarr_readers_see_the_same(store, exported):
    tensorstore = pytest.importorskip("tensorstore")
    whole = expected(store.snapshot(), "emt")
    group = zarr.open_group(exported, mode="r")
    for name in ("positions", "numbers", "pbc"):
        assert np.array_equal(group[name][:], whole.columns[name])
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(exported / name)}}
        assert np.array_equal(tensorstore.open(spec).result().read().result(), whole.columns[name])


def test_every_property_of_two_teachers(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(signals(), require=())
    snap = store.snapshot()
    data = xr.open_zarr(ml.get_exporter("zarr")(snap, tmp_path / "plain.zarr", teacher=["a", "b"])).load()
    whole = snap.read()
    for teacher in ("a", "b"):
        assert whole.labels[teacher].keys() == {*PROPERTIES, *CUSTOM}
        for name, values in whole.labels[teacher].items():
            found = data[f"{name}.{teacher}"]
            assert found.dtype == values.dtype
            assert np.array_equal(found, values, equal_nan=True)
            assert found.attrs["units"] == property_of(name, whole.properties).unit


def test_a_folder_is_never_overwritten_and_nothing_half_made_stays(store, tmp_path, monkeypatch):
    target = tmp_path / "plain.zarr"
    target.mkdir()
    with pytest.raises(ReleaseError, match="never overwritten"):
        ml.get_exporter("zarr")(store.snapshot(), target, teacher="emt")
    target.rmdir()
    monkeypatch.setattr(zarr_arrays.ArrayWriter, "finish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ml.get_exporter("zarr")(store.snapshot(), target, teacher="emt")
    assert list(tmp_path.iterdir()) == []
