"""Questions to a dataset: what cannot be asked is named, and teachers stay apart."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mlffstore as ml
from mlffstore.errors import DataError
from tests.samples import metal_frames


@pytest.fixture(params=[None, {}], ids=["in memory", "lazy"])
def ds(tmp_path, request):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(8), teacher="a")
    store.append(metal_frames(4, seed=1), teacher="b")
    return xr.open_dataset(tmp_path / "d.zarr", engine="mlffstore", chunks=request.param)


@pytest.mark.parametrize("symbol", ["Xx", "cu", "", 29])
def test_elements_that_do_not_exist_are_named(ds, symbol):
    with pytest.raises(DataError, match=f"sel: elements: expected symbols of elements, such as 'Cu', got {symbol!r}"):
        ds.mlff.sel(elements=[symbol])


def test_elements_that_the_dataset_lacks_give_no_samples(ds):
    assert ds.mlff.sel(elements="Au").sizes["sample"] == 0
    assert ds.mlff.sel(elements="Cu").sizes["sample"] == 3


def test_histograms_keep_the_teachers_apart(ds):
    counts = ds.mlff.hist("energy", bins=5)
    assert counts.dims == ("bin", "teacher")
    assert counts["teacher"].values.tolist() == ["a", "b"]
    assert counts.sum("bin").values.tolist() == [8, 4]
    edges = np.linspace(-1e3, 1e3, 3)
    assert ds.mlff.hist("forces", bins=edges).sum("bin").sel(teacher="b") == 3 * sum(map(len, metal_frames(4, seed=1)))
    assert ds.mlff.hist("n_atoms", bins=4).dims == ("bin",)
