"""One task: generate, label, check, append under its key. Runs in any process, any number of times, with one outcome."""

from __future__ import annotations

import functools
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.contracts.registry import get_generator, shared_teacher
from mlffstore.pipeline.checks import verdicts
from mlffstore.store.labelling import label_batch
from mlffstore.store.opening import open as open_store

if TYPE_CHECKING:
    from mlffstore.contracts.protocols import Generated, Generator, Teacher
    from mlffstore.data.batch import SampleBatch
    from mlffstore.pipeline.recipe import Recipe, Task
    from mlffstore.store.facade import Store


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a task."""

    part: str
    task: int
    accepted: int
    rejected: int
    version: int
    seconds: float
    #: Reasons of rejected samples and of seeds without a structure, counted.
    reasons: dict[str, int]


def rng_of(recipe: Recipe, task: Task) -> np.random.Generator:
    """Return the random numbers of a task: they depend on the recipe's seed, the part's name and the task alone."""
    name = int.from_bytes(task.part.name.encode(), "big")
    # A smaller task has its own random numbers: if the part grew, the full task of the same number would repeat them.
    size = () if task.count == task.part.samples_per_task else (task.count,)
    return np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(name, task.number, *size)))


def run_task(recipe: Recipe, task: Task, url: str) -> Outcome:
    """Generate, label, check and append the samples of a task; do nothing if its key is in the log already.

    Parameters
    ----------
    recipe : Recipe
    task : Task
    url : str
        The store.
    """
    began = time.monotonic()
    store, key, part = _store(url), recipe.key(task), task.part
    done = store.keys()
    if key in done:
        return Outcome(part.name, task.number, 0, 0, done[key], 0.0, {})
    generator = _generator(part.generator, json.dumps(part.options, sort_keys=True))
    teacher = shared_teacher(part.teacher, part.teacher_options)
    generated = generator.generate(rng_of(recipe, task), task.count)
    batch, labels = labelled(teacher, generated, recipe.precision)
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
        provenance={"part": part.name, "task": task.number, "skipped": dict(generated.skipped), "rejected": counts},
    )
    skipped = {f"no structure: {reason}": n for reason, n in generated.skipped.items()}
    seconds = time.monotonic() - began
    return Outcome(part.name, task.number, int(good.sum()), int((~good).sum()), version, seconds, counts | skipped)


def labelled(teacher: Teacher, generated: Generated, precision: str) -> tuple[SampleBatch, TeacherLabels]:
    """Return the samples as they will be stored and their labels: those that they came with, if this teacher gave them."""
    batch, known, info = generated.batch.astype(precision), generated.teacher, teacher.info
    if known is None or (known.name, known.fingerprint) != (info.name, info.fingerprint):
        # Label what is stored: the teacher sees the positions after rounding.
        return label_batch(teacher, batch.structures())
    named = batch.labels[info.name]
    finite = np.isfinite(named["energy"])
    reasons = tuple("" if good else "label is not finite" for good in finite)
    return batch, TeacherLabels(named["energy"], named["forces"], named.get("stress"), finite, reasons)


@functools.lru_cache(maxsize=4)
def _store_of(url: str, pid: int) -> Store:
    return open_store(url, "a")


def _store(url: str) -> Store:
    """Return this process's handle of the store."""
    return _store_of(url, os.getpid())


@functools.lru_cache(maxsize=16)
def _generator(name: str, options: str) -> Generator:
    return get_generator(name, **json.loads(options))
