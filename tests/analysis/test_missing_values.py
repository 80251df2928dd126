"""Integers and booleans that some rows lack are missing in every method of ``.mlff``, as NaN is."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mlffstore as ml
from mlffstore.errors import DataError

nan = np.nan


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four samples: `step`, `good` and `kind` per sample, `site` and `fixed` per atom, each with missing rows."""
    store = ml.create(tmp_path_factory.mktemp("missing") / "d.zarr")
    extra = {
        "step": (np.ma.masked_array([5, -3, 0, 7], [0, 0, 1, 0]), "1", "sample"),
        "good": (np.ma.masked_array([True, False, False, True], [0, 0, 1, 1]), "1", "sample"),
        "kind": (["x", None, "y", None], "1", "sample"),
        "site": (np.ma.masked_array([4, -2, 0, -6, 0, 9], [0, 0, 1, 0, 1, 0]), "1", "atom"),
        "fixed": (np.ma.masked_array([1, 0, 0, 1, 0, 1], [0, 0, 1, 0, 1, 0]).astype(bool), "1", "atom"),
        "whole": (np.array([True, True, False, True, False, True]), "1", "atom"),
    }
    store.append(
        ml.SampleBatch(
            n_atoms=[2, 1, 1, 2], numbers=[1, 1, 8, 8, 1, 6], positions=np.arange(18.0).reshape(6, 3) ** 1.1,
            energy=[1.0, 2.0, 3.0, 4.0], extra=extra,
        ),
        require=(),
    )  # fmt: skip
    return store


@pytest.fixture(params=["dask", "lazy"])
def ds(request, store):
    return store.snapshot().to_xarray(chunks=() if request.param == "dask" else None)


def test_missing_sorts_last(ds):
    for ascending, want in ((True, [1, 0, 3, 2]), (False, [3, 0, 1, 2])):
        for name in ("step", ds["step"]):
            got = ds.mlff.sortby(name, ascending=ascending)
            np.testing.assert_array_equal(got["energy"].values[:, 0], np.array(want) + 1.0)
    assert ds.mlff.sortby("good")["energy"].values[:, 0].tolist() == [2, 1, 3, 4]
    assert ds.mlff.sortby(ds["energy"][:, 0].where(ds["energy"][:, 0] != 1))["energy"].values[-1, 0] == 1


def test_histograms_leave_missing_out(ds):
    assert ds.mlff.hist("step", [-4, -1, 1, 8]).values.tolist() == [1, 0, 2]
    assert ds.mlff.hist(ds["step"] * 2, [-8, -1, 1, 16]).values.tolist() == [1, 0, 2]
    assert ds.mlff.hist("good", [-0.5, 0.5, 1.5]).values.tolist() == [1, 1]
    assert ds.mlff.hist("site", 3).values.sum() == 4
    assert ds.mlff.hist("whole", [-0.5, 0.5, 1.5]).values.tolist() == [2, 4]


def test_reductions_are_nan_where_a_value_is_missing(ds):
    for how, want in (("sum", [2, nan, -6, nan]), ("max", [4, nan, -6, nan]), ("mean", [1, nan, -6, nan])):
        np.testing.assert_array_equal(ds.mlff.reduce("site", how).values, want)
    np.testing.assert_array_equal(ds.mlff.reduce("fixed", "sum").values, [1, nan, 1, nan])


def test_the_sum_of_booleans_is_a_count(ds):
    got = ds.mlff.reduce("whole", "sum")
    assert (got.values.tolist(), got.dtype) == ([2, 0, 1, 1], np.int64)
    assert ds.mlff.reduce("whole", "mean").values.tolist() == [1, 0, 1, 0.5]
    assert ds.mlff.reduce("whole", "max").values.tolist() == [True, False, True, True]


def test_elements_leave_missing_out(ds):
    for name, how, want in (
        ("site", "count", [2, 1, 1]),
        ("site", "mean", [1, 9, -6]),
        ("site", "max", [4, 9, -6]),
        ("fixed", "mean", [0.5, 1, 1]),
        ("whole", "mean", [2 / 3, 1, 0.5]),
        ("whole", "count", [3, 1, 2]),
    ):
        np.testing.assert_allclose(ds.mlff.per_element(name, how).sel(element=["H", "C", "O"]).values, want)


def test_atoms_get_nan_from_samples_without_a_value(ds):
    got = ds.mlff.broadcast("step")
    np.testing.assert_array_equal(got.values, [5, 5, -3, nan, 7, 7])
    assert "ancillary_variables" not in got.attrs


