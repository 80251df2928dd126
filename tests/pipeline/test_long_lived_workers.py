"""Workers that live longer than a run, as those of a cluster do, see that files and stores have changed."""

from __future__ import annotations

import functools
import os
import shutil

import numpy as np
import pytest
from ase.build import bulk

import mlffstore as ml
from mlffstore.pipeline.recipe import Recipe
from mlffstore.pipeline.run import run
from mlffstore.store.executors import InProcessExecutor

#: Tasks run in this process, which is a worker that lives on.
run_here = functools.partial(run, executor=InProcessExecutor())


@pytest.fixture
def recipe(tmp_path):
    """Return a recipe whose seeds and weights are files."""
    bulk("Cu", cubic=True).write(tmp_path / "seed.extxyz")
    (tmp_path / "shift.txt").write_text("10.0")
    part = {
        "name": "metals",
        "generator": "rattle",
        "options": {"seeds": {"name": "files", "paths": [str(tmp_path / "seed.extxyz")]}, "frames": 2},
        "teacher": "emt",
        "samples": 6,
        "samples_per_task": 2,
    }
    shifted = {"teacher": "ase:tests.teachers.weights:Shifted", "options": {"weights": str(tmp_path / "shift.txt")}}
    return {"name": "test", "store": str(tmp_path / "d.zarr"), "parts": [part], "more_teachers": [shifted]}


def changed(path, make):
    """Change a file, whatever the resolution of the file system's clock."""
    before = path.stat().st_mtime_ns
    make(path)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_a_store_that_was_removed_is_made_again(recipe):
    """The handle of the store that was there before knew all tasks as done, so that the run never ended."""
    parsed = Recipe.model_validate({**recipe, "more_teachers": []})
    assert run_here(parsed).accepted == 6
    shutil.rmtree(recipe["store"])
    assert run_here(parsed).accepted == 6
    assert len(ml.open(recipe["store"])) == 6


def test_other_seeds_make_other_samples(recipe, tmp_path):
    parsed = Recipe.model_validate({**recipe, "more_teachers": []})
    run_here(parsed)
    changed(tmp_path / "seed.extxyz", lambda path: bulk("Ag", cubic=True).write(path))
    assert run_here(parsed).accepted == 6
    snap = ml.open(recipe["store"]).snapshot()
    assert [set(np.unique(snap.read([k]).numbers)) for k in (0, 11)] == [{29}, {47}]


def test_other_weights_are_not_taken_for_those_before(recipe, tmp_path):
    """Nothing was done, or the labels of the weights before were stored, until the process ended."""
    parsed = Recipe.model_validate(recipe)
    run_here(parsed)
    changed(tmp_path / "shift.txt", lambda path: path.write_text("20.0"))
    report = run_here(parsed)
    assert len(report.failed) == 3
    assert "store them under another teacher name" in report.failed[0]
    recipe["more_teachers"][0]["options"]["name"] = "other"
    assert run_here(Recipe.model_validate(recipe)).accepted == 6
    snap = ml.open(recipe["store"]).snapshot()
    energies = [snap.read(np.arange(6, 12), teacher=name).energy for name in ("other", "emt")]
    np.testing.assert_allclose(energies[0] - energies[1], 20.0)


def test_labels_that_are_added_are_of_the_weights_that_are_there(recipe, tmp_path):
    frames = [bulk("Cu", cubic=True), bulk("Ag", cubic=True)]
    store = ml.create(tmp_path / "other.zarr")
    store.append(frames, require=())
    options = recipe["more_teachers"][0]["options"]
    energies = []
    for shift in (1.0, 3.0):
        changed(tmp_path / "shift.txt", lambda path, shift=shift: path.write_text(str(shift)))
        store.add_labels(
            "ase:tests.teachers.weights:Shifted", options=options | {"name": f"shifted-{shift:g}"},
            executor=InProcessExecutor(),
        )  # fmt: skip
        energies.append(store.snapshot().read([0], teacher=f"shifted-{shift:g}").energy[0])
    assert energies[1] - energies[0] == pytest.approx(2.0)
