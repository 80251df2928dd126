"""Every method of ``.mlff`` that reads atoms refuses a Dataset whose atoms are not those of its samples, lazily or not."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mlffstore as ml
from mlffstore.errors import DataError

COUNTS = [1, 4, 2, 1, 3]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store, rng = ml.create(tmp_path_factory.mktemp("left") / "d.zarr"), np.random.default_rng(0)
    labels = {who: {"energy": rng.normal(size=5), "forces": rng.normal(size=(11, 3))} for who in "ab"}
    store.append(
        ml.SampleBatch(
            n_atoms=COUNTS,
            numbers=[2, 1, 1, 6, 6, 8, 1, 18, 7, 7, 7],
            positions=rng.normal(size=(11, 3)),
            labels=labels,
        ),
        require=(),
    )
    return store


METHODS = {
    "composition": lambda ds: ds.mlff.composition(),
    "sel elements": lambda ds: ds.mlff.sel(elements="H"),
    "sel teacher": lambda ds: ds.mlff.sel(teacher="a"),
    "sel size": lambda ds: ds.mlff.sel(n_atoms=1),
    "reduce": lambda ds: ds.mlff.reduce("forces", "norm_max"),
    "broadcast": lambda ds: ds.mlff.broadcast("energy"),
    "broadcast an array": lambda ds: ds.mlff.broadcast(xr.DataArray(np.ones(ds.sizes["sample"]), dims="sample")),
    "per_element": lambda ds: ds.mlff.per_element("forces", "norm_rms"),
    "hist": lambda ds: ds.mlff.hist("forces", 3),
    "disagreement": lambda ds: ds.mlff.disagreement(),
    "isel": lambda ds: ds.mlff.isel([0]),
    "where": lambda ds: ds.mlff.where(ds["n_atoms"] > 0),
    "sortby": lambda ds: ds.mlff.sortby("n_atoms"),
    "to_batch": lambda ds: ds.mlff.to_batch(),
    "iter_batches": lambda ds: list(ds.mlff.iter_batches(1)),
    "plot": lambda ds: ds.mlff.plot,
}
LEFT = {
    "one of one atom": lambda ds: ds.isel(sample=[0]),
    "fewer samples": lambda ds: ds.isel(sample=slice(3)),
    "fewer atoms": lambda ds: ds.isel(atom=slice(8)),
    "a sample twice": lambda ds: ds.isel(sample=[0, 1, 2, 3, 4, 4]),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("chunks", [(), None])
def test_atoms_left_behind_are_refused(store, method, left, chunks):
    ds = LEFT[left](store.snapshot().to_xarray(chunks=chunks))
    with pytest.raises(DataError, match=r"\.mlff\.isel"):
        computed(METHODS[method](ds))


UNPAIRED = [
    {"sample": 1, "atom": 4},
    {"sample": 2, "atom": 5},
    {"sample": 1},
    {"atom": 3},
    {"sample": (2, 3), "atom": (6, 5)},
]


@pytest.mark.parametrize("method", ["composition", "sel elements", "reduce", "broadcast", "disagreement"])
@pytest.mark.parametrize("chunks", UNPAIRED, ids=str)
def test_chunks_that_do_not_pair_are_refused(store, method, chunks):
    ds = store.snapshot().to_xarray(chunks=chunks)
    with pytest.raises(DataError, match=r"[Cc]hunks of atoms and samples.*chunks=\{\}"):
        computed(METHODS[method](ds))


@pytest.mark.parametrize("chunks", [(), None, {"sample": (2, 2, 1), "atom": (5, 3, 3)}])
def test_whole_samples_are_read_however_they_are_cut(store, chunks):
    ds = store.snapshot().to_xarray(chunks=chunks)
    owner = np.repeat(np.arange(5), COUNTS)
    numbers = ds["numbers"].values
    want = [[(numbers[owner == i] == z).sum() for z in (1, 2, 6, 7, 8, 18)] for i in range(5)]
    got = ds.mlff.composition().sel(element=["H", "He", "C", "N", "O", "Ar"])
    np.testing.assert_array_equal(got.values, want)
    assert ds.mlff.sel(elements="H").n_atoms.values.tolist() == [4, 2]
    for name in ("energy", "n_atoms", "pbc"):
        np.testing.assert_array_equal(ds.mlff.broadcast(name).values, ds[name].values[owner])
    # A variable that was made elsewhere is cut like the Dataset.
    other = xr.DataArray(np.arange(5.0), dims="sample").chunk({"sample": 3})
    np.testing.assert_array_equal(ds.mlff.broadcast(other).values, owner)
    # In memory beside dask, and the other way around.
    for mixed in (ds.assign(n_atoms=ds["n_atoms"].compute()), ds.assign(numbers=ds["numbers"].compute())):
        np.testing.assert_array_equal(mixed.mlff.composition().values, ds.mlff.composition().values)
        np.testing.assert_array_equal(mixed.mlff.reduce("numbers", "max").values, [2, 6, 8, 18, 7])
        np.testing.assert_array_equal(mixed.mlff.reduce("forces", "sum").values, ds.mlff.reduce("forces", "sum").values)
    none = ds.mlff.isel([])
    assert none.mlff.composition().values.shape == (0, 119)
    assert none.mlff.broadcast("energy").values.shape == (0, 2)
    assert none.mlff.hist("forces", 3).values.sum() == 0


def computed(result):
    return result.compute() if isinstance(result, (xr.Dataset, xr.DataArray)) else result
