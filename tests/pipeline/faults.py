"""Recipes of which some tasks kill their workers, and what a store must hold after a run of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import mlffstore as ml
from mlffstore.pipeline.account import REFILL, account
from mlffstore.pipeline.recipe import Recipe
from mlffstore.pipeline.task import rng_of

if TYPE_CHECKING:
    from pathlib import Path


def recipe(folder: Path, share: float, samples: int = 12, **seeds: Any) -> Recipe:
    """Return a recipe whose tasks make a sample of one draw each, of which a share kills: one of twelve at a tenth."""
    options = {"seeds": {"name": "tests.pipeline.seeds:Deadly", "share": share, **seeds}, "frames": 1, "strain": 0.0}
    part = {"name": "metals", "generator": "rattle", "options": options, "teacher": "emt", "samples": samples,
            "samples_per_task": 1}  # fmt: skip
    return Recipe.model_validate({"name": "faults", "seed": 4, "store": str(folder / "d.zarr"), "parts": [part]})


def deadly(parsed: Recipe) -> list[int]:
    """Return the planned tasks that kill."""
    share = parsed.parts[0].options["seeds"]["share"]
    return [task.number for task in parsed.tasks() if _first_number(rng_of(parsed, task)) < share]


def check_set_aside(parsed: Recipe) -> None:
    """Check that all samples are there, and that the deadly tasks are on record with their seeds."""
    (part,) = account(parsed, n_environments=0).parts
    assert sorted(number for number in part.set_aside if number < REFILL) == deadly(parsed) != []
    assert part.accepted == part.wanted == len(ml.open(parsed.store))
    assert part.refills >= len(deadly(parsed))
    notes = [note for note in ml.open(parsed.store).provenance() if "killed" in note]
    assert len(notes) == len(part.set_aside)
    for note in notes:
        seed = np.random.SeedSequence(
            int(note["seed"]["entropy"]), spawn_key=tuple(map(int, note["seed"]["spawn_key"]))
        )
        assert _first_number(np.random.default_rng(seed)) < parsed.parts[0].options["seeds"]["share"]


def _first_number(rng: np.random.Generator) -> float:
    """Return the first random number of the first seed of a task."""
    return float(np.random.default_rng(rng.integers(2**63, size=2)).random())
