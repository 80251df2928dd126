"""A gate passes only what was measured; the rest fails, and says what to do."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

import mlffstore as ml
from mlffstore.analysis.validation import load_policy
from mlffstore.analysis.validation.policy import QUANTITIES
from mlffstore.cli.app import app
from mlffstore.errors import GateError, PolicyError
from tests.samples import metal_frames


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("gate") / "d.zarr")
    store.append(metal_frames(30), teacher="emt")
    return store


def lines(data, *names, **options):
    found = ml.validate(data, {"acceptance": {name: {"min": -1e9, "max": 1e9} for name in names}}, **options)
    return found, {line.quantity: line for line in found.acceptance}


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda ds: ds, "gigabytes", "pass nbytes="),
        (lambda ds: ds.drop_vars("split"), "samples_val", "no split"),
        (lambda ds: ds.drop_vars("split"), "leaked_samples", "no split"),
        (lambda ds: ds.drop_vars(["root", "content_hash"]), "leaked_samples", "no root, content_hash"),
        (lambda ds: ds.drop_vars("forces"), "force_p99_eV_per_angstrom", "no sample has forces"),
        (lambda ds: ds.drop_vars(["forces", "energy", "stress"]), "force_p99_eV_per_angstrom", "no sample has forces"),
        (lambda ds: ds.assign(forces=ds["forces"] * np.nan), "force_p99_eV_per_angstrom", "no sample has forces"),
    ],
)
def test_what_was_not_measured_does_not_pass(store, change, name, words):
    found, table = lines(change(store.snapshot().to_xarray()), name)
    assert (table[name].value, table[name].passed, table[name].mark) == (None, False, "FAIL")
    assert words in table[name].figure
    assert not found.ok
    assert "not measured" in found.table()
    assert found.to_json()["acceptance"][0]["passed"] is False


def test_what_was_measured_passes(store):
    names = [name for name in QUANTITIES if name != "diversity"]
    for data, options in ((store, {}), (store.snapshot().to_xarray(), {"nbytes": 3_000_000_000})):
        found, table = lines(data, *names, **options)
        assert found.ok, found.table()
        assert all(line.value is not None for line in table.values())
    assert table["gigabytes"].value == 3
    assert found.of_size(5_000_000_000).acceptance[names.index("gigabytes")].value == 5


def test_atoms_without_neighbours_are_measured(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(
        ml.SampleBatch(n_atoms=[1], numbers=[6], positions=np.zeros((1, 3)), energy=[0.0], forces=np.zeros((1, 3)))
    )
    _, table = lines(store, "d_min_angstrom")
    assert table["d_min_angstrom"].passed
    assert "no pair of atoms is closer" in table["d_min_angstrom"].figure


def test_a_diversity_of_one_environment_is_none(tmp_path):
    pytest.importorskip("quests")
    store = ml.create(tmp_path / "d.zarr")
    store.append(
        ml.SampleBatch(n_atoms=[1], numbers=[6], positions=np.zeros((1, 3)), energy=[0.0], forces=np.zeros((1, 3)))
    )
    found, table = lines(store, "diversity")
    assert (table["diversity"].value, table["diversity"].passed) == (None, False)
    assert "several environments" in table["diversity"].figure
    assert not found.ok


@pytest.mark.parametrize(
    ("variable", "check", "severity"),
    [("charge", "electron_parity", "error"), ("split", "leakage", "error"), ("root", "energy_work", "warning"),
     ("content_hash", "duplicate", "warning")],
)  # fmt: skip
def test_checks_that_nothing_could_fail_are_named(store, variable, check, severity):
    ds = store.snapshot().to_xarray().drop_vars(variable)
    policy = {"acceptance": {"samples": {"min": 1}}}
    found = ml.validate(ds, policy)
    assert {"check": check, "severity": severity} in [
        {"check": one.check, "severity": one.severity} for one in found.problems if f"no {variable}" in one.text
    ]
    off = {name: {"severity": "off"} for name in load_policy().checks}
    assert ml.validate(ds, {**policy, "checks": off}).ok
    assert ml.validate(store, policy).problems == []


def test_a_check_that_is_off_measures_no_leakage(store):
    policy = {"checks": {"leakage": {"severity": "off"}}, "acceptance": {"leaked_samples": {"max": 0}}}
    line = ml.validate(store, policy).acceptance[0]
    assert not line.passed
    assert "turns the check leakage off" in line.figure


@pytest.mark.parametrize(
    "policy",
    [
        {"acceptance": {"samples": {"min": math.nan}}},
        {"acceptance": {"samples": {"min": None}}},
        {"acceptance": {"samples": {"min": "many"}}},
        {"acceptance": {"samples": {"min": True}}},
        {"acceptance": {"samples": {"min": 3, "max": 2}}},
        {"acceptance": [1]},
        {"checks": [1]},
        {"checks": {"close_atoms": {"min_angstrom": math.nan}}},
    ],
)
def test_limits_that_nothing_can_fail_are_refused(policy):
    with pytest.raises(PolicyError, match=r"number|mapping|at most max"):
        load_policy(policy)


def test_the_gate_of_a_release_measures_its_files(store, tmp_path):
    snap = store.snapshot()
    tight, wide = ({"acceptance": {"gigabytes": {"max": size}}} for size in (1e-9, 1.0))
    with pytest.raises(GateError, match="gigabytes"):
        ml.export_release(snap, tmp_path, name="x", policy=tight)
    assert list(tmp_path.rglob("*")) == []
    path = ml.export_release(snap, tmp_path, name="x", policy=wide)
    line = json.loads((path.parent / "validation.json").read_text())["acceptance"][0]
    assert line["value"] == path.stat().st_size / 1e9
    failing = ml.export_release(snap, tmp_path, name="y", policy=tight, allow_failing=True)
    manifest = json.loads((failing.parent / "MANIFEST.json").read_text())
    assert (manifest["validation"]["ok"], manifest["validation"]["failed"]) == (False, ["gigabytes"])
    assert "| gigabytes | at most 1e-09 |" in (failing.parent / "README.md").read_text()


def test_the_gate_of_a_release_wants_forces(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    batch = ml.SampleBatch.from_ase(metal_frames(12), teacher="emt")
    store.append(batch.structures().with_labels("emt", energy=batch.energy), require=("energy",))
    with pytest.raises(GateError, match=r"force_p99.*not measured: no sample has forces"):
        ml.export_release(store.snapshot(), tmp_path / "out", name="x")
    policy = {"acceptance": {"samples": {"min": 1}}}
    folder = ml.export_release(store.snapshot(), tmp_path / "out", name="x", policy=policy).parent
    assert ml.verify_release(folder).ok
    card, croissant = ((folder / name).read_text() for name in ("README.md", "croissant.json"))
    assert "labelled by `emt` with energies of 12 samples. " in card  # and no claim of forces or stress
    assert "Labels of emt: energies of 12 samples. " in croissant
    assert "forces (eV/angstrom)" not in croissant


def test_exit_codes(store, tmp_path):
    bare = ml.create(tmp_path / "bare.zarr")
    bare.append(ml.SampleBatch.from_ase(metal_frames(4)).structures(), require=())
    for url, code in ((store.url, 0), (bare.url, 1)):
        done = CliRunner().invoke(app, ["validate", url])
        assert done.exit_code == code, done.output
        assert ("not measured: no sample has forces" in done.stdout) == bool(code)
        done = CliRunner().invoke(app, ["validate", url, "--json"])
        document = json.loads(done.stdout, parse_constant=pytest.fail)
        assert document["ok"] == (code == 0)


def test_json_has_no_nan(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(ml.SampleBatch(n_atoms=[1], numbers=[6], positions=np.zeros((1, 3)), energy=[-1.0]), require=())
    done = CliRunner().invoke(app, ["stats", store.url, "--json"])
    assert done.exit_code == 0, done.output
    json.loads(done.stdout, parse_constant=pytest.fail)


def test_statistics_without_splits_claim_none(store):
    ds = store.snapshot().to_xarray()
    document = ml.statistics(ds.drop_vars("split"), neighbours=False).to_dict()
    assert document["splits"] == {}
    assert document["teachers"]["emt"]["samples_by_split"] == {}
    assert ml.statistics(ds.drop_vars("split"), neighbours=False).normalisation()["split"] is None
    assert set(ml.statistics(ds, neighbours=False).to_dict()["splits"]) == {"train", "val", "test"}
