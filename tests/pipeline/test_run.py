"""Recipes: checked, resumed, killed and run again with one outcome; rejects in quarantine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

import mlffstore as ml
from mlffstore.errors import RecipeError
from mlffstore.geometry import smallest_distances
from mlffstore.pipeline.recipe import Recipe, load_recipe
from mlffstore.pipeline.run import run

if TYPE_CHECKING:
    from pathlib import Path

METALS = ["Cu", "Al", "Ni", "Pd", "Ag", "Au", "Pt"]


def recipe(folder: Path, **changes) -> dict:
    part = {
        "name": "metals",
        "generator": "crystals",
        "options": {"elements": METALS, "elemental": 1.0, "max_atoms": 20},
        "teacher": "emt",
        "samples": 24,
        "samples_per_task": 4,
    }
    return {"name": "test", "seed": 1, "store": str(folder / "d.zarr"), "parts": [part], **changes}


def hashes(url) -> list[int]:
    return sorted(ml.open(url).snapshot().read(columns=["content_hash"]).columns["content_hash"].tolist())


def test_a_run_labels_checks_and_records(tmp_path):
    parsed = Recipe.model_validate(recipe(tmp_path, checks={"force_max": 1.0}))
    outcomes = []
    report = run(parsed, workers=1, progress=outcomes.append)
    snap = ml.open(parsed.store).snapshot()
    assert report.accepted == len(snap) == sum(one.accepted for one in outcomes)
    assert report.rejected == snap.n_quarantined > 0
    assert report.accepted + report.rejected == 24
    assert set(snap.quarantine.reasons()) == {"|F| above 1.0 eV/angstrom"}
    batch = snap.read()
    assert np.linalg.norm(batch.forces, axis=1).max() <= 1.0
    assert snap.teacher_info("emt")["fingerprint"].startswith("EMT")
    record = ml.open(parsed.store).provenance()[0]
    assert record["recipe"]["seed"] == 1
    assert "numpy" in record["software"]
    # What is stored was labelled: the same structures get the same labels again.
    again = ml.get_teacher("emt").label(batch)
    np.testing.assert_allclose(again.energy, batch.energy, atol=1e-9)
    second = run(parsed, workers=1)
    assert (second.n_done_before, second.accepted) == (6, 0)


def test_a_dask_client_can_run_the_tasks(tmp_path):
    distributed = pytest.importorskip("distributed")
    parsed = Recipe.model_validate(recipe(tmp_path))
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        report = run(parsed, executor=client.get_executor())
    assert report.accepted + report.rejected == 24


def test_killed_and_run_again_ends_with_the_same_samples(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(folder)))
    command = [sys.executable, "-m", "mlffstore.cli", "run"]
    subprocess.run([*command, whole / "recipe.yaml", "-w", "2"], check=True, capture_output=True)
    log = broken / "d.zarr" / "_log"
    process = subprocess.Popen(
        [*command, broken / "recipe.yaml", "-w", "1"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not log.is_dir() or len(list(log.glob("*.json"))) < 4):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    half = len(ml.open(broken / "d.zarr"))
    assert 0 < half < 24
    done = subprocess.run([*command, broken / "recipe.yaml", "-w", "1"], check=True, capture_output=True, text=True)
    assert "tasks were done before" in done.stdout
    assert hashes(broken / "d.zarr") == hashes(whole / "d.zarr")


def test_splits_never_cut_a_root(tmp_path):
    parsed = Recipe.model_validate(recipe(tmp_path, splits={"train": 0.5, "val": 0.25, "test": 0.25}))
    run(parsed, workers=1)
    snap = ml.open(parsed.store).snapshot()
    roots, codes = snap.read().root, snap.split_codes()
    for root in np.unique(roots):
        assert len(set(codes[roots == root].tolist())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sead": 1}, "sead: Extra inputs are not permitted"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"parts": []}, "parts: "),
        ({"precision": "float16"}, "precision: "),
        ({"checks": {"d_min": -1}}, r"checks\.d_min: "),
    ],
)
def test_recipes_are_checked(change, message, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path, **change)))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_recipe_files_that_are_none(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "broken.yaml").write_text("a: [")
    for name, message in (("absent.yaml", "cannot be read"), ("list.yaml", "mapping"), ("broken.yaml", "syntax error")):
        with pytest.raises(RecipeError, match=message):
            load_recipe(tmp_path / name)


def test_options_that_do_not_exist_are_named_before_anything_is_written(tmp_path):
    document = recipe(tmp_path)
    document["parts"][0]["options"] = {"max_atom": 3}
    with pytest.raises(RecipeError, match="part 'metals': an option that does not exist"):
        run(Recipe.model_validate(document))
    assert not (tmp_path / "d.zarr").exists()


def test_smallest_distance_sees_periodic_images():
    from ase import Atoms

    near = Atoms("H2", [(0.1, 0, 0), (4.8, 0, 0)], cell=(5, 5, 5), pbc=True)
    small = Atoms("H", [(0, 0, 0)], cell=(0.4, 5, 5), pbc=True)
    free = Atoms("H2", [(0.1, 0, 0), (4.8, 0, 0)])
    found = smallest_distances(ml.SampleBatch.from_ase([near, small, free]), 1.0)
    np.testing.assert_allclose(found, [0.3, 0.4, np.inf], atol=1e-6)
