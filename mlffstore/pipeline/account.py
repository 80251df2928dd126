"""What a recipe has made so far: read from the store, so it holds for all processes and after any crash."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import reduce_rows
from mlffstore.errors import MissingDependencyError
from mlffstore.pipeline.plan import SIZES
from mlffstore.pipeline.recipe import cut
from mlffstore.store.opening import open as open_store

if TYPE_CHECKING:
    from mlffstore.analysis.statistics.diversity import Diversity
    from mlffstore.data.schema import Array
    from mlffstore.pipeline.recipe import Part, Recipe, Task
    from mlffstore.store.facade import Store
    from mlffstore.store.snapshot import Snapshot

#: Tasks that make up for rejected samples are numbered from here, out of the way of a part that grows.
REFILL = 10**9
#: A part drifts when more than this share of what it made is rejected, or a structure takes more draws than that.
_REJECTED, _DRAWS = 0.2, 30
#: Structures of a part from which on its shares mean something.
_ENOUGH = 32
#: Samples that are read at a time.
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class PartAccount:
    """What became of a part of a recipe.

    Attributes
    ----------
    part : str
    wanted, accepted, rejected : int
        Samples.
    tasks, refills : int
        Tasks that are done, and how many of them make up for rejected samples.
    reasons : dict of str to int
        Reasons of rejected samples, counted.
    skipped : dict of str to int
        Reasons of draws that gave no structure, counted.
    calls : dict of str to int
        Structures that each teacher labelled, to make the samples and to label them.
    cpu_seconds : float
        Time that one core worked.
    unlabelled : dict of str to int
        Samples that a teacher of `more_teachers` refused, counted by teacher and reason.
    set_aside : dict of int to str
        Tasks that killed their workers, and the error of each.
    """

    part: str
    wanted: int
    accepted: int
    rejected: int
    tasks: int
    refills: int
    reasons: dict[str, int]
    skipped: dict[str, int]
    calls: dict[str, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    unlabelled: dict[str, int] = field(default_factory=dict)
    set_aside: dict[int, str] = field(default_factory=dict)

    @property
    def calls_per_sample(self) -> float:
        """Structures that teachers labelled for a sample that was kept."""
        return sum(self.calls.values()) / max(self.accepted, 1)

    @property
    def samples_per_hour(self) -> float:
        """Samples that one core makes in an hour; 0 if the time is not on record."""
        return 3600 * self.accepted / self.cpu_seconds if self.cpu_seconds else 0.0

    @property
    def drift(self) -> str:
        """How the part departs from the plan, or nothing."""
        made, draws = self.accepted + self.rejected, sum(self.skipped.values())
        if made < _ENOUGH:
            return ""
        if self.rejected > _REJECTED * made:
            return f"{self.part}: {self.rejected / made:.0%} of {made:,} samples are rejected ({_most(self.reasons)})"
        if draws > _DRAWS * made:
            return f"{self.part}: {draws / made:.0f} draws for a structure ({_most(self.skipped)})"
        return ""


@dataclass(frozen=True, slots=True)
class Account:
    """What a store holds of a recipe.

    Attributes
    ----------
    parts : list of PartAccount
    samples, atoms, periodic : int
        Counts of the store; `periodic` counts samples.
    elements, classes, samplers : dict of str to int
        Samples with an element, of a class of seeds (`source` up to its colon), of a sampler.
    sizes : tuple of int
        Samples between the edges `mlffstore.pipeline.plan.SIZES`.
    diversity : Diversity or None
        On a sample of environments; None where it was not asked for or QUESTS is not installed.
    labelled : dict of str to int
        Samples with a label of each teacher.
    structures : dict of str to int
        Different roots, and different compositions, of molecules and of periodic samples.
    diversity_of : dict of str to Diversity
        Of molecules and of periodic samples, each by itself, so that neither drowns in the other.
    """

    parts: list[PartAccount]
    samples: int
    atoms: int
    periodic: int
    elements: dict[str, int]
    classes: dict[str, int]
    samplers: dict[str, int]
    sizes: tuple[int, ...]
    diversity: Diversity | None
    labelled: dict[str, int] = field(default_factory=dict)
    structures: dict[str, int] = field(default_factory=dict)
    diversity_of: dict[str, Diversity] = field(default_factory=dict)

    @property
    def calls_per_sample(self) -> float:
        """Structures that teachers labelled for a sample that was kept, all parts together."""
        return sum(sum(part.calls.values()) for part in self.parts) / max(sum(part.accepted for part in self.parts), 1)

    @property
    def samples_per_hour(self) -> float:
        """Samples that one core makes in an hour, all parts together."""
        seconds = sum(part.cpu_seconds for part in self.parts)
        return 3600 * sum(part.accepted for part in self.parts) / seconds if seconds else 0.0

    @property
    def drift(self) -> list[str]:
        """How parts depart from the plan."""
        return [part.drift for part in self.parts if part.drift]

    @property
    def line(self) -> str:
        """All of it in one line."""
        made = sum(part.accepted + part.rejected for part in self.parts)
        reasons: Counter[str] = sum((Counter(part.reasons) for part in self.parts), Counter())
        rejected = f"{sum(reasons.values()) / max(made, 1):.1%} rejected" + (f" ({_most(reasons)})" if reasons else "")
        words = [
            f"{self.samples:,} samples", f"{len(self.elements)} elements",
            f"{self.periodic / max(self.samples, 1):.0%} periodic", rejected,
        ]  # fmt: skip
        if self.samples_per_hour:
            words.append(f"{self.calls_per_sample:.1f} teacher calls per sample")
            words.append(f"{self.samples_per_hour:,.0f} samples per core-hour")
        if self.diversity is not None:
            words.append(f"diversity {self.diversity.score:.2f} of {self.diversity.n_environments:,} environments")
        if len(self.diversity_of) > 1:
            words += [f"{one.score:.2f} of {name}" for name, one in self.diversity_of.items()]
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class _Row:
    """The record of a task in the log entry of its commit."""

    accepted: int
    rejected: int
    note: dict[str, Any]


class Ledger:
    """The commits of a recipe in a store, read once each.

    Parameters
    ----------
    recipe : Recipe
    store : Store
    """

    def __init__(self, recipe: Recipe, store: Store) -> None:
        self.recipe, self.store = recipe, store
        #: Key -> record of the task.
        self._rows: dict[str, _Row] = {}
        self._next = 0

    def __contains__(self, task: Task) -> bool:
        return self.recipe.key(task) in self._rows

    def refresh(self) -> None:
        """Read what was committed since."""
        prefix = f"run/{self.recipe.name}/"
        commits = self.store.history(since=self._next)
        # Read afterwards, so that it has what each of the commits notes; those of others under such a key may note nothing.
        notes = {note["version"]: note for note in self.store.provenance(since=self._next)}
        for commit in commits:
            if (commit.key or "").startswith(prefix) and commit.version in notes:
                self._rows[str(commit.key)] = _Row(commit.n_samples, commit.n_quarantined, notes[commit.version])
            self._next = max(self._next, commit.version + 1)

    def follow(self, part: Part) -> tuple[list[Task], list[Task]]:
        """Return the tasks of a part that are done and those that are to do next.

        When all planned tasks are done and samples were rejected, further tasks make up for them, round by round, until the
        part has what it wants or has made as much again as it wants. What they are depends on nothing but what became of
        the tasks before, so every process comes to the same ones.
        """
        todo = cut(part, part.samples)
        done: list[Task] = []
        room, number = part.samples, REFILL
        while True:
            done += [task for task in todo if task in self]
            left = [task for task in todo if task not in self]
            missing = part.samples - sum(row.accepted for row in self._of(done))
            if left or missing <= 0 or not room:
                return done, left
            todo = cut(part, min(missing, room), number)
            number, room = number + len(todo), room - sum(task.count for task in todo)

    def _of(self, tasks: list[Task]) -> list[_Row]:
        return [self._rows[self.recipe.key(task)] for task in tasks]

    def part(self, part: Part) -> PartAccount:
        """Return what became of a part."""
        done, _ = self.follow(part)
        rows = self._of(done)
        reasons: Counter[str] = Counter()
        skipped: Counter[str] = Counter()
        calls: Counter[str] = Counter()
        unlabelled: Counter[str] = Counter()
        for row in rows:
            reasons.update(row.note.get("rejected", {}))
            skipped.update(row.note.get("skipped", {}))
            calls.update(row.note.get("calls", {}))
            unlabelled.update(row.note.get("unlabelled", {}))
        return PartAccount(
            part.name, part.samples, sum(row.accepted for row in rows), sum(row.rejected for row in rows), len(done),
            len([task for task in done if task.number >= REFILL]), dict(reasons.most_common()),
            dict(skipped.most_common()), dict(calls.most_common()),
            sum(float(row.note.get("cpu_seconds", 0.0)) for row in rows), dict(unlabelled.most_common()),
            {task.number: str(row.note["killed"]) for task, row in zip(done, rows, strict=True) if "killed" in row.note},
        )  # fmt: skip

    def account(self, n_environments: int = 2000) -> Account:
        """Return what was made so far; `n_environments` is the size of the sample for the diversity, 0 for none."""
        from mlffstore.analysis.statistics.diversity import diversity_by_domain

        self.refresh()
        snapshot = self.store.snapshot()
        score = _diversity(snapshot, n_environments) if n_environments and len(snapshot) else None
        parts = [self.part(part) for part in self.recipe.parts]
        coverage = _coverage(snapshot)
        each = (
            {}
            if score is None
            else diversity_by_domain(snapshot, n_environments=max(n_environments // 2, 2), n_seeds=1)
        )
        return Account(parts, len(snapshot), snapshot.n_atoms, diversity=score, diversity_of=each, **coverage)


def account(recipe: Recipe, *, n_environments: int = 2000) -> Account:
    """Return what the store of a recipe holds of it, while runs go on or after them.

    Parameters
    ----------
    recipe : Recipe
    n_environments : int, optional
        Size of the random subset for which the diversity is computed; 0 for none.

    Raises
    ------
    StoreNotFoundError
        If the recipe was not run yet.
    """
    return Ledger(recipe, open_store(recipe.store)).account(n_environments)


def _coverage(snapshot: Snapshot) -> dict[str, Any]:
    """Return what the samples cover, as attributes of `Account`."""
    from ase.data import chemical_symbols

    periodic, elements = 0, np.zeros(len(chemical_symbols), np.int64)
    classes: Counter[str] = Counter()
    samplers: Counter[str] = Counter()
    labelled: Counter[str] = Counter(dict.fromkeys(snapshot.teachers, 0))
    for segment in snapshot.segments:
        labelled.update(segment.summary.labelled)
    roots: dict[str, set[int]] = {"molecule": set(), "periodic": set()}
    formulas: dict[str, set[bytes]] = {"molecule": set(), "periodic": set()}
    sizes = np.zeros(len(SIZES), np.int64)
    columns = ["n_atoms", "numbers", "pbc", "source", "sampler", "root"]
    for start in range(0, len(snapshot), _BLOCK):
        wanted = np.arange(start, min(start + _BLOCK, len(snapshot)))
        batch = snapshot.read(wanted, columns=columns)
        repeats = batch.pbc.any(axis=1)
        periodic += int(repeats.sum())
        sizes += np.histogram(batch.n_atoms, (*SIZES, np.iinfo(np.int32).max))[0]
        for z in np.unique(batch.numbers):
            elements[z] += int(reduce_rows(np.logical_or, batch.numbers == z, batch.offsets).sum())
        for counter, names in ((classes, batch.source), (samplers, batch.sampler)):
            counter.update(name.split(":")[0] for name in names)
        for i, domain in enumerate(np.where(repeats, "periodic", "molecule").tolist()):
            roots[domain].add(int(batch.root[i]))
            formulas[domain].add(_reduced(batch.numbers[batch.offsets[i] : batch.offsets[i + 1]]))
    return {
        "periodic": periodic,
        "elements": {chemical_symbols[z]: int(elements[z]) for z in np.flatnonzero(elements)},
        "classes": dict(classes.most_common()),
        "samplers": dict(samplers.most_common()),
        "sizes": tuple(sizes.tolist()),
        "labelled": dict(labelled),
        "structures": {
            f"{name} {domain}": len(sets[domain])
            for domain in ("molecule", "periodic")
            for name, sets in (("roots", roots), ("compositions", formulas))
        },
    }


def _reduced(numbers: Array) -> bytes:
    """Return the composition of a sample, whatever its multiple."""
    counts = np.bincount(numbers)
    return bytes((counts // np.gcd.reduce(counts)).astype(np.int32).tobytes())


def _diversity(snapshot: Snapshot, n_environments: int) -> Diversity | None:
    from mlffstore.analysis.statistics.diversity import diversity

    try:
        return diversity(snapshot, n_environments=n_environments, n_seeds=1)
    except MissingDependencyError:
        return None


def _most(reasons: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{n:,} x {reason}" for reason, n in Counter(reasons).most_common(2))
