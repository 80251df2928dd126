"""Statistics of properties: NumPy's figures, the same for every division of the samples, in the command and the report."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.properties import PROPERTIES, property_of
from tests.command import cli
from tests.signals import CUSTOM, signals


@pytest.fixture(scope="module")
def parts():
    return [signals(k) for k in range(3)]


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("s") / "whole.zarr")
    store.append(ml.concatenate(parts), require=())
    return store


def test_figures_are_those_of_numpy(whole):
    batch = whole.snapshot().read()
    document = ml.statistics(whole).to_dict()["teachers"]
    for teacher in "ab":
        properties = document[teacher]["properties"]
        assert set(properties) == {*PROPERTIES, *CUSTOM} - {"energy", "forces", "stress"}
        for name, figures in properties.items():
            values = batch.labels[teacher][name].astype(np.float64)
            assert figures["unit"] == property_of(name).unit
            assert figures["n"] == np.isfinite(values).sum()
            for key, function in (("mean", np.nanmean), ("std", np.nanstd), ("min", np.nanmin), ("max", np.nanmax)):
                np.testing.assert_allclose(figures[key], function(values), rtol=1e-12)
            sizes = values if values.ndim == 1 else np.linalg.norm(values.reshape(len(values), -1), axis=1)
            median = figures["quantiles" if values.ndim == 1 else "quantiles_of_norm"]["0.5"]
            np.testing.assert_allclose(median, np.nanmedian(sizes), rtol=1e-12)
            if figures["axis"] == "atom":
                neon = np.nanmean(sizes[batch.numbers == 10])
                rows = figures["by_element" if values.ndim == 1 else "norm_by_element"]
                np.testing.assert_allclose(rows["Ne"]["mean"], neon, rtol=1e-12)
        lacking = np.isnan(batch.labels[teacher]["dipole"]).any(axis=1)
        assert properties["dipole"]["samples"] == len(batch) - lacking.sum() == 9


def test_every_division_gives_the_same(whole, parts, tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 0.8, "val": 0.1, "test": 0.1})
    for part in parts:
        for one in part:
            store.append(one, require=())
    ds = store.snapshot().to_xarray()
    pieces = ds.chunk(sample=tuple([1] * 12), atom=tuple(ds.n_atoms.values.tolist()))
    one, other = (ml.statistics(data).to_dict()["teachers"]["a"]["properties"] for data in (whole, pieces))
    assert set(one) == set(other)
    for name, figures in one.items():
        for key in ("n", "mean", "std", "min", "max", "samples"):
            np.testing.assert_allclose(other[name][key], figures[key], rtol=1e-12, err_msg=name)


def test_a_teacher_of_charges_alone(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(
        ml.SampleBatch(
            n_atoms=[2], numbers=[1, 1], positions=[[0, 0, 0], [0, 0, 0.74]], labels={"q": {"charges": [0.1, -0.1]}}
        ),
        require=(),
    )
    figures = ml.statistics(store).to_dict()["teachers"]["q"]
    assert figures["samples"] == 0
    assert figures["properties"]["charges"]["by_element"]["H"]["n"] == 2
    assert [one.state for one in ml.validate(store).checks if one.check == "charge_sums"] == ["pass"]


def test_the_command_and_the_report_show_them(whole, tmp_path):
    text = cli("stats", whole.url, "--no-neighbours").stdout
    assert "charges, e" in text
    assert "mean of He" in text
    document = json.loads(cli("stats", whole.url, "--json").stdout)
    assert document["teachers"]["b"]["properties"]["magmoms"]["unit"] == "Bohr magneton"
    from mlffstore.analysis.report import write_report

    html, _ = write_report(whole.snapshot(), tmp_path / "report")
    page = html.read_text()
    assert "mean by element" in page
    assert "atomic_energies" in page
