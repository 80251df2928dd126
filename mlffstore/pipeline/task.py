"""One task: generate, label, check, append under its key. Runs in any process, any number of times, with one outcome."""

from __future__ import annotations

import functools
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.contracts.probes import number_of
from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.contracts.registry import get_generator, shared_teacher
from mlffstore.contracts.request import label_with, wanted, with_products
from mlffstore.data.properties import ordered
from mlffstore.data.schema import LABELS
from mlffstore.errors import DataError, RecipeError
from mlffstore.pipeline.checks import verdicts
from mlffstore.store.filling import filled
from mlffstore.store.labelling import label_batch, label_columns
from mlffstore.store.opening import open as open_store

if TYPE_CHECKING:
    from mlffstore.contracts.protocols import Generated, Generator, Teacher, TeacherInfo
    from mlffstore.data.batch import SampleBatch
    from mlffstore.pipeline.recipe import Part, Recipe, Task
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
    #: Structures that each teacher labelled, to make samples and to label them.
    calls: dict[str, int] = field(default_factory=dict)


def rng_of(recipe: Recipe, task: Task) -> np.random.Generator:
    """Return the random numbers of a task: they depend on the recipe's seed, the part's name and the task alone."""
    return np.random.default_rng(seed_of(recipe, task))


def seed_of(recipe: Recipe, task: Task) -> np.random.SeedSequence:
    """Return the seed of the random numbers of a task."""
    name = int.from_bytes(task.part.name.encode(), "big")
    # A smaller task has its own random numbers: if the part grew, the full task of the same number would repeat them.
    size = () if task.count == task.part.samples_per_task else (task.count,)
    return np.random.SeedSequence(recipe.seed, spawn_key=(name, task.number, *size))


def set_aside(recipe: Recipe, task: Task, store: Store, error: str) -> str:
    """Record that a task killed its workers, so that it is not run again; return what was recorded, in words.

    The record is an empty commit under the key of the task. Its provenance has the part, the number and the size of the
    task, the seed of its random numbers, and the error.
    """
    seed, done = seed_of(recipe, task), store.keys()
    if recipe.key(task) in done:  # its worker died after the commit
        return "its worker died, after the commit"
    store.commit(
        None,
        key=recipe.key(task),
        provenance={
            "part": task.part.name, "task": task.number, "killed": error, "count": task.count,
            "seed": {"entropy": str(seed.entropy), "spawn_key": [str(k) for k in seed.spawn_key]},
        },
    )  # fmt: skip
    return (
        f"the task, which makes {task.count} samples, killed its worker twice and is set aside; its seed is on record "
        f"({error.strip().splitlines()[0] if error.strip() else 'no message'})"
    )


def run_task(recipe: Recipe, task: Task, url: str, uuid: str) -> Outcome:
    """Generate, label, check and append the samples of a task; do nothing if its key is in the log already.

    Parameters
    ----------
    recipe : Recipe
    task : Task
    url, uuid : str
        The store. A worker that lives on may have written to another one, which was here before.
    """
    began, worked = time.monotonic(), time.process_time()
    store, key, part = _store(url, uuid), recipe.key(task), task.part
    done = store.keys()
    if key in done:
        return Outcome(part.name, task.number, 0, 0, done[key], 0.0, {})
    made = make(recipe, task)
    reasons = verdicts(made.batch, made.labels, recipe.checks)
    good = np.array([not reason for reason in reasons])
    counts: dict[str, int] = {}
    for reason in filter(None, reasons):
        counts[reason] = counts.get(reason, 0) + 1
    version = store.commit(
        made.batch.take(good),
        rejected=made.batch.take(~good),
        reasons=[reason for reason in reasons if reason],
        key=key,
        teachers={info.name: info.to_json() for info in made.teachers},
        provenance={
            "part": part.name, "task": task.number, "accepted": int(good.sum()), "skipped": made.skipped,
            "rejected": counts, "calls": made.calls, "cpu_seconds": round(time.process_time() - worked, 3),
            "unlabelled": made.unlabelled,
        },
    )  # fmt: skip
    skipped = {f"no structure: {reason}": n for reason, n in made.skipped.items()}
    seconds = time.monotonic() - began
    return Outcome(
        part.name, task.number, int(good.sum()), int((~good).sum()), version, seconds, counts | skipped, made.calls
    )


@dataclass(frozen=True, slots=True)
class Made:
    """The samples of a task, labelled, before they are checked.

    Attributes
    ----------
    batch : SampleBatch
        Structures with the labels of all teachers.
    labels : TeacherLabels
        Those of the part's teacher.
    teachers : tuple of TeacherInfo
        The part's teacher and those of the recipe's `more_teachers`.
    calls : dict of str to int
        Structures that each teacher labelled.
    skipped : dict of str to int
        Draws without a structure, counted by their reason.
    unlabelled : dict of str to int
        Samples that a teacher of `more_teachers` refused, counted by teacher and reason.
    """

    batch: SampleBatch
    labels: TeacherLabels
    teachers: tuple[TeacherInfo, ...]
    calls: dict[str, int]
    skipped: dict[str, int]
    unlabelled: dict[str, int]


