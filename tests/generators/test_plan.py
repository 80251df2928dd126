"""A plan tries every part and stores nothing; the production recipe is a recipe."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms

import mlffstore as ml
from mlffstore.data.splits import SPLITS, assign
from mlffstore.pipeline.plan import plan
from mlffstore.pipeline.recipe import load_recipe
from mlffstore_generators import smiles
from mlffstore_generators.prototypes import draw_element, identity
from mlffstore_generators.seeds import molecules
from mlffstore_generators.seeds.base import NoSeedError, Seed
from tests.command import cli

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
    assert (good.samples, good.periodic) == (400, 1.0)
    assert good.tried in (4, 8)  # whole seeds of four frames, the second if the first was quick
    assert good.calls == 1.0
    assert good.samples_per_hour == pytest.approx(3600 / good.seconds)
    assert set(good.elements) <= {"Cu", "Al", "Ni"}
    assert sum(good.sizes) == good.tried
    assert good.hours == pytest.approx(good.seconds * 400 / 3600)
    assert "did you mean 'crystals'" in bad.problem
    done = cli("generators", "plan", "r.yaml", "-n", "2", "--json", code=1)  # a part cannot be made
    assert json.loads(done.stdout)["samples"] == 410
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_the_production_recipe_has_the_shares_that_it_says():
    recipe = load_recipe(ROOT / "recipes" / "production.yaml")
    total = sum(part.samples for part in recipe.parts)
    periodic = sum(part.samples for part in recipe.parts if part.teacher == "chgnet")
    assert total == 125_340  # a release takes 120,000
    large = sum(part.samples for part in recipe.parts if part.options.get("seeds", {}).get("min_atoms", 0) >= 150)
    assert large / total > 0.026  # with a quarter of the particles more than 3 % have 150 atoms and more
    assert periodic / total > 0.5
    assert len({part.name for part in recipe.parts}) == len(recipe.parts) == 21
    # One zero: CHGNet labels all of it but the ions alone, which leave more than a release takes.
    assert [(more.teacher, more.options) for more in recipe.more_teachers] == [("chgnet", {"molecules": True})]
    assert total - sum(part.samples for part in recipe.parts if part.name == "ions") > 123_000


def test_molecules_and_elements_leave_no_split_of_the_production_recipe_short(monkeypatch):
    """Roots are drawn as the recipe draws them, but without coordinates; 200 seeds of the splits stand for runs.

    Compounds count as if no two had one composition, since no crystal is made here: real splits are less even, see
    docs/dataset_v1.0.md.
    """
    recipe = load_recipe(ROOT / "recipes" / "production.yaml")
    monkeypatch.setattr(molecules, "with_hydrogens", functools.cache(smiles.with_hydrogens))
    monkeypatch.setattr(molecules, "family", functools.cache(smiles.family))
    monkeypatch.setattr(molecules, "bond_table", lambda mol: np.zeros((0, 2), int))
    monkeypatch.setattr(molecules, "embed", lambda mol, seed: None)
    monkeypatch.setattr(molecules, "to_atoms", lambda mol: Atoms([a.GetAtomicNum() for a in mol.GetAtoms()]))
    rng = np.random.default_rng(0)
    roots, sizes = [], []
    for part in recipe.parts:
        generator = ml.get_generator(part.generator, **part.options)
        for _ in range(-(-part.samples // generator.frames)):
            name = rng.integers(2**64, dtype=np.uint64)  # of its own, as of compounds, slabs, clusters
            if isinstance(generator.source, molecules.Molecules):
                name = _root(generator.source.draw, rng)
            elif rng.random() < getattr(_innermost(generator.source), "elemental", 0.0):
                name = _root(_element, rng)
            roots.append(name)
            sizes.append(generator.frames)
    shares = {name: getattr(recipe.splits, name) for name in SPLITS}
    names = np.array(roots, np.uint64)
    counts = np.array([np.bincount(assign(names, shares, seed), sizes, minlength=3) for seed in range(200)])
    print(counts.mean(axis=0), counts.std(axis=0))
    assert counts[:, 1].std() > 250  # independent samples: 100
    assert (counts.min(axis=0) > [100_000, 10_000, 10_000]).all(), counts.min(axis=0)


def _innermost(source):
    """Return the class of crystals that other seeds start from."""
    while hasattr(source, "source") or hasattr(source, "hosts"):
        source = source.source if hasattr(source, "source") else source.hosts
    return source


def _element(rng):
    atoms, source = draw_element(rng)
    return Seed(atoms, source, family=identity(atoms))


def _root(draw, rng):
    while True:
        with contextlib.suppress(NoSeedError):
            return draw(rng).root


def test_the_acceptance_recipe_is_the_production_mix_in_small():
    large, small = (load_recipe(ROOT / "recipes" / f"{name}.yaml") for name in ("production", "acceptance"))
    assert sum(part.samples for part in small.parts) == 3000
    assert small.checks == large.checks
    assert small.more_teachers == large.more_teachers
    size = sum(part.samples for part in large.parts) / 3000
    for one, other in zip(small.parts, large.parts, strict=True):
        without = {"samples", "samples_per_task"}
        assert one.model_dump(exclude=without) == other.model_dump(exclude=without)
        assert one.samples == pytest.approx(other.samples / size, abs=2)


@pytest.mark.slow
def test_every_part_of_the_production_recipe_can_be_made():
    for one in plan(load_recipe(ROOT / "recipes" / "production.yaml"), count=2):
        assert not one.problem, (one.part, one.problem)
        assert one.accepted > 0
