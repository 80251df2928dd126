"""Weights that change under one name, wherever options name them, and copies of structures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.calculators.lj import LennardJones

import mlffstore as ml
from mlffstore.contracts.registry import shared_teacher
from mlffstore.errors import RecipeError
from mlffstore.pipeline.active import _prepare, learn
from mlffstore.pipeline.campaign import ActiveRecipe
from mlffstore.pipeline.distillation.subsets import calls_per_sample, labelled
from mlffstore.pipeline.recipe import Recipe
from mlffstore.runtime.named_files import named_files
from mlffstore.store.executors import InProcessExecutor
from tests.samples import metal_frames

LJ = "ase:tests.pipeline.test_named_weights:student"
METALS = {"name": "crystals", "elements": ["Cu", "Al", "Ni"], "elemental": 1.0}


def student(files=()):
    """Return a calculator with the parameters in a file."""
    (path,) = files
    with open(path, encoding="utf-8") as file:
        return LennardJones(**json.load(file))


def campaign(folder, **changes):
    document = {
        "name": "c", "store": str(folder / "c.zarr"), "teacher": "emt", "samples": 8, "rounds": 3,
        "pool": {"generator": "rattle", "options": {"seeds": METALS}, "samples": 8},
        "committee": [{"teacher": "emt"}, {"teacher": "ase:ase.calculators.lj:LennardJones"}],
        "window": [0.0, 1000.0], "novelty": 0.0,
    }  # fmt: skip
    return ActiveRecipe.model_validate(document | changes)


def test_a_labelling_teacher_that_changed_is_refused_before_a_round_is_made(tmp_path):
    path = tmp_path / "w.json"
    path.write_text('{"epsilon": 0.1}')
    given = {"files": [str(path)]}
    small = {"generator": "rattle", "options": {"seeds": METALS | {"max_atoms": 16}}, "samples": 2}
    recipe = campaign(tmp_path, teacher=LJ, teacher_options=given, pool=small, samples=2)
    learn(recipe, rounds=1, executor=InProcessExecutor())
    path.write_text('{"epsilon": 0.2}')
    with pytest.raises(RecipeError, match="holds labels of"):
        _prepare(recipe)


def test_a_file_after_the_colon_of_a_teacher_counts(tmp_path):
    path = tmp_path / "model.fnx"
    path.write_text("one")
    assert named_files({"teacher": f"fennol:{path}"}) == named_files({"weights": str(path)}) != []
    part = {"name": "p", "generator": "rattle", "options": {"seeds": METALS}, "teacher": f"fennol:{path}", "samples": 8}
    recipe = Recipe.model_validate({"name": "r", "store": "r.zarr", "parts": [part]})
    before = recipe.key(recipe.tasks()[0])
    path.write_text("another")
    assert recipe.key(recipe.tasks()[0]) != before


def test_a_shared_teacher_is_loaded_again_when_the_file_in_its_name_changes(monkeypatch, tmp_path):
    path = tmp_path / "model.fnx"
    path.write_text("one")
    made = []
    monkeypatch.setattr(
        "mlffstore.contracts.registry.get_teacher", lambda name, **options: made.append(name) or object()
    )
    first = shared_teacher(f"fennol:{path}", {})
    assert shared_teacher(f"fennol:{path}", {}) is first
    path.write_text("another")
    assert shared_teacher(f"fennol:{path}", {}) is not first
    assert len(made) == 2


def test_copies_are_familiar(tmp_path):
    """A pool that the store holds already, atom for atom and twice over, has no news."""
    first = learn(campaign(tmp_path), rounds=1, executor=InProcessExecutor()).rounds[0]
    assert first.accepted == first.wanted == 8
    (tmp_path / "other").mkdir()
    again = campaign(tmp_path / "other")
    store = ml.create(again.store)
    for _ in range(2):
        store.append(ml.open(campaign(tmp_path).store).snapshot().read())
    report = learn(again, rounds=1, executor=InProcessExecutor())
    assert (report.rounds[0].wanted, report.rounds[0].familiar) == (0, 8)
    assert len(ml.open(again.store)) == 16


def test_calls_of_rounds_are_on_record(tmp_path):
    recipe = campaign(tmp_path)
    learn(recipe, rounds=1, executor=InProcessExecutor())
    store = ml.open(recipe.store, mode="a")
    note = next(note for note in store.provenance() if "round" in note)
    assert note["calls"]["emt"] == 8 + note["accepted"]
    assert calls_per_sample(store.snapshot()) >= 2
    store.append(metal_frames(3))  # of which nothing says what they took
    assert calls_per_sample(store.snapshot()) is None


def test_students_are_not_tested_on_structures_that_they_learned(tmp_path):
    """The same structures may have come in under several roots."""
    store = ml.create(tmp_path / "d.zarr")
    batch = ml.SampleBatch.from_ase(metal_frames(20))
    for k in range(3):
        other = ml.SampleBatch.from_ase(metal_frames(20))
        other.columns["root"] = np.arange(20, dtype=np.uint64) + np.uint64(1000 * k)
        store.append(other)
    train, test = labelled(store.snapshot(), "train", None), labelled(store.snapshot(), "test", None)
    everything = store.snapshot().read()
    assert set(train.root.tolist()) == set(everything.root[store.snapshot().split_codes() == 0].tolist())
    kept = test.known(np.arange(len(test)), train, np.arange(len(train)))
    assert not np.isin(test.data.content_hash[kept], train.data.content_hash).any()
    assert len(batch) == 20


@pytest.mark.parametrize(
    "change", [{"window": [0.1, float("inf")]}, {"novelty": float("inf")}, {"checks": {"force_max": float("inf")}}]
)
def test_infinite_numbers_are_refused_where_they_stand(tmp_path, change):
    with pytest.raises(ValueError, match="finite number"):
        campaign(tmp_path, **change)


def test_a_key_that_is_no_round_is_named(tmp_path):
    store = ml.create(tmp_path / "c.zarr")
    store.append(metal_frames(2), key="active/c/1")
    with pytest.raises(RecipeError, match=r"active/c/NUMBER"):
        learn(campaign(tmp_path), executor=InProcessExecutor())