def test_selection_and_maps_know_missing_values(ds):
    pytest.importorskip("matplotlib").use("agg")
    assert ds.mlff.sel(step=0).sizes["sample"] == 0
    assert ds.mlff.sel(kind="x").sizes["sample"] == 1
    ax = ds.mlff.plot.map("kind")
    drawn = [len(points.get_offsets()) for points in ax.collections]
    assert dict(zip([text.get_text() for text in ax.get_legend().texts], drawn, strict=True)) == {
        "x": 1, "y": 1, "no value": 2
    }  # fmt: skip


def test_a_mask_that_is_lost_is_named(ds):
    for use in (
        lambda ds: ds.mlff.sortby("step"),
        lambda ds: ds.mlff.hist("step", 2),
        lambda ds: ds.mlff.sel(step=0),
        lambda ds: ds.mlff.broadcast("step"),
    ):
        with pytest.raises(DataError, match="step: expected its mask step_mask"):
            use(ds.drop_vars("step_mask"))
    with pytest.raises(DataError, match=r"step: expected the rows of its mask.*\.mlff\.isel"):
        ds.mlff.hist(ds["step"].isel(sample=[0, 2]), 2)


def test_histograms_without_values(ds):
    for array in (xr.DataArray([nan, nan], dims="sample"), xr.DataArray(np.zeros(0), dims="sample")):
        for one in (array, array.chunk() if array.size else array):
            got = ds.mlff.hist(one, 3)
            assert got.values.tolist() == [0, 0, 0]
            assert np.isfinite(got["bin"].values).all()
    two = xr.concat([ds["energy"], ds["energy"] * nan], xr.Variable("teacher", ["a", "b"]))
    assert ds.mlff.hist(two, 3).sum("bin").values.tolist() == [4, 0]
    for bins in ([2.0, 1.0], [1.0], [0.0, nan], 0, [[1.0, 2.0]]):
        with pytest.raises(DataError, match="bins: expected"):
            ds.mlff.hist("energy", bins)
    with pytest.raises(DataError, match=r"finite values, got 1\.0 to inf"):
        ds.mlff.hist(xr.DataArray([1.0, np.inf], dims="sample"), 3)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("n_atoms", (1, 2, 3)), ("n_atoms", (2,)), ("n_atoms", "a"), ("n_atoms", ("a", "b")), ("n_atoms", None),
        ("n_atoms", np.array([1, 2, 1, 2])), ("split", 0), ("split", None), ("split", ["train", 1]), ("source", b"x"),
        ("elements", 8), ("elements", [6, 8]), ("teacher", 0), ("teacher", [None]), ("periodic", "no"), ("periodic", 2),
        ("kind", 1.5), ("step", ["x", "y"]),
    ],
)  # fmt: skip
def test_conditions_of_the_wrong_kind(ds, name, wanted):
    with pytest.raises(DataError, match=rf"^sel: {name}: expected .*, got "):
        ds.mlff.sel(**{name: wanted})


def test_conditions_of_the_right_kind(ds):
    for condition in (
        {"n_atoms": [1, 1]}, {"n_atoms": np.int64(1)}, {"step": (-3, 5.5)}, {"good": (False, True)}, {"kind": {"x", "y"}},
        {"kind": np.array(["x", "y"])}, {"elements": ("H",), "n_atoms": 2},
    ):  # fmt: skip
        assert ds.mlff.sel(**condition).sizes["sample"] == 2
    assert ds.mlff.sel(periodic=np.bool_(False)).sizes["sample"] == 4


def test_batches_in_which_no_row_has_a_string(ds, store):
    for i, batch in enumerate(ds.mlff.iter_batches(1)):
        want = store.snapshot().read([i])
        for name in ("kind", "step"):
            has = want.masks.get(name, np.ones(1, bool))
            assert batch.masks.get(name, np.ones(1, bool)).tolist() == has.tolist()
        assert batch.user["kind"].coded
        assert batch.to_ase()[0].info.get("kind") == want.to_ase()[0].info.get("kind") == ("x", None, "y", None)[i]
    frames = ds.mlff.isel([3, 1]).mlff.to_ase()
    assert [frame.info.get("kind") for frame in frames] == [None, None]
    lost = ds.assign(kind=ds["kind"].assign_attrs(meanings='["x"]'))
    with pytest.raises(DataError, match="kind: a code without a meaning"):
        lost.mlff.to_batch()
