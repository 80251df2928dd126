"""Recipes of active learning: the YAML that says what to learn from. Every quantity states its unit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from mlffstore.pipeline.recipe import RECIPE, Checks, Name, Splits, Strict
from mlffstore.runtime.checked_yaml import read_document

if TYPE_CHECKING:
    from pathlib import Path


class Member(Strict):
    """A teacher of a committee."""

    teacher: str = Field(description="Name of a teacher, see `mlffstore teachers`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the teacher.")


class Pool(Strict):
    """Where candidates come from."""

    generator: str = Field(description="Name of a generator, see `mlffstore generators`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the generator.")
    samples: int = Field(default=256, gt=0, description="Candidates of a round.")
    samples_per_task: int = Field(default=32, gt=0, description="Candidates that a process makes at a time.")


class ActiveRecipe(Strict):
    """What to learn from."""

    name: Name = Field(description="Name of the campaign; part of the idempotency keys.")
    seed: int = Field(default=0, ge=0, description="Seed of everything random.")
    store: str = Field(description="Path of the store that grows; made if it does not exist.")
    precision: Literal["float32", "float64"] = Field(default="float32", description="Of a store that is made.")
    splits: Splits = Field(default=Splits(), description="Of a store that is made.")
    checks: Checks = Checks()
    pool: Pool = Field(description="Candidates.")
    committee: tuple[Member, ...] = Field(min_length=2, description="Teachers whose forces are compared.")
    window: tuple[float, float] = Field(default=(0.1, 2.0), description="Disagreement that is wanted, eV/angstrom.")
    select: Literal["direct", "farthest"] = Field(default="direct", description="How candidates are chosen.")
    novelty: float = Field(default=1.0, ge=0, description="Least distance to what is known, in its own spacing.")
    known: int = Field(default=2000, gt=0, description="Samples of the store that candidates are compared with.")
    teacher: str = Field(description="Teacher that labels what is chosen.")
    teacher_options: dict[str, Any] = Field(default_factory=dict, description="Options of the teacher.")
    samples: int = Field(default=32, gt=0, description="Samples to choose in a round.")
    rounds: int = Field(default=10, gt=0, description="Rounds, at most.")
    stop: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Stop when fewer candidates than this share are wanted, and most are confident or familiar.",
    )

    @model_validator(mode="after")
    def _window_rises(self) -> ActiveRecipe:
        if not 0 <= self.window[0] < self.window[1]:
            raise ValueError(f"window: expected two rising numbers from 0 up, got {self.window}")
        return self

    @model_validator(mode="after")
    def _different_members(self) -> ActiveRecipe:
        members = [json.dumps([member.teacher, member.options], sort_keys=True) for member in self.committee]
        for k, member in enumerate(members):
            if member in members[:k]:
                raise ValueError(
                    f"committee: expected different teachers, got the same as committee[{members.index(member)}] and "
                    f"committee[{k}], {self.committee[k].teacher}: it never disagrees with itself"
                )
        return self


def load_active_recipe(path: str | Path) -> ActiveRecipe:
    """Read and check a recipe of active learning.

    Raises
    ------
    RecipeError
        The message lists all problems, each with its place in the file.
    """
    return read_document(path, ActiveRecipe, RECIPE)
