"""What people do with a Dataset before they hand it on: it goes through the library, or one error says what to do."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import xarray as xr

import mlffstore as ml
from mlffstore.errors import DataError
from tests.samples import metal_frames

BIG = 2**62 + 1
WORDS = r"\.mlff\.|components|none of"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two teachers on different samples, names with spaces, user columns, an integer column that some samples lack."""
    store = ml.create(tmp_path_factory.mktemp("ways") / "d.zarr")
    frames = metal_frames(30)
    one = ml.SampleBatch.from_ase(frames[:20], teacher="a", source="two words")
    extra = {"spin": (np.arange(one.n_atoms_total) / 7, "bohr_magneton", "atom")}
    store.append(with_extra(one, {**extra, "run": (np.arange(20) + BIG, "1", "sample")}))
    two = ml.SampleBatch.from_ase(frames[20:], teacher="b", source="x", sampler="md at 300 K")
    store.append(with_extra(two, {"spin": (np.zeros(two.n_atoms_total), "bohr_magneton", "atom")}))
    return store


def with_extra(batch, extra):
    columns = {name: batch.columns[name] for name in ("n_atoms", "numbers", "positions", "cell", "pbc")}
    words = {name: batch.meaning(name) for name in ("source", "sampler")}
    return ml.SampleBatch(**columns, **words, labels=batch.labels, extra=extra)


@pytest.fixture(params=["dask", "lazy", "loaded"])
def ds(request, store):
    ds = store.snapshot().to_xarray(chunks=None if request.param == "lazy" else ())
    return ds.load() if request.param == "loaded" else ds


def same(a, b):
    assert (a.user, list(a.labels)) == (b.user, list(b.labels))
    assert (a.source, a.sampler) == (b.source, b.sampler)
    for name in b.columns.keys() - {"source", "sampler", "content_hash"}:
        np.testing.assert_array_equal(a.columns[name], b.columns[name], err_msg=name)
    for name, mask in b.masks.items():
        np.testing.assert_array_equal(a.masks[name], mask)
    for who, named in b.labels.items():
        for name, values in named.items():
            np.testing.assert_array_equal(a.labels[who][name], values)


def test_a_batch_of_a_dataset_is_the_batch_of_the_snapshot(ds, store):
    same(ds.mlff.to_batch(), store.snapshot().read())
    batch = ds.mlff.isel([25, 3]).mlff.to_batch()
    assert batch.source == ["x", "two words"]
    assert batch.sampler == ["md at 300 K", "unknown"]
    assert (batch.columns["run"].tolist(), batch.masks["run"].tolist()) == ([0, BIG + 3], [False, True])
    frames = ds.mlff.isel([3, 25]).mlff.to_ase()
    assert (frames[0].info["run"], frames[0].info["source"]) == (BIG + 3, "two words")
    assert "run" not in frames[1].info
    assert frames[1].arrays["spin"].shape == (len(frames[1]),)


WAYS = {
    "sel one": lambda ds: ds.sel(teacher="a"),
    "sel list": lambda ds: ds.sel(teacher=["a"]),
    "isel": lambda ds: ds.isel(teacher=0),
    "isel slice": lambda ds: ds.isel(teacher=slice(1)),
    "sel, computed": lambda ds: ds.sel(teacher="a").compute(),
    "sel, loaded": lambda ds: ds.sel(teacher="a").copy().load(),
    "transposed": lambda ds: ds.transpose("teacher", "xyz", ...).sel(teacher=["a"]),
    "mlff.sel": lambda ds: ds.mlff.sel(teacher="a"),
    "assigned": lambda ds: ds.sel(teacher="a").assign(per_atom=lambda ds: ds["energy"] / ds["n_atoms"]),
    "squeezed": lambda ds: ds.isel(teacher=[0]).squeeze("teacher"),
}


@pytest.mark.parametrize("way", WAYS)
def test_one_teacher_selected(ds, store, way):
    one = WAYS[way](ds)
    batch = one.mlff.to_batch()
    assert batch.teachers == ("a",)
    np.testing.assert_array_equal(batch.energy[:20], store.snapshot().read(range(20)).energy)
    statistics = ml.statistics(one, neighbours=False)
    assert statistics.teachers == ("a",)
    assert statistics.to_dict()["teachers"]["a"]["samples"] == 20
    found = ml.validate(one)
    assert found.flags["teacher"].values.tolist() == ["a"]
    assert found.invalid.sum() == 0
    assert one.mlff.isel([0]).mlff.to_ase()[0].info["teacher"] == "a"


def test_names_of_teachers_are_never_guessed(ds):
    for both in (ds.drop_vars("teacher"), ds.isel(teacher=[1, 0]).drop_vars("teacher")):
        for use in (ml.validate, ml.statistics, lambda ds: ds.mlff.to_batch()):
            with pytest.raises(DataError, match="names of the teachers"):
                use(both)
    assert ds.sel(teacher="b", drop=True).mlff.to_batch().teachers == ("reference",)
    with pytest.raises(DataError, match=r"energy.*dimension teacher"):
        ds.assign(energy=ds["energy"].sel(teacher="a", drop=True)).mlff.to_batch()


