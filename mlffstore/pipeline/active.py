"""Active learning: a pool, the committee's disagreement, what is new among it, labels, and again.

One round is one commit. It depends on nothing but the recipe, the number of the round and what the store held before it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mlffstore.analysis.choosing.points import coordinates, distance_to, fingerprints, select, spacing
from mlffstore.contracts.registry import get_generator, get_teacher, shared_teacher
from mlffstore.data.concatenation import concatenate
from mlffstore.data.ragged import reduce_rows
from mlffstore.errors import RecipeError, StoreNotFoundError, TeacherError
from mlffstore.pipeline.campaign import ActiveRecipe
from mlffstore.pipeline.checks import verdicts
from mlffstore.pipeline.recipe import file_digests
from mlffstore.pipeline.run import found_generator
from mlffstore.runtime.dask_client import as_executor
from mlffstore.runtime.processes import local_pool
from mlffstore.store.executors import result_of
from mlffstore.store.labelling import label_batch
from mlffstore.store.opening import create
from mlffstore.store.opening import open as open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from distributed import Client

    from mlffstore.contracts.protocols import Generator, TeacherLabels
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.store.facade import Store

T = TypeVar("T")
#: Share of a pool that has to be confident or familiar for a campaign to have converged.
_KNOWN = 0.5


@dataclass(frozen=True, slots=True)
class Round:
    """The outcome of a round.

    Attributes
    ----------
    number : int
        From 1.
    version : int
        The commit.
    against : int
        Version of the store with which candidates were compared.
    pool : int
        Candidates.
    refused : int
        Candidates for which a member of the committee gave no forces.
    confident, beyond : int
        Candidates on which the committee disagrees less, or more, than the window allows.
    familiar : int
        Candidates in the window that are too close to samples of the store.
    wanted : int
        Candidates in the window that are new.
    accepted, rejected : int
        Candidates that were chosen and labelled, and then stored or put into quarantine.
    median, largest : float
        Disagreement of the candidates, eV/angstrom.
    basis : str
        Digest of the recipe, the committee and the teacher, without how many rounds there are and when they stop.
    """

    number: int
    version: int
    against: int
    pool: int
    refused: int
    confident: int
    beyond: int
    familiar: int
    wanted: int
    accepted: int
    rejected: int
    median: float
    largest: float
    basis: str = ""

    @property
    def share(self) -> float:
        """Share of the candidates that were wanted, of those for which the disagreement is known."""
        return self.wanted / max(self.pool - self.refused, 1)

    @property
    def known(self) -> float:
        """Share of all candidates in which there is nothing to learn: confident or familiar."""
        return (self.confident + self.familiar) / max(self.pool, 1)


@dataclass(slots=True)
class ActiveReport:
    """The outcome of a campaign.

    Attributes
    ----------
    rounds : list of Round
        All rounds that the store holds, including those of earlier calls.
    stopped : str
        The reason why there is no further round.
    converged : bool
        Whether the last round had too few wanted candidates, and at least half of its pool is known.
    """

    rounds: list[Round] = field(default_factory=list)
    stopped: str = ""
    converged: bool = False


def learn(
    recipe: ActiveRecipe,
    *,
    rounds: int | None = None,
    workers: int = 1,
    executor: Executor | Client | None = None,
    progress: Callable[[Round], object] | None = None,
) -> ActiveReport:
    """Go on with a campaign, round by round.

    Parameters
    ----------
    recipe : ActiveRecipe
    rounds : int, optional
        Largest number of further rounds in this call. Use 1 to train the committee again in between.
    workers : int, optional
        Number of processes on this machine.
    executor : concurrent.futures.Executor, or distributed.Client, optional
        What makes and labels instead. It is not shut down.
    progress : callable, optional
        It is called with each round of this call.

    Returns
    -------
    ActiveReport

    Raises
    ------
    RecipeError
        If two members of the committee are one teacher.
    TeacherError
        If the committee gave forces of no candidate at all. Such a round is not committed, and is made again.
    ExecutorError
        If a worker process died, or a Dask scheduler was lost. A round that was not committed is made again.

    Notes
    -----
    A candidate's disagreement is max_i sqrt(mean_k |F_ki - mean_k F_ki|^2) over atoms i and members k of the committee
    (Zhang et al., Comput. Phys. Commun. 253, 107206 (2020)); total energies of different teachers have different zeros and
    are never compared. Below the window there is little to learn; above it structures are broken, or no label can be
    trusted. Of those in between, what lies closer to the store than `novelty` times the store's own spacing is familiar; the
    others are wanted, and `select` chooses among them. A campaign has converged when fewer than `stop` of the
    measured candidates are wanted and at least half of the pool is confident or familiar. If too few are wanted since most
    are refused or beyond the window, the call ends without a verdict, and the next call makes another round. What converged
    did so for one recipe, committee and teacher: after a change of these there are further rounds.
    """
    store, basis = _prepare(recipe)
    report = ActiveReport(_past(recipe, store))
    n_tasks = -(-recipe.pool.samples // recipe.pool.samples_per_task)
    with contextlib.ExitStack() as stack:
        pool = None if executor is None else as_executor(executor)
        left = recipe.rounds if rounds is None else rounds
        while not _ended(recipe, report, basis) and left > 0:
            pool = pool or stack.enter_context(local_pool(min(workers, n_tasks)))
            report.rounds.append(_round(recipe, store, len(report.rounds) + 1, pool, basis))
            left -= 1
            if progress is not None:
                progress(report.rounds[-1])
            report.stopped = _no_verdict(recipe, report.rounds[-1])
            if report.stopped:
                break
    if not report.stopped:
        report.stopped = "the rounds of this call are done; the same command goes on with the next"
    return report


def _ended(recipe: ActiveRecipe, report: ActiveReport, basis: str) -> bool:
    last = report.rounds[-1] if report.rounds else None
    same = last is not None and last.basis == basis
    if last is not None and same and last.share < recipe.stop and last.known >= _KNOWN:
        report.converged = True
        pool = f"{last.pool - last.refused:,} measured candidates" if last.refused else "pool"
        report.stopped = f"only {last.share:.1%} of the {pool} is wanted, less than {recipe.stop:.1%}"
    elif len(report.rounds) >= recipe.rounds:
        changed = "" if same else ", the last with another recipe or committee; set more rounds in the recipe to go on"
        report.stopped = f"all {recipe.rounds} rounds are done{changed}"
    return bool(report.stopped)


def _no_verdict(recipe: ActiveRecipe, last: Round) -> str:
    """Return why a round with too little news does not mean that the campaign has converged, or an empty string."""
    if last.share >= recipe.stop or last.known >= _KNOWN:
        return ""
    return (
        f"of the {last.pool:,} candidates of round {last.number} the committee refused {last.refused:,} and disagrees on "
        f"{last.beyond:,} by more than {recipe.window[1]:g} eV/angstrom, so that it cannot be told whether there is "
        "news. Train the committee, or change pool or window; "
        + (
            "the same command makes another round"
            if last.number < recipe.rounds
            else f"all {recipe.rounds} rounds are done, so set more in the recipe"
        )
    )


def _key(recipe: ActiveRecipe, number: int) -> str:
    return f"active/{recipe.name}/{number}"


def _prepare(recipe: ActiveRecipe) -> tuple[Store, str]:
    """Make or open the store after everything that the recipe names was found; return it and the basis of the rounds."""
    generator = found_generator(recipe.pool.generator, recipe.pool.options)
    teacher = get_teacher(recipe.teacher, **recipe.teacher_options)
    # Not the teachers that this process shares: the file of a student may hold other weights since.
    exact = [get_teacher(member.teacher, **member.options).info.fingerprint for member in recipe.committee]
    if len(set(exact)) < len(exact):
        names = ", ".join(member.teacher for member in recipe.committee)
        raise RecipeError(
            f"committee: expected different teachers, got {names}, two of which are {max(exact, key=exact.count)!r}: a "
            "teacher never disagrees with itself"
        )
    try:
        store = open_store(recipe.store, "a")
    except StoreNotFoundError:
        splits = recipe.splits
        store = create(
            recipe.store,
            precision=recipe.precision,
            splits={"train": splits.train, "val": splits.val, "test": splits.test},
            split_seed=splits.seed,
            exist_ok=True,
        )
    name, snapshot = teacher.info.name, store.snapshot()
    held = snapshot.teacher_info(name).get("fingerprint") if name in snapshot.teachers else None
    if held not in (None, teacher.info.fingerprint):  # before a round is made whose labels the store would refuse
        raise RecipeError(
            f"teacher: {recipe.store} holds labels of {held!r} under the name {name!r}, these would be of "
            f"{teacher.info.fingerprint!r}; give the teacher another name, or start a new store"
        )
    record = {"recipe": recipe.model_dump(mode="json"), "generators": {"pool": dict(generator.provenance())}}
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
    store.commit(
        None,
        key=f"active/{recipe.name}/recipe/{digest}",
        teachers={teacher.info.name: teacher.info.to_json()},
        provenance=record,
    )
    decisive = {
        "recipe": recipe.model_dump(mode="json", exclude={"name", "store", "precision", "splits", "rounds", "stop"}),
        "files": file_digests(recipe.pool.options),
        "teachers": [*exact, teacher.info.fingerprint],
    }
    return store, hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _past(recipe: ActiveRecipe, store: Store) -> list[Round]:
    """Return the rounds that the store holds."""
    keys = store.keys()
    versions: list[int] = []
    while (key := _key(recipe, len(versions) + 1)) in keys:
        versions.append(keys[key])
    notes = {entry["version"]: entry for entry in store.provenance(since=versions[0])} if versions else {}
    if wrong := [number for number, version in enumerate(versions, 1) if "round" not in notes.get(version, {})]:
        raise RecipeError(
            f"name: expected rounds of a campaign under the keys active/{recipe.name}/NUMBER of {recipe.store}, got other "
            f"things under {wrong[0]}; choose another name"
        )
    return [Round(version=version, **notes[version]["round"]) for version in versions]


def _round(recipe: ActiveRecipe, store: Store, number: int, pool: Executor, basis: str) -> Round:
    text = recipe.model_dump_json()
    before = store.snapshot()
    precision = store.precision
    size = recipe.pool.samples_per_task
    sizes = [min(size, recipe.pool.samples - start) for start in range(0, recipe.pool.samples, size)]
    made = _results(pool, _candidates, [(text, number, task, count, precision) for task, count in enumerate(sizes)])
    batch = concatenate([candidates.batch for candidates in made])
    apart = np.concatenate([candidates.disagreement for candidates in made])
    points = np.concatenate([candidates.fingerprints for candidates in made])
    low, high = recipe.window
    with np.errstate(invalid="ignore"):
        inside = (apart >= low) & (apart <= high)
        counts = {"refused": ~np.isfinite(apart), "confident": apart < low, "beyond": apart > high}
    # An even sample of what the store held.
    some = np.unique(np.linspace(0, len(before) - 1, min(recipe.known, len(before))).astype(np.int64))
    blocks = np.array_split(some, -(-len(some) // 128)) if len(some) else []
    of_blocks = _results(pool, _known, [(store.url, before.version, block) for block in blocks])
    seen = np.concatenate([points[:0], *of_blocks])
    # Copies say nothing new, of the pool, of the store, and of how far its samples are apart.
    seen = seen[np.sort(np.unique(seen, axis=0, return_index=True)[1])]
    first = np.zeros(len(batch), bool)
    first[np.unique(batch.content_hash, return_index=True)[1]] = True
    points, known = coordinates(points, seen)
    new = (distance_to(points, known) > recipe.novelty * spacing(known)) & first & ~store.holds(batch.content_hash)
    wanted = np.flatnonzero(inside & new)
    chosen = wanted[np.sort(select(recipe.select, points[wanted], known, recipe.samples))]
    finite = apart[np.isfinite(apart)]
    if not len(finite):
        raise _unmeasured(recipe, number, made)
    outcome: dict[str, Any] = {
        "number": number, "against": before.version, "pool": len(batch),
        **{name: int(which.sum()) for name, which in counts.items()}, "familiar": int((inside & ~new).sum()),
        "wanted": len(wanted), "median": float(np.median(finite)), "largest": float(finite.max()),
        "accepted": 0, "rejected": 0, "basis": basis,
    }  # fmt: skip
    note: dict[str, Any] = {"active": recipe.name, "round": outcome, "committee": list(made[0].committee)}
    note["skipped"] = dict(sum((Counter(candidates.skipped) for candidates in made), Counter()))
    note["refused"] = {
        member.teacher: dict(sum((candidates.refusals[k] for candidates in made), Counter()))
        for k, member in enumerate(recipe.committee)
    }
    calls = sum((Counter(candidates.calls) for candidates in made), Counter())
    samples = rejected = None
    reasons: list[str] = []
    info = shared_teacher(recipe.teacher, recipe.teacher_options).info
    if len(chosen):
        parts = [batch.take(rows) for rows in np.array_split(chosen, -(-len(chosen) // 16))]
        labelled = _results(pool, _labelled, [(text, part) for part in parts])
        samples = concatenate([part for part, *_ in labelled])
        reasons = [reason for _, words, _ in labelled for reason in words]
        calls[info.name] += len(samples)
        if not any(known for *_, known in labelled):
            raise TeacherError(
                f"round {number}: {info.name}, which labels what is chosen, gave no labels of {len(samples):,} samples "
                f"({Counter(reasons).most_common(1)[0][0]}). The round was not stored. Choose another teacher, or a pool "
                "that it knows, and run the same command again"
            )
        good = np.array([not reason for reason in reasons])
        samples, rejected = samples.take(good), samples.take(~good)
        outcome["accepted"], outcome["rejected"] = int(good.sum()), int((~good).sum())
    note |= {"calls": dict(calls), "accepted": outcome["accepted"]}
    version = store.commit(
        samples, rejected=rejected, reasons=[reason for reason in reasons if reason], key=_key(recipe, number),
        teachers={info.name: info.to_json()}, provenance=note,
    )  # fmt: skip
    return Round(version=version, **outcome)


def _unmeasured(recipe: ActiveRecipe, number: int, made: Sequence[_Candidates]) -> TeacherError:
    n = sum(len(candidates.batch) for candidates in made)
    told = []
    for k, member in enumerate(recipe.committee):
        reasons = sum((candidates.refusals[k] for candidates in made), Counter[str]())
        if reasons:
            told.append(f"{member.teacher} refused {reasons.total():,} ({reasons.most_common(1)[0][0]})")
    skipped = sum((Counter(candidates.skipped) for candidates in made), Counter())
    told += [f"{count:,} were not made: {reason}" for reason, count in skipped.most_common(1)] if not n else []
    return TeacherError(
        f"round {number}: expected candidates of which every member of the committee gives forces, got none of {n:,}"
        f"{': ' if told else ''}{'; '.join(told)}. Nothing could be measured, and the round was not stored. Choose a pool "
        "whose elements and kinds of structures all members know (mlffstore teachers), or mend the members, and run the "
        "same command again"
    )


def _results(pool: Executor, function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> list[T]:
    """Return the results of calls that run side by side."""
    futures = [pool.submit(function, *arguments) for arguments in calls]
    return [result_of(future, "active learning") for future in futures]


def _known(url: str, version: int, rows: Array) -> Array:
    """Return the fingerprints of samples that the store held; runs in a worker."""
    columns = ["n_atoms", "numbers", "positions", "cell", "pbc", "charge", "multiplicity"]
    return fingerprints(open_store(url).snapshot(version).read(rows, columns=columns))


@dataclass(frozen=True, slots=True)
class _Candidates:
    batch: SampleBatch
    disagreement: Array
    fingerprints: Array
    skipped: dict[str, int]
    #: Why each member of the committee gave no forces.
    refusals: tuple[Counter[str], ...]
    committee: tuple[dict[str, Any], ...]
    #: Structures that each teacher labelled.
    calls: dict[str, int]


def _candidates(text: str, number: int, task: int, count: int, precision: str) -> _Candidates:
    """Make some candidates of a round and ask the committee; runs in a worker."""
    recipe = ActiveRecipe.model_validate_json(text)
    name = int.from_bytes(recipe.name.encode(), "big")
    rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(name, number, task)))
    generated = _generator(recipe.pool.generator, json.dumps(recipe.pool.options, sort_keys=True)).generate(rng, count)
    batch = generated.batch.astype(precision).structures()
    members = [shared_teacher(member.teacher, member.options) for member in recipe.committee]
    answers = [label_batch(member, batch)[1] for member in members]
    about = tuple({"name": member.info.name, "fingerprint": member.info.fingerprint} for member in members)
    refusals = tuple(
        Counter(reason for ok, reason in zip(labels.ok, labels.reasons, strict=True) if not ok) for labels in answers
    )
    apart = disagreement(batch, answers)
    calls = Counter(dict(generated.calls))
    for member in members:
        calls[member.info.name] += len(batch)
    return _Candidates(batch, apart, fingerprints(batch), dict(generated.skipped), refusals, about, dict(calls))


def disagreement(batch: SampleBatch, answers: Sequence[TeacherLabels]) -> Array:
    """Return the largest standard deviation of the force on an atom over the committee, eV/angstrom, shape (S,).

    NaN where a member gave no forces, or forces that are not finite.
    """
    forces = np.stack([labels.forces.astype(np.float64) for labels in answers])
    spread = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
    out = np.asarray(reduce_rows(np.maximum, spread, batch.offsets), np.float64)
    out[~np.logical_and.reduce([labels.ok for labels in answers]) | ~np.isfinite(out)] = np.nan
    return out


def _labelled(text: str, batch: SampleBatch) -> tuple[SampleBatch, list[str], bool]:
    """Label what was chosen; return why samples are rejected, and whether the teacher gave any labels; runs in a worker."""
    recipe = ActiveRecipe.model_validate_json(text)
    labelled, labels = label_batch(shared_teacher(recipe.teacher, recipe.teacher_options), batch)
    return labelled, verdicts(labelled, labels, recipe.checks), bool(np.any(labels.ok))


@functools.lru_cache(maxsize=16)
def _generator(name: str, options: str) -> Generator:
    return get_generator(name, **json.loads(options))


def to_json(report: ActiveReport) -> dict[str, Any]:
    """Return a report as JSON."""
    return {
        "rounds": [asdict(entry) | {"share": entry.share} for entry in report.rounds],
        "converged": report.converged,
        "stopped": report.stopped,
    }
