"""`mlffstore select`, `--where` on other verbs, and releases where stores are taken."""

from __future__ import annotations

import csv
import io
import json

import pytest

import mlffstore as ml
from mlffstore.release.samples import open_release
from tests.command import cli
from tests.samples import mixed_frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(mixed_frames(40), teacher="emt", source="tests")
    return store


@pytest.fixture
def release(store, tmp_path):
    metals = store.snapshot().select("periodic")
    options = {"name": "metals", "teacher": "emt", "allow_failing": True, "recheck": False}
    return ml.export_release(metals, tmp_path / "out", **options).parent


def test_select_lists_writes_and_keeps(store, tmp_path):
    shown = cli("select", store.url, "--where", "n_atoms = 3", "--columns", "sample,max_force").stdout.splitlines()
    assert shown[0].split() == ["sample", "max_force.emt"]
    assert shown[-1] == "4 samples of 40"
    document = json.loads(
        cli("select", store.url, "--where", "periodic", "--order-by", "max_force desc", "--limit", 3, "--json").stdout
    )
    assert (document["samples"], document["of"], len(document["rows"])) == (3, 40, 3)
    assert document["question"] == "where periodic, ordered by max_force desc, the first 3"
    rows = list(csv.DictReader(io.StringIO(cli("select", store.url, "--csv", "-").stdout)))
    assert len(rows) == 40
    assert rows[0]["elements"] == "Cu"
    assert "kept as hot" in cli("select", store.url, "--where", "max_force > 1", "--name", "hot").stdout
    hot = ml.open(store.url).selection("hot")
    assert f"hot = samples of version {hot.version}" in cli("tag", store.url).stdout
    assert json.loads(cli("stats", store.url, "--tag", "hot", "--no-neighbours", "--json").stdout)["samples"] == len(
        hot
    )
    assert "other samples" in cli("select", store.url, "--where", "n_atoms = 3", "--name", "hot", code=3).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--where", "n_atms < 3"), "--where: expected columns"),
        (("--where", "n_atoms <"), "--where: syntax error"),
        (("--order-by", "n_atms"), "--order-by: expected columns"),
        (("--columns", "n_atms"), "--columns: expected columns of the table"),
        (("--csv", "/nowhere/file.csv"), "--csv: expected a file"),
        (("--sample", 3, "--seed", -1), "'--seed': Input should be greater than or equal to 0"),
    ],
)
def test_wrong_options_are_named(store, arguments, words):
    assert words in cli("select", store.url, *arguments, code=2).stderr.replace("Invalid value for ", "")


def test_where_on_other_verbs(store, tmp_path):
    water = ("--where", "formula = 'H2O'")
    n = len(store.snapshot().select("formula = 'H2O'"))
    assert json.loads(cli("info", store.url, *water, "--json").stdout)["samples"] == n
    assert json.loads(cli("stats", store.url, *water, "--no-neighbours", "--json").stdout)["elements"].keys() == {
        "H",
        "O",
    }
    assert json.loads(cli("validate", store.url, *water, "--json", code=None).stdout)["samples"] == n
    cli("export", store.url, *water, "--format", "extxyz", "--out", tmp_path / "water")
    labelled = json.loads(
        cli(
            "label", store.url, "--teacher", "emt", "--where", "formula = 'Cu4'", "--json", "--no-recheck", code=None
        ).stdout
    )
    assert labelled["labelled"] == 0  # they have labels of that teacher
    key = ("--reason", "too wet", "--key", "dry", "--yes")
    cli("remove", store.url, *water, *key)
    assert len(ml.open(store.url).snapshot()) == 40 - n
    assert "did this under the same key" in cli("remove", store.url, *water, *key).stdout
    assert "got none of" in cli("stats", store.url, *water, code=2).stderr
    assert "got both" in cli("remove", store.url, *water, "--index", 1, "--reason", "x", code=2).stderr


def test_a_release_of_a_selection_says_what_was_selected(release, store):
    manifest = json.loads((release / "MANIFEST.json").read_text())
    assert manifest["selection"]["steps"] == [{"kind": "select", "where": "periodic"}]
    assert (manifest["selection"]["samples"], manifest["selection"]["of"]) == (20, 40)
    card = (release / "README.md").read_text()
    assert "made from a selection: 20 of 40 samples" in card
    assert "where periodic" in card
    assert ml.verify_release(release).ok


def test_verbs_take_a_release_as_they_take_a_store(release, store, tmp_path):
    assert json.loads(cli("info", release, "--json").stdout)["samples"] == 20
    assert json.loads(cli("stats", release, "--no-neighbours", "--json").stdout)["periodic"] == 20
    assert json.loads(cli("validate", release, "--json", code=None).stdout)["samples"] == 20
    shown = json.loads(cli("select", release, "--where", "max_force > 1", "--json").stdout)
    again = cli("export", release, "--where", "max_force > 1", "--out", tmp_path / "again", "--allow-failing",
                "--no-recheck", "--json").stdout  # fmt: skip
    samples = open_release(json.loads(again)[0]["path"])
    assert len(samples) == shown["samples"] > 0
    assert samples.teacher_info("emt") == store.snapshot().teacher_info("emt")
    assert "release" in cli("select", release, "--name", "x", code=2).stderr
    assert "release" in cli("info", release, "--version", 1, code=2).stderr


def test_the_samples_of_a_release_are_those_of_the_store(release, store, tmp_path):
    import numpy as np
    import xarray as xr

    samples = open_release(release)
    metals = store.snapshot().select("periodic")
    where = {int(h): i for i, h in enumerate(metals.read().content_hash)}
    whole = samples.read([3, 0, 0, 19, 7])
    expected = metals.read([where[int(h)] for h in whole.content_hash])
    assert np.array_equal(whole.positions, expected.positions)
    assert np.array_equal(whole.labels["emt"]["stress"], expected.labels["emt"]["stress"])
    ds = xr.open_dataset(release, engine="mlffstore", chunks={})
    assert np.array_equal(ds["forces"][:, 0], samples.read().labels["emt"]["forces"])
    assert np.array_equal(ds["split"], samples.split_codes())
    assert np.array_equal(
        samples.split_codes(), metals.split_codes()[[where[int(h)] for h in samples.read().content_hash]]
    )
    columns = ["formula", "max_force.emt", "pressure.emt", "source", "split"]
    rows = {row["root"]: row for row in metals.table().to_pylist()}
    for row in samples.table().to_pylist():
        assert {name: row[name] for name in columns} == {name: rows[row["root"]][name] for name in columns}
    with pytest.raises(ml.errors.DataError, match="expected accepted samples of"):
        ml.open(store.url, "a").remove(samples.select("n_atoms < 10"), reason="x")
