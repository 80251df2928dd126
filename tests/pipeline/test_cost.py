"""A task labels with all teachers of a recipe, and the account says what a kept sample cost."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import RecipeError
from mlffstore.pipeline.account import account
from mlffstore.pipeline.recipe import Recipe
from mlffstore.pipeline.run import run
from mlffstore.store.executors import InProcessExecutor

METALS = {"name": "crystals", "elements": ["Cu", "Al", "Ni"], "elemental": 1.0, "max_atoms": 16}
MOLECULES = {"name": "molecules", "min_atoms": 10, "max_atoms": 14}


def recipe(folder, **changes):
    relaxed = {"name": "relaxed", "seeds": METALS, "teacher": "chgnet", "steps": 8, "pressure": 50.0}
    parts = [
        {"name": "metals", "generator": "rattle", "options": {"seeds": relaxed, "path": 2}, "teacher": "chgnet"},
        {
            "name": "ions",
            "generator": "rattle",
            "options": {"seeds": {**MOLECULES, "ions": ["anion"]}},
            "teacher": "gfn2-xtb",
        },
        {
            "name": "molecules",
            "generator": "rattle",
            "options": {"seeds": {**MOLECULES, "neutral": True}},
            "teacher": "gfn2-xtb",
        },
    ]
    more = [{"teacher": "chgnet", "options": {"molecules": True}}]
    parts = [{**part, "samples": 4} for part in parts]
    return Recipe.model_validate(
        {"name": "cost", "store": str(folder / "d.zarr"), "more_teachers": more, "parts": parts, **changes}
    )


def test_one_teacher_labels_all_parts_and_calls_are_on_record(tmp_path):
    parsed = recipe(tmp_path)
    run(parsed, executor=InProcessExecutor())
    batch = ml.open(parsed.store).snapshot().read()
    charged = batch.charge != 0
    assert charged.sum() == 4
    energy = batch.labels["chgnet"]["energy"]
    assert np.isfinite(energy[~charged]).all()  # one zero
    assert np.isnan(energy[charged]).all()  # what the teacher refuses is kept, without its label
    assert np.isfinite(batch.labels["gfn2-xtb"]["energy"]).sum() == 8
    result = account(parsed, n_environments=0)
    metals, ions, molecules = result.parts
    # One seed: up to 8 calls of the relaxation, of which two frames keep all labels, and two that are rattled.
    assert 2 + 2 <= metals.calls["chgnet"] <= 8 + 2
    assert set(metals.calls) == {"chgnet"}
    assert molecules.calls == {"gfn2-xtb": 4, "chgnet": 4}
    assert molecules.calls_per_sample == 2.0
    assert sum(ions.unlabelled.values()) == 4
    assert result.labelled == {"chgnet": 8, "gfn2-xtb": 8}
    assert result.structures["roots periodic"] == 1
    assert molecules.samples_per_hour > 0
    assert "teacher calls per sample" in result.line


def test_keys_know_the_teachers_and_older_recipes_keep_theirs(tmp_path):
    with_more, without = recipe(tmp_path), recipe(tmp_path, more_teachers=[])
    one, other = with_more.tasks()[0], without.tasks()[0]
    assert with_more.key(one) != without.key(other)
    # A recipe without further teachers has the keys that it had before there were any: what it made is not made again.
    checks = without.checks.model_dump(mode="json")
    del checks["stress_max"]
    part = other.part.model_dump(mode="json", exclude={"samples", "properties"})
    decisive = {"seed": 0, "checks": checks, "precision": "float32", "part": part, "count": other.count}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    assert without.key(other) == f"run/cost/{other.part.name}/0/{digest}"
    with pytest.raises(RecipeError, match=r"more_teachers: .*did you mean 'chgnet'"):
        run(recipe(tmp_path, more_teachers=[{"teacher": "chgnt"}]))
