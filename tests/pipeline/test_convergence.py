"""A campaign has converged only where that was measured, and only for the recipe and committee that were measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ase.build import bulk, molecule
from ase.io import write

import mlffstore as ml
from mlffstore.errors import RecipeError, TeacherError
from mlffstore.pipeline.active import ActiveReport, _prepare, learn
from mlffstore.pipeline.campaign import ActiveRecipe, load_active_recipe
from mlffstore.store.executors import InProcessExecutor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("quests")
pytest.importorskip("sklearn")
pytest.importorskip("tblite")

STUDENT = "ase:tests.teachers.weights:Scaled"


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., ActiveRecipe]:
    write(tmp_path / "seeds.extxyz", [bulk("Cu", cubic=True), bulk("Al", cubic=True) * (2, 1, 1)])
    seeds = {"name": "files", "paths": [str(tmp_path / "seeds.extxyz")], "licence": "CC0-1.0"}
    (tmp_path / "weights").write_text("1.0")

    def make(**changes: Any) -> ActiveRecipe:
        document = {
            "name": "campaign", "store": str(tmp_path / "d.zarr"), "teacher": "emt", "samples": 2, "rounds": 5,
            "pool": {"generator": "rattle", "options": {"seeds": seeds}, "samples": 8}, "window": [0.1, 50.0],
            "committee": [{"teacher": "emt"}, {"teacher": STUDENT, "options": {"weights": str(tmp_path / "weights")}}],
        }  # fmt: skip
        return ActiveRecipe.model_validate({**document, **changes})

    return make


def learn_here(parsed: ActiveRecipe, **options: Any) -> ActiveReport:
    return learn(parsed, executor=InProcessExecutor(), **options)


XTB = [{"teacher": "gfn1-xtb"}, {"teacher": "gfn2-xtb"}]


def test_a_committee_that_refuses_every_candidate_has_not_converged(
    recipe: Callable[..., ActiveRecipe], tmp_path: Path
) -> None:
    write(tmp_path / "seeds.extxyz", [molecule("SiH4")])  # EMT knows no silicon
    parsed = recipe(committee=[{"teacher": "gfn1-xtb"}, {"teacher": "emt"}])
    for _ in range(2):
        with pytest.raises(
            TeacherError, match=r"round 1: .*got none of 8: emt refused 8 \(.+\)\. Nothing could be measured"
        ):
            learn_here(parsed)
    assert "active/campaign/1" not in ml.open(parsed.store).keys()  # noqa: SIM118 - a method of the store


def test_a_broken_student_does_not_end_a_campaign(recipe: Callable[..., ActiveRecipe], tmp_path: Path) -> None:
    """All candidates lie beyond the window; the student is trained again between two calls, in the same file."""
    (tmp_path / "weights").write_text("1e6")
    report = learn_here(recipe())
    assert len(report.rounds) == 1
    assert report.rounds[0].beyond == 8
    assert not report.converged
    assert "cannot be told whether there is news" in report.stopped
    (tmp_path / "weights").write_text("1.0")
    report = learn_here(recipe())
    assert [one.number for one in report.rounds] == [1, 2]
    assert report.converged


def test_what_converged_did_so_for_one_recipe(recipe: Callable[..., ActiveRecipe], tmp_path: Path) -> None:
    write(tmp_path / "seeds.extxyz", [molecule("H2O")])
    fixed = {"committee": XTB, "teacher": "gfn2-xtb"}
    for changes in ({}, {"rounds": 3}, {"stop": 0.2}):  # these decide nothing about a round
        report = learn_here(recipe(**fixed, window=[20.0, 50.0], **changes))
        assert report.converged
        assert len(report.rounds) == 1
    report = learn_here(recipe(**fixed, window=[0.0, 50.0]), rounds=1)
    assert [one.number for one in report.rounds] == [1, 2]
    assert report.rounds[1].wanted > 0
    report = learn_here(recipe(**fixed, window=[20.0, 50.0], rounds=2))
    assert "set more rounds in the recipe" in report.stopped
    assert not report.converged


def test_what_decides_a_round_is_part_of_its_basis(recipe: Callable[..., ActiveRecipe], tmp_path: Path) -> None:
    write(tmp_path / "seeds.extxyz", [molecule("H2O")])
    hot = {"electronic_temperature": 900.0}
    bases = [
        _prepare(recipe(**{"committee": XTB, "teacher": "gfn2-xtb"} | changes))[1]
        for changes in (
            {}, {"window": [0.0, 3.0]}, {"teacher": "gfn1-xtb"}, {"samples": 3}, {"novelty": 0.5}, {"seed": 9}, {"known": 7},
            {"checks": {"force_max": 5.0}}, {"teacher_options": hot}, {"committee": [XTB[0], {**XTB[1], "options": hot}]},
        )
    ]  # fmt: skip
    write(tmp_path / "seeds.extxyz", [molecule("NH3")])  # other seeds in the same file
    bases.append(_prepare(recipe(committee=XTB, teacher="gfn2-xtb"))[1])
    assert len(set(bases)) == len(bases)


def test_a_committee_with_a_teacher_twice_is_refused(recipe: Callable[..., ActiveRecipe], tmp_path: Path) -> None:
    document = json.loads(recipe().model_dump_json(exclude_none=True))
    document["committee"] = [{"teacher": "emt"}, *XTB, {"teacher": "emt", "options": {}}]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(
        RecipeError, match=r"committee: expected different teachers, .*committee\[0\] and committee\[3\]"
    ):
        load_active_recipe(tmp_path / "r.yaml")
    twice = [XTB[0], {**XTB[0], "options": {"electronic_temperature": 300.0}}]  # its default
    with pytest.raises(RecipeError, match="two of which are"):
        learn_here(recipe(committee=twice))
    assert not (tmp_path / "d.zarr").exists()


def test_a_labelling_teacher_that_refuses_everything_uses_up_no_round(tmp_path):
    metals = {"name": "crystals", "elements": ["Cu", "Al", "Ni"], "elemental": 1.0}
    campaign = ActiveRecipe.model_validate({
        "name": "r", "store": str(tmp_path / "r.zarr"), "pool": {"generator": "rattle", "options": {"seeds": metals},
        "samples": 8}, "committee": [{"teacher": "emt"}, {"teacher": "ase:ase.calculators.lj:LennardJones"}],
        "window": [0.0, 1000.0], "novelty": 0.0, "teacher": "gfn2-xtb", "samples": 4, "rounds": 1,
    })  # fmt: skip
    for _ in range(2):
        with pytest.raises(TeacherError, match=r"round 1: gfn2-xtb, which labels what is chosen, gave no labels of 4"):
            learn(campaign, executor=InProcessExecutor())
    assert len(ml.open(campaign.store)) == 0
