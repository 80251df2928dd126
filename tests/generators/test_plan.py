"""A plan tries every part and stores nothing; the production recipe is a recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlffstore.pipeline.plan import plan
from mlffstore.pipeline.recipe import load_recipe

ROOT = Path(__file__).parents[2]
RECIPE = {
    "name": "tiny",
    "store": "tiny.zarr",
    "checks": {"force_max": 30.0},
    "parts": [
        {
            "name": "metals",
            "generator": "rattle",
            "options": {"seeds": {"name": "crystals", "elements": ["Cu", "Al", "Ni"], "elemental": 1.0}},
            "teacher": "emt",
            "samples": 400,
        },
        {"name": "wrong", "generator": "rattle", "options": {"seeds": "crystal"}, "teacher": "emt", "samples": 10},
    ],
}


def test_a_plan_says_what_a_part_makes_and_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(yaml.safe_dump(RECIPE))
    good, bad = plan(load_recipe("r.yaml"), count=5)
    assert (good.samples, good.tried, good.periodic) == (400, 5, 1.0)
    assert set(good.elements) <= {"Cu", "Al", "Ni"}
    assert sum(good.sizes) == 5
    assert good.hours == pytest.approx(good.seconds * 400 / 3600)
    assert "did you mean 'crystals'" in bad.problem
    command = [sys.executable, "-m", "mlffstore.cli", "generators", "plan", "r.yaml", "-n", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1  # a part cannot be made
    assert json.loads(done.stdout)["samples"] == 410
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_the_production_recipe_has_the_shares_that_it_says():
    recipe = load_recipe(ROOT / "recipes" / "production.yaml")
    total = sum(part.samples for part in recipe.parts)
    periodic = sum(part.samples for part in recipe.parts if part.teacher == "chgnet")
    assert 120_000 <= total <= 125_000
    assert periodic / total > 0.5
    assert len({part.name for part in recipe.parts}) == len(recipe.parts) == 15


def test_the_acceptance_recipe_is_the_production_mix_in_small():
    large, small = (load_recipe(ROOT / "recipes" / f"{name}.yaml") for name in ("production", "acceptance"))
    assert sum(part.samples for part in small.parts) == 3000
    assert small.checks == large.checks
    size = sum(part.samples for part in large.parts) / 3000
    for one, other in zip(small.parts, large.parts, strict=True):
        without = {"samples", "samples_per_task"}
        assert one.model_dump(exclude=without) == other.model_dump(exclude=without)
        if one.name not in ("crystals", "crystals-md"):
            assert one.samples == pytest.approx(other.samples / size, abs=2)


@pytest.mark.slow
def test_every_part_of_the_production_recipe_can_be_made():
    for one in plan(load_recipe(ROOT / "recipes" / "production.yaml"), count=2):
        assert not one.problem, (one.part, one.problem)
        assert one.accepted > 0
