"""One task: generate, label, check, append under its key. Runs in any process, any number of times, with one outcome."""

from __future__ import annotations

import functools
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.labelling import label_batch
from mlffstore.pipeline.checks import verdicts
from mlffstore.registry import get_generator, get_teacher
from mlffstore.store import open as open_store

if TYPE_CHECKING:
    from mlffstore.pipeline.recipe import Part, Recipe
    from mlffstore.protocols import Generator, Teacher
    from mlffstore.store import Store


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task."""

    part: str
    task: int
    accepted: int
    rejected: int
    version: int
    seconds: float
    #: Reasons of rejected samples and of seeds without a structure, counted.
    reasons: dict[str, int]


def rng_of(recipe: Recipe, part: Part, task: int) -> np.random.Generator:
    """Return the random numbers of a task: they depend on the recipe's seed, the part's name and the task alone."""
    name = int.from_bytes(part.name.encode(), "big")
    return np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(name, task)))


def run_task(recipe: Recipe, part: Part, task: int, url: str) -> Outcome:
    """Generate, label, check and append the samples of a task; do nothing if its key is in the log already.

    Parameters
    ----------
    recipe : Recipe
    part : Part
        One of the recipe's.
    task : int
        Number of the task in the part.
    url : str
        The store.
    """
    began = time.monotonic()
    store, key = _store(url), recipe.key(part, task)
    done = store.keys()
    if key in done:
        return Outcome(part.name, task, 0, 0, done[key], 0.0, {})
    generator = _generator(part.generator, json.dumps(part.options, sort_keys=True))
    teacher = _teacher(part.teacher, json.dumps(part.teacher_options, sort_keys=True))
    generated = generator.generate(rng_of(recipe, part, task), recipe.count(part, task))
    # Label what is stored: the teacher sees the positions after rounding.
    batch, labels = label_batch(teacher, generated.batch.astype(recipe.precision))
    reasons = verdicts(batch, labels, recipe.checks)
    good = np.array([not reason for reason in reasons])
    counts: dict[str, int] = {}
    for reason in filter(None, reasons):
        counts[reason] = counts.get(reason, 0) + 1
    version = store.commit(
        batch.take(good),
        rejected=batch.take(~good),
        reasons=[reason for reason in reasons if reason],
        key=key,
        teachers={teacher.info.name: teacher.info.to_json()},
        provenance={"part": part.name, "task": task, "skipped": dict(generated.skipped), "rejected": counts},
    )
    skipped = {f"no structure: {reason}": n for reason, n in generated.skipped.items()}
    seconds = time.monotonic() - began
    return Outcome(part.name, task, int(good.sum()), int((~good).sum()), version, seconds, counts | skipped)


@functools.lru_cache(maxsize=4)
def _store_of(url: str, pid: int) -> Store:
    return open_store(url, "a")


def _store(url: str) -> Store:
    """Return this process's handle of the store."""
    return _store_of(url, os.getpid())


@functools.lru_cache(maxsize=16)
def _generator(name: str, options: str) -> Generator:
    return get_generator(name, **json.loads(options))


@functools.lru_cache(maxsize=16)
def _teacher(name: str, options: str) -> Teacher:
    return get_teacher(name, **json.loads(options))
