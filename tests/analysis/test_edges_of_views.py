"""Edges of lazy views: missing values, numbers that are no element, empty choices, and norms of what is no vector."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.analysis.report.charts import _deviation, _histogram
from mlffstore.errors import DataError
from mlffstore.lazy.embedding import embed_dataset
from mlffstore.lazy.plots import _short


def samples(n: int, seed: int = 0, teachers: tuple[str, ...] = ("a", "b"), **extra: object) -> ml.SampleBatch:
    """Return samples of two atoms, C and H, with energy and forces of two teachers."""
    rng = np.random.default_rng(seed)
    labels = {name: {"energy": rng.normal(size=n), "forces": rng.normal(size=(2 * n, 3))} for name in teachers}
    return ml.SampleBatch(
        n_atoms=[2] * n, numbers=[6, 1] * n, positions=rng.normal(size=(2 * n, 3)) * 2, labels=labels, extra=extra,
        pbc=[[True] * 3] * n, cell=np.broadcast_to(np.eye(3) * 9, (n, 3, 3)),
    )  # fmt: skip


@pytest.fixture(scope="module", params=["dask", "plain"])
def ds(request, tmp_path_factory):
    """Return six samples with user columns, and six without."""
    store = ml.create(tmp_path_factory.mktemp("edges") / "d.zarr")
    store.append(
        samples(
            6,
            run=(np.array([0, 0, 1, 1, 2, 2]), "1", "sample"),
            good=(np.array([True, False] * 3), "1", "sample"),
            periodic=(np.arange(6), "1", "sample"),
            elements=(np.array(["x"] * 6), "1", "sample"),
            charges=(np.arange(12.0), "1", "atom"),
        )
    )
    store.append(samples(6, seed=1))
    return store.snapshot().to_xarray(chunks=() if request.param == "dask" else None)


def test_a_missing_value_meets_no_condition(ds):
    assert len(ds.mlff.where(ds.run == 0).n_atoms) == len(ds.mlff.sel(run=0).n_atoms) == 2
    assert len(ds.mlff.where(~ds.good).n_atoms) == len(ds.mlff.sel(good=False).n_atoms) == 3
    assert len(ds.mlff.where(ds.n_atoms == 2).n_atoms) == 12


def test_columns_named_as_a_question_hide_nothing(ds):
    assert len(ds.mlff.sel(periodic=True).n_atoms) == 12
    assert len(ds.mlff.sel(elements="H").n_atoms) == 12


def test_a_norm_is_that_of_a_vector(ds):
    for name in ("numbers", "charges"):
        for norm in (ds.mlff.reduce, ds.mlff.per_element):
            with pytest.raises(DataError, match="such as xyz"):
                norm(name, "norm_max")
    turned = ds.transpose("atom", "xyz", "teacher", ...)
    with pytest.raises(DataError, match="such as xyz"):
        turned.mlff.reduce("forces", "norm_max")
    expected = np.linalg.norm(ds.forces.values, axis=2).reshape(12, 2, 2).max(axis=1)
    assert np.allclose(ds.mlff.reduce("forces", "norm_max"), expected)


def test_nothing_is_chosen(ds):
    assert ds.isel(teacher=[]).forces.values.shape == (24, 0, 3)
    assert ds.isel(teacher=slice(0, 0)).compute().energy.shape == (12, 0)
    none = ds.mlff.sel(n_atoms=99)
    for how in ("norm_max", "norm_rms", "norm_mean"):
        assert np.isnan(none.mlff.per_element("forces", how)).all()
    assert (none.mlff.per_element("forces", "norm_count") == 0).all()
    with pytest.raises(DataError, match="at least one structure"):
        embed_dataset(none)
    for n in (0, -1):
        with pytest.raises(DataError, match="at least 1"):
            next(ds.mlff.iter_batches(n))


def test_integers_that_float64_cannot_hold_are_refused(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    big = 2**53 + 1
    store.append(samples(3, job=(np.array([big, 1, 2]), "1", "sample"), tag=(np.full(6, big), "1", "atom")))
    assert store.snapshot().to_xarray().mlff.broadcast("job").values[0] == big
    store.append(samples(3, seed=1))
    for chunks in ((), None):
        ds = store.snapshot().to_xarray(chunks=chunks)
        for use in (lambda ds: ds.mlff.broadcast("job"), lambda ds: ds.mlff.reduce("tag", "max")):
            with pytest.raises(DataError, match=r"beyond 2\^53"):
                use(ds).compute()
        assert ds.job.values[0] == ds.tag.values[0] == big


def test_numbers_that_are_no_element_count_for_their_own_sample(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(2))
    for numbers, n_atoms, formulas in (([200, 1, 1], [1, 2], ["X", "H2"]), ([1, 1, 200], [2, 1], ["H2", "X"])):
        batch = ml.SampleBatch(n_atoms=n_atoms, numbers=numbers, positions=np.arange(9.0).reshape(3, 3))
        store.commit(None, rejected=batch, reasons=["no element"] * 2)
        quarantine = store.snapshot().quarantine
        assert quarantine.table()["formula"].to_pylist()[-2:] == formulas
    ds = quarantine.to_xarray()
    assert ds.mlff.composition().sum("sample").sel(element=["X", "H", "Tl"]).values.tolist() == [2, 4, 0]
    assert ml.statistics(quarantine).to_dict()["elements"]["X"] == {"atoms": 2, "samples": 2}


def test_a_teacher_without_energies_labelled_samples(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    batch = samples(8, teachers=("a",))
    batch.labels["a"].pop("energy")
    store.append(batch, require=())
    statistics = ml.statistics(store.snapshot(), neighbours=False)
    found = statistics.to_dict()["teachers"]["a"]
    assert (found["samples"], found["samples_with_energy"]) == (8, 0)
    with pytest.raises(DataError, match="gave no energy"):
        statistics.normalisation()


def test_figures_of_a_parity_plot_are_of_all_samples(ds):
    a, b = (ds.forces.sel(teacher=name).values.astype(float) for name in "ab")
    mae, rms, n = _deviation(ds, "a", "b")
    assert np.allclose((mae, rms), (np.abs(a - b).mean(), np.sqrt(((a - b) ** 2).mean())))
    assert n == a.size


def test_a_histogram_says_what_it_leaves_out():
    values = np.array([0.0, 0.0, 1.0, 3.0])
    drawn = _histogram(values, {"all": {"all": np.ones(4, bool)}}, True)
    assert "2 with 0" in drawn["about"]
    assert _histogram(values, {"all": {"all": np.ones(4, bool)}}, False)["about"] == ""


def test_legends_name_all_groups():
    assert [_short(name) for name in ("_raw", "", "md")] == ["'_raw'", "''", "md"]


def test_a_saved_dataset_is_validated_in_a_fresh_process(tmp_path):
    """Nothing but the library's own imports registers its accessor."""
    pytest.importorskip("h5netcdf")
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(20))
    store.snapshot().to_xarray().to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    code = (
        "import sys, xarray as xr, mlffstore as ml\n"
        "ds = xr.open_dataset(sys.argv[1], engine='h5netcdf', chunks={})\n"
        "print(ml.validate(ds).compute().flags.sizes['sample'])\n"
        "from mlffstore.analysis.statistics.embedding import embed\n"
        "print(embed(ds).sizes['point'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d.nc")], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["20", "20"], done.stderr
