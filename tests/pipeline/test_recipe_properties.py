"""Recipes ask teachers for properties: what is labelled, stored, checked again, planned, and part of the keys."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

import mlffstore as ml
from mlffstore.contracts.probes import probe
from mlffstore.contracts.registry import shared_teacher
from mlffstore.contracts.request import label_with
from mlffstore.errors import RecipeError
from mlffstore.pipeline.plan import plan
from mlffstore.pipeline.recipe import Recipe, load_recipe
from mlffstore.pipeline.run import run
from mlffstore.pipeline.task import make
from mlffstore.store.executors import InProcessExecutor
from tests.command import cli

METALS = {"name": "crystals", "elements": ["Cu", "Ni"], "elemental": 1.0, "min_atoms": 1, "max_atoms": 4}
DYNAMICS = {"seeds": METALS, "teacher": "emt", "equilibration_fs": 6, "interval_fs": 6, "distance": 0.0}
ASKED = ["energy", "forces", "hessian_product"]


def document(folder, properties=ASKED, more=(), **changes):
    part = {
        "name": "metals", "generator": "rattle", "options": {"seeds": METALS}, "teacher": "emt", "samples": 8,
        "samples_per_task": 4, **changes,
    }  # fmt: skip
    if properties is not None:
        part["properties"] = properties
    return {"name": "asked", "store": str(folder / "d.zarr"), "parts": [part], "more_teachers": list(more)}


def recipe(*args, **changes):
    return Recipe.model_validate(document(*args, **changes))


def test_what_is_asked_for_is_labelled_and_stored(tmp_path):
    pytest.importorskip("chgnet")
    more = [{"teacher": "chgnet", "properties": ["magmoms", "embedding"]}]
    parsed = recipe(tmp_path, more=more)
    report = run(parsed, executor=InProcessExecutor())
    assert (report.accepted, report.failed) == (8, [])
    batch = ml.open(parsed.store).snapshot().read()
    assert {teacher: set(named) for teacher, named in batch.labels.items()} == {
        "emt": {*ASKED, "hessian_probe"}, "chgnet": {"magmoms", "embedding"},
    }  # fmt: skip
    own = label_with(shared_teacher("emt", {}), batch.structures(), (*ASKED, "hessian_probe"))
    np.testing.assert_allclose(batch.label("hessian_product", "emt"), own.more["hessian_product"], atol=1e-4)
    np.testing.assert_array_equal(batch.label("hessian_probe", "emt"), probe(batch))
    other = label_with(shared_teacher("chgnet", {}), batch.structures(), ("embedding",))
    for name in ("magmoms", "embedding"):
        np.testing.assert_allclose(batch.label(name, "chgnet"), other.more[name], atol=1e-3)
    # It is done: nothing is labelled again.
    again = run(parsed, executor=InProcessExecutor())
    assert (again.n_done_before, again.accepted, again.warnings) == (2, 0, [])


def test_frames_of_dynamics_get_products_without_labels_that_they_have():
    parsed = Recipe.model_validate(document(Path("unused"), generator="md", options=DYNAMICS, samples_per_task=8))
    plain = Recipe.model_validate(
        {**parsed.model_dump(), "parts": [{**parsed.parts[0].model_dump(), "properties": None}]}
    )
    made, before = make(parsed, parsed.tasks()[0]), make(plain, plain.tasks()[0])
    assert made.calls == before.calls
    assert set(made.batch.labels["emt"]) == {*ASKED, "hessian_probe"}
    own = label_with(shared_teacher("emt", {}), made.batch.structures(), (*ASKED, "hessian_probe"))
    np.testing.assert_array_equal(made.batch.label("energy", "emt"), own.energy)
    np.testing.assert_array_equal(made.batch.label("hessian_product", "emt"), own.more["hessian_product"])


def test_one_teacher_named_twice_is_asked_once_for_both(tmp_path):
    parsed = recipe(tmp_path, ["energy", "forces"], more=[{"teacher": "emt", "properties": ["hessian_product"]}])
    made = make(parsed, parsed.tasks()[0])
    assert set(made.batch.labels["emt"]) == {*ASKED, "hessian_probe"}
    assert made.calls == {"emt": 4}


def test_properties_are_part_of_the_keys_and_their_order_is_not(tmp_path):
    plain, asked, turned = recipe(tmp_path, None), recipe(tmp_path), recipe(tmp_path, ASKED[::-1])
    keys = [one.key(one.tasks()[0]) for one in (plain, asked, turned)]
    assert keys[0] != keys[1]
    assert keys[1] == keys[2]
    more = [[{"teacher": "emt", **given}] for given in ({}, {"properties": ["energy"]})]
    assert len({one.key(one.tasks()[0]) for one in (recipe(tmp_path, None, entry) for entry in more)}) == 2
    run(plain)
    report = run(asked)
    assert report.accepted == 8
    assert ["2 tasks of this part ran before with other options" in line for line in report.warnings] == [True]
    # The first eight samples keep what they have.
    batch = ml.open(asked.store).snapshot().read()
    assert Counter(np.isfinite(batch.label("hessian_product", "emt")).all(axis=1).tolist()).keys() == {True, False}


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        (["energy", "forces", "stres"], "part 'metals': properties: .*got stres; did you mean 'stress'?"),
        (["energy", "forces", "charges"], "on request atomic_energies, hessian_product.*got charges"),
        (["energy", "forces", "hesian_product"], "did you mean 'hessian_product'?"),
    ],
)
def test_what_no_teacher_gives_is_refused_before_anything_is_written(tmp_path, properties, words):
    parsed = recipe(tmp_path, properties)
    with pytest.raises(RecipeError, match=words):
        run(parsed, executor=InProcessExecutor())
    assert not (tmp_path / "d.zarr").exists()
    assert re.search(words, plan(parsed)[0].problem)
    with pytest.raises(RecipeError, match="more_teachers, emt: "):
        run(recipe(tmp_path, None, [{"teacher": "emt", "properties": properties}]), executor=InProcessExecutor())


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        (["forces", "charges"], "energy and forces"),
        ([], "got none"),
        (["energy", "energy", "forces"], "different"),
        ("energy", "a list"),
        ([True], "no and off mean|yes, no, on and off|text"),
    ],
)
def test_wrong_lists_are_named_with_their_line(tmp_path, properties, words):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(document(tmp_path, properties)))
    with pytest.raises(RecipeError, match=rf"line \d+: .*properties.*({words})"):
        load_recipe(tmp_path / "r.yaml")


def test_the_command_line_plans_runs_and_labels_again(tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(document(tmp_path)))
    planned = cli("generators", "plan", tmp_path / "r.yaml", "-n", 2, "-w", 1)
    assert "labels of emt: energy, forces, hessian_product, hessian_probe" in planned.stdout
    done = json.loads(cli("run", tmp_path / "r.yaml", "-w", 1, "--json").stdout)
    assert "8 samples labelled again" in done["recheck"][0]
    assert "teacher_properties 0 of 8 off" in done["recheck"][0]