def test_dropped_variables(ds):
    few = ds.drop_vars(["source", "sampler", "root", "split", "content_hash", "stress", "spin", "run", "run_mask"])
    batch = few.mlff.to_batch()
    assert (batch.user, batch.source[0]) == ({}, "unknown")
    assert ml.statistics(few, neighbours=False).to_dict()["samplers"] == {"unknown": 30}
    assert ml.validate(few.drop_vars("energy")).acceptance[2].value is not None  # forces alone are measured
    with pytest.raises(DataError, match=r"run.*expected its mask run_mask"):
        ds.drop_vars("run_mask").mlff.to_batch()
    with pytest.raises(DataError, match="none of cell"):
        ds.drop_vars("cell").mlff.to_batch()
    with pytest.raises(DataError, match="none of numbers"):
        ml.statistics(ds.drop_vars("numbers"))
    with pytest.raises(DataError, match="none of positions, pbc"):
        ml.validate(ds.drop_vars(["positions", "pbc"]))


WRONG = {
    "isel": lambda ds: ds.isel(sample=slice(5)),
    "isel one": lambda ds: ds.isel(sample=3),
    "isel atoms": lambda ds: ds.isel(atom=slice(10)),
    "isel of the same length": lambda ds: ds.isel(sample=slice(None, None, -1)),
    "sortby": lambda ds: ds.sortby("n_atoms"),
    "sortby atoms": lambda ds: ds.sortby("numbers"),
    "where": lambda ds: ds.where(ds["n_atoms"] > 4),
    "where atoms": lambda ds: ds.where(ds["numbers"] == 29),
    "where teacher": lambda ds: ds.where(ds["teacher"] == "a", drop=True),
    "where, drop": lambda ds: ds.where((ds["n_atoms"] > 4).compute(), drop=True),
    "one component": lambda ds: ds.isel(xyz=0),
    "swapped components": lambda ds: ds.isel(xyz=[1, 0, 2]),
    "astype": lambda ds: ds.astype(float),
    "no samples": lambda ds: ds[["n_atoms"]].isel(sample=0),
}


@pytest.mark.parametrize("way", WRONG)
def test_what_cannot_work_says_what_to_do(ds, way):
    wrong = WRONG[way](ds)
    for use in (
        lambda: wrong.mlff.to_batch(),
        lambda: wrong.mlff.to_ase("a"),
        lambda: ml.statistics(wrong, neighbours=False).compute(),
    ):
        with pytest.raises(DataError, match=WORDS):
            use()
    assert any(re.search(WORDS, text) for text in said_by_validate(wrong))


def said_by_validate(ds):
    try:
        found = ml.validate(ds).compute()
    except DataError as error:
        return [str(error)]
    assert not found.ok
    return [problem.text for problem in found.problems]


def test_altered_samples_are_named(ds, caplog):
    changed = ds.compute().copy(deep=True)
    changed["positions"].values[0] += 0.01
    found = ml.validate(changed)
    assert found.failed("altered").tolist() == [0]
    assert found.ok
    ml.statistics(changed, neighbours=False).compute()
    assert "1 of 30 samples" in caplog.text
    with pytest.raises(DataError, match=r"1 of 30 samples.*drop content_hash"):
        changed.mlff.to_batch()
    assert changed.drop_vars("content_hash").mlff.to_batch().positions[0, 0] == changed["positions"].values[0, 0]


def test_sorting_takes_the_atoms_along(ds, store):
    whole = store.snapshot().read()
    n = whole.n_atoms
    for ascending in (True, False):
        batch = ds.mlff.sortby("n_atoms", ascending=ascending).mlff.to_batch()
        assert batch.n_atoms.tolist() == sorted(n.tolist(), reverse=not ascending)
        assert set(batch.content_hash.tolist()) == set(whole.content_hash.tolist())
    energy = ds["energy"].sel(teacher="a")
    batch = ds.mlff.sortby(energy, ascending=False).mlff.to_batch()
    np.testing.assert_array_equal(batch.labels["a"]["energy"][:20], np.sort(whole.labels["a"]["energy"][:20])[::-1])
    with pytest.raises(DataError, match="along sample alone"):
        ds.mlff.sortby("energy")


def test_what_is_no_column_is_named(ds, caplog):
    ds = ds.assign(twice=ds["energy"] * 2, text=("sample", np.array(["x"] * 30)), mine=ds["n_atoms"] * 2)
    with caplog.at_level(logging.WARNING):
        batch = ds.mlff.to_batch()
    assert set(batch.user) == {"spin", "run", "mine"}
    assert "twice, text" in caplog.text


def test_selection_by_real_names_and_by_any_label(ds, tmp_path):
    assert ds.mlff.sel(source="two words").sizes["sample"] == 20
    assert ds.mlff.sel(teacher=["a", "b"]).sizes["sample"] == 30
    with pytest.raises(DataError, match="a, b"):
        ds.mlff.sel(teacher="c")
    without = ds.assign(energy=xr.full_like(ds["energy"], np.nan))
    assert without.mlff.sel(teacher="b").sizes["sample"] == 10  # its forces are labels too


def test_a_group_of_a_release_is_a_dataset_too(store, tmp_path):
    pytest.importorskip("h5netcdf")
    path = ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "x.h5", teacher="a")
    ds = xr.open_dataset(path, group="train", engine="h5netcdf", chunks={})
    batch = ds.mlff.to_batch()
    assert batch.teachers == ("a",)
    assert set(batch.source) == {"two words"}
    assert {"spin", "run"} == set(batch.user)
    index = store.snapshot().split_indices("train", "a")
    assert batch.columns["run"].tolist() == (index + BIG).tolist()
    assert ml.statistics(ds, neighbours=False).to_dict()["teachers"]["a"]["samples"] == len(index)