def make(recipe: Recipe, task: Task) -> Made:
    """Generate and label the samples of a task."""
    part = task.part
    generator = _generator(part.generator, json.dumps(part.options, sort_keys=True))
    return label_all(recipe, part, generator.generate(rng_of(recipe, task), task.count))


def label_all(recipe: Recipe, part: Part, generated: Generated) -> Made:
    """Label what a generator made with all teachers of a part."""
    teachers = asked(recipe, part)
    (teacher, names), *others = teachers
    calls = Counter(dict(generated.calls))
    batch, labels = labelled(teacher, generated, recipe.precision, calls, names)
    infos, unlabelled = [teacher.info], Counter[str]()
    for other, names in others:
        infos.append(other.info)
        calls[other.info.name] += len(batch)
        answer = label_with(other, batch.structures(), names)
        unlabelled.update(f"{other.info.name}: {reason}" for reason in answer.reasons if reason)
        batch = batch.with_properties(other.info.name, label_columns(answer, names))
    return Made(batch, labels, tuple(infos), dict(calls), dict(generated.skipped), dict(unlabelled))


def asked(recipe: Recipe, part: Part) -> list[tuple[Teacher, tuple[str, ...] | None]]:
    """Return the teachers of a part, its own first, each with the properties that are stored of its labels.

    None stands for what a teacher gives without request. A teacher that labels the part and is among `more_teachers` is
    asked once, for what either of the two names.

    Raises
    ------
    RecipeError
        If a teacher does not give what it is asked for.
    """
    entries = [(f"part {part.name!r}", part.teacher, part.teacher_options, part.properties)]
    entries += [
        (f"more_teachers, {one.teacher}", one.teacher, one.options, one.properties) for one in recipe.more_teachers
    ]
    out: dict[str, tuple[Teacher, tuple[str, ...] | None]] = {}
    for place, name, options, properties in entries:
        teacher = shared_teacher(name, options)
        before, names = out.get(teacher.info.name), named_properties(place, teacher, properties)
        if before is not None:
            teacher = before[0]
            if before[1] != names:
                both = [teacher.info.properties if one is None else one for one in (before[1], names)]
                names = tuple(ordered({*both[0], *both[1]}))
        out[teacher.info.name] = (teacher, names)
    return list(out.values())


def named_properties(place: str, teacher: Teacher, properties: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the properties that a place in a recipe names, in one order; None if it names none.

    Raises
    ------
    RecipeError
        If the teacher does not give one of them.
    """
    try:
        return None if properties is None else wanted(teacher, properties)
    except DataError as error:
        raise RecipeError(f"{place}: {error}") from error


def labelled(
    teacher: Teacher,
    generated: Generated,
    precision: str,
    calls: Counter[str] | None = None,
    properties: tuple[str, ...] | None = None,
) -> tuple[SampleBatch, TeacherLabels]:
    """Return the samples as they will be stored and their labels: those that they came with, if this teacher gave them.

    Samples whose energy is missing are labelled, and all of them where the teacher gives a property that they came without.
    Hessian-vector products are made for all of them, without asking for the other labels again.

    Parameters
    ----------
    teacher : Teacher
    generated : Generated
    precision : str
        dtype of the stored positions.
    calls : Counter, optional
        To which the structures are added that the teacher labels here.
    properties : tuple of str, optional
        What is stored, as `mlffstore.contracts.request.wanted` returns it; by default what the teacher gives anyway.
    """
    batch, known, info = generated.batch.astype(precision), generated.teacher, teacher.info
    calls = Counter() if calls is None else calls
    named = batch.labels.get(info.name, {})
    # Dynamics and relaxations bring all that the teacher gives; other generators may bring less, which takes one more call.
    given = info.properties if properties is None else [name for name in properties if number_of(name) is None]
    whole = all(name in named for name in given if name != "stress")
    if known is None or (known.name, known.fingerprint) != (info.name, info.fingerprint) or not whole:
        # Label what is stored: the teacher sees the positions after rounding.
        calls[info.name] += len(batch)
        return label_batch(teacher, batch.structures(), properties)
    missing = np.flatnonzero(np.isnan(named["energy"]))
    reasons = [""] * len(batch)
    if len(missing):
        calls[info.name] += len(missing)
        fresh, answer = label_batch(teacher, batch.structures().take(missing), tuple(given))
        batch = filled(batch, missing, fresh, info.name)
        named = batch.labels[info.name]
        for i, reason in zip(missing, answer.reasons, strict=True):
            reasons[i] = reason
    finite = np.isfinite(named["energy"])
    reasons = [reason or ("" if good else "label is not finite") for reason, good in zip(reasons, finite, strict=True)]
    more = {name: values for name, values in named.items() if name not in LABELS}
    labels = TeacherLabels(named["energy"], named["forces"], named.get("stress"), finite, tuple(reasons), more)
    labels = with_products(teacher, batch.structures(), labels, properties)
    return batch.structures().with_properties(info.name, label_columns(labels, properties)), labels


@functools.lru_cache(maxsize=4)
def _store_of(url: str, uuid: str, pid: int) -> Store:
    return open_store(url, "a")


def _store(url: str, uuid: str) -> Store:
    """Return this process's handle of the store."""
    return _store_of(url, uuid, os.getpid())


@functools.lru_cache(maxsize=16)
def _generator(name: str, options: str) -> Generator:
    return get_generator(name, **json.loads(options))
