"""The xarray engine and the accessor against `Snapshot.read`."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import xarray as xr

import mlffstore as ml
from mlffstore.data import ragged
from mlffstore.data.schema import STANDARD
from mlffstore.errors import DataError


@pytest.fixture
def store(tmp_path):
    """Seven segments of different sizes; the second teacher labelled only some of them."""
    store = ml.create(tmp_path / "d.zarr")
    rng = np.random.default_rng(0)
    for i in range(7):
        counts = rng.integers(1, 9, 3 + i)
        n, total = len(counts), int(counts.sum())
        labels = {
            who: {
                "energy": rng.normal(size=n), "forces": rng.normal(size=(total, 3)), "stress": rng.normal(size=(n, 6)),
            }
            for who in (("a", "b") if i % 2 else ("a",))
        }  # fmt: skip
        extra = {"tries": (np.arange(n), "1", "sample")} if i > 3 else None
        store.append(
            ml.SampleBatch(
                n_atoms=counts, numbers=rng.integers(1, 90, total), positions=rng.normal(size=(total, 3)) * 9,
                cell=np.eye(3) * rng.uniform(5, 9, (n, 1, 1)), pbc=np.ones(n, bool),
                labels=labels, source=f"source {i % 3}", sampler="rattle", extra=extra,
            )
        )  # fmt: skip
    return store


@pytest.fixture(params=["lazy", "dask", "small chunks"])
def ds(request, store, monkeypatch):
    if request.param == "small chunks":
        monkeypatch.setattr(ragged, "TARGET_ATOMS", 20)
    return xr.open_dataset(store.url, engine="mlffstore", chunks=None if request.param == "lazy" else {})


def test_every_column_equals_read(ds, store):
    whole = store.snapshot().read()
    for name in STANDARD:
        if name not in ("source", "sampler"):
            np.testing.assert_array_equal(ds[name].values, whole.columns[name], err_msg=name)
    words = ds["source"].attrs["flag_meanings"].split()
    got = [words[code] for code in ds["source"].values]
    assert got == [whole.vocabulary["source"][code].replace(" ", "_") for code in whole.columns["source"]]
    np.testing.assert_array_equal(ds["split"].values, store.snapshot().split_codes())
    for who in ("a", "b"):
        for name, array in whole.labels[who].items():
            np.testing.assert_array_equal(ds[name].sel(teacher=who).values, array)
    np.testing.assert_array_equal(ds["tries"].values, whole.columns["tries"])
    assert ds["tries"].dtype == whole.columns["tries"].dtype
    np.testing.assert_array_equal(ds[ds["tries"].attrs["ancillary_variables"]].values, whole.masks["tries"])
    assert ds["n_atoms"].attrs["sample_dimension"] == "atom"
    assert ds["forces"].attrs["units"] == "eV/angstrom"


def test_chunks_lie_on_samples(ds):
    if ds.chunks:
        counts = np.asarray(ds["n_atoms"])
        edges = np.cumsum((0, *ds.chunks["sample"]))
        assert tuple(counts[a:b].sum() for a, b in itertools.pairwise(edges)) == ds.chunks["atom"]


def test_indexing_like_numpy(ds, store):
    forces = store.snapshot().read().labels["a"]["forces"]
    index = [5, 3, 3, -1, 40]
    np.testing.assert_array_equal(ds["forces"].isel(atom=index, teacher=0, xyz=1).values, forces[index, 1])
    np.testing.assert_array_equal(ds["forces"].isel(atom=slice(30, 2, -3), teacher=[0]).values[:, 0], forces[30:2:-3])
    np.testing.assert_array_equal(ds["forces"].isel(atom=7, teacher=0).values, forces[7])
    assert ds["forces"].isel(atom=slice(0)).shape[0] == 0


def test_isel_takes_atoms_along(ds, store):
    index = [9, 2, 2, 30]
    got, want = ds.mlff.isel(index), store.snapshot().read(index)
    np.testing.assert_array_equal(got["positions"].values, want.positions)
    np.testing.assert_array_equal(got["n_atoms"].values, want.n_atoms)
    wide = ds.mlff.where(ds["n_atoms"] > 4)
    assert wide["n_atoms"].min() > 4
    assert wide.sizes["atom"] == int(wide["n_atoms"].sum())
    assert ds.mlff.head(2).sizes["sample"] == 2


@pytest.mark.parametrize("how", ["max", "min", "sum", "mean", "rms"])
def test_reductions(ds, store, how):
    whole = store.snapshot().read()
    plain = {
        "max": np.max, "min": np.min, "sum": np.sum, "mean": np.mean,
        "rms": lambda x, axis: np.sqrt(np.mean(x**2, axis=axis)),
    }[how]  # fmt: skip
    forces = whole.labels["a"]["forces"].astype(float)
    blocks = np.split(forces, whole.offsets[1:-1])
    got = ds.mlff.reduce("forces", how).sel(teacher="a")
    np.testing.assert_allclose(got.values, [plain(block, axis=0) for block in blocks], rtol=1e-12)
    norms = [plain(np.linalg.norm(block, axis=1), axis=0) for block in blocks]
    np.testing.assert_allclose(ds.mlff.reduce("forces", f"norm_{how}").sel(teacher="a").values, norms, rtol=1e-12)


def test_disagreement_is_the_spread_of_forces(ds, store):
    whole = store.snapshot().read()
    both = np.stack([whole.labels[who]["forces"].astype(float) for who in ("a", "b")])
    spread = np.sqrt(both.var(axis=0).sum(axis=1))
    want = [block.max() for block in np.split(spread, whole.offsets[1:-1])]
    got = ds.mlff.disagreement()["force_max"].values
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert np.isnan(got).any()
    assert np.isfinite(got).any()


def test_frames_and_pickle(ds, store):
    got = pickle.loads(pickle.dumps(ds)).mlff.isel([4, 1]).mlff.to_ase("a")
    want = store.snapshot().atoms([4, 1], teacher="a")
    for one, other in zip(got, want, strict=True):
        assert str(one.symbols) == str(other.symbols)
        np.testing.assert_array_equal(one.get_forces(), other.get_forces())


def test_plain_isel_is_caught(ds):
    wrong = ds.isel(sample=[1, 2])
    with pytest.raises(DataError, match="isel"):
        wrong.mlff.reduce("positions", "max").compute()


def test_versions_tags_teachers_and_dropping(store):
    store.tag("v1", version=2)
    early = xr.open_dataset(store.url, engine="mlffstore", tag="v1", teachers="a", drop_variables=["cell"])
    assert early.sizes["sample"] == len(store.snapshot(version=2))
    assert early["teacher"].values.tolist() == ["a"]
    assert "cell" not in early
    assert store.snapshot().to_xarray().chunks
    assert not store.snapshot().to_xarray(chunks=None).chunks


def test_empty_store(tmp_path):
    ml.create(tmp_path / "e.zarr")
    assert xr.open_dataset(tmp_path / "e.zarr", engine="mlffstore", chunks={}).sizes["sample"] == 0


@pytest.mark.parametrize("chunks", [{}, {"sample": 2, "atom": -1}, "later"])
@pytest.mark.parametrize("url", [True, False])
def test_datasets_of_two_versions_can_be_combined(tmp_path, chunks, url):
    """A commit changes neither the path nor the time of the folder, from which xarray names its dask arrays."""
    store = ml.create(tmp_path / "d.zarr")
    path = f"file://{tmp_path}/d.zarr" if url else tmp_path / "d.zarr"

    def opened(**options):
        if chunks == "later":
            return xr.open_dataset(path, engine="mlffstore", **options).chunk({})
        return xr.open_dataset(path, engine="mlffstore", chunks=chunks, **options)

    def batch(energy):
        return ml.SampleBatch(n_atoms=[1, 1], numbers=[1, 8], positions=np.eye(3)[:2] + energy[0], energy=energy)

    store.append(batch([1.0, 2.0]), require=("energy",))
    store.tag("start")
    before = opened()
    store.append(batch([10.0, 30.0]), require=("energy",))
    store.remove([0, 1], reason="wrong")
    after = opened()
    for name in ("energy", "positions", "n_atoms", "split"):
        want = after[name].values.astype(float) - before[name].values
        np.testing.assert_array_equal((after[name].astype(float) - before[name]).values, want, err_msg=name)
    np.testing.assert_array_equal((after.energy - before.energy).values[:, 0], [9, 28])
    # What is equal keeps its name, so that Dask reads it once.
    assert opened().energy.data.name == after.energy.data.name
    assert opened(tag="start").energy.data.name != after.energy.data.name
    assert type(before.energy.variable) is xr.Variable
