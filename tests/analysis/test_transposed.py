"""The order of dimensions changes nothing: a Dataset that was transposed is the same samples."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mlffstore as ml


def batch(counts, labels, **extra):
    total = sum(counts)
    return ml.SampleBatch(
        n_atoms=counts, numbers=np.arange(total) % 9 + 1, positions=np.random.default_rng(total).normal(size=(total, 3)),
        labels=labels, extra=extra,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """User columns with inner dimensions of equal length, embeddings of two widths, a mask, strings."""
    store, rng = ml.create(tmp_path_factory.mktemp("transposed") / "d.zarr"), np.random.default_rng(3)
    for who, width, counts in (("a", 2, [2, 1, 4]), ("b", 5, [3, 3])):
        n, total = len(counts), sum(counts)
        labels = {"energy": rng.normal(size=n), "forces": rng.normal(size=(total, 3)), "stress": rng.normal(size=(n, 6)),
                  "embedding": rng.normal(size=(total, width)), "hessian_product": rng.normal(size=(total, 3)),
                  "hessian_probe": rng.normal(size=(total, 3))}  # fmt: skip
        extra = {"field": (rng.normal(size=(n, 3, 3, 3)), "1", "sample"),
                 "tensor": (rng.normal(size=(total, 2, 2)), "1", "atom"),
                 "kind": (["x"] * (n - 1) + [None], "1", "sample")}  # fmt: skip
        if who == "a":
            extra["grid"] = (rng.integers(9, size=(n, 2, 2)), "1", "sample")
        store.append(batch(counts, {who: labels}, **extra), require=())
    return store


ORDERS = {
    "reversed": lambda ds: ds.transpose(),
    "samples last": lambda ds: ds.transpose("teacher", ..., "sample"),
    "rows last": lambda ds: ds.transpose(..., "atom", "sample"),
    "one inner dimension first": lambda ds: ds.transpose("field_dim3", "grid_dim2", "tensor_dim2", ...),
    "shuffled": lambda ds: ds.transpose(*np.random.default_rng(1).permutation(list(ds.dims)).tolist()),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("chunks", [(), None])
def test_a_batch_of_a_transposed_dataset_is_the_same(store, order, chunks):
    ds = store.snapshot().to_xarray(chunks=chunks)
    got, want = ORDERS[order](ds).mlff.to_batch(), ds.mlff.to_batch()
    assert set(got.columns) == set(want.columns) >= {"field", "tensor", "kind", "grid"}
    for name, values in want.columns.items():
        np.testing.assert_array_equal(got.columns[name], values, err_msg=name)
    for name, mask in want.masks.items():
        np.testing.assert_array_equal(got.masks[name], mask, err_msg=name)
    assert got.meaning("kind") == want.meaning("kind")
    for who in ("a", "b"):
        assert set(want.labels[who]) == set(store.snapshot().read().labels[who])
        for name, values in want.labels[who].items():
            np.testing.assert_array_equal(got.labels[who][name], values, err_msg=f"{name} of {who}")


def test_analyses_of_a_transposed_dataset_are_the_same(store):
    ds = store.snapshot().to_xarray()
    turned = ds.transpose()
    assert str(ml.statistics(turned).to_dict()) == str(ml.statistics(ds).to_dict())
    assert turned.mlff.sel(teacher="a", elements="H").n_atoms.values.tolist() == [2]
    xr.testing.assert_equal(turned.mlff.isel([4, 0]).transpose(*ds.dims), ds.mlff.isel([4, 0]).transpose(*ds.dims))


def test_a_registered_property_of_atoms_may_be_transposed(tmp_path):
    shielding = ml.Property("shielding_of_test", "atom", ("xyz", "xyz"), unit="ppm", turns="tensor")
    store, values = ml.create(tmp_path / "d.zarr"), np.random.default_rng(0).normal(size=(3, 3, 3))
    one = batch([1, 2], {"a": {"shielding_of_test": values}})
    store.append(one, require=())
    got = store.snapshot().to_xarray().transpose().mlff.to_batch().labels["a"]
    np.testing.assert_array_equal(got[shielding.name], values.astype(np.float32))
