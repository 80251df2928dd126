"""The provenance of a store, summed up: one line for each part of a recipe, however many tasks made it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

#: Entries of a record that say when and not what.
_WHEN = ("version", "time")


@dataclass(slots=True)
class Part:
    """What the records say of one part of a recipe, all tasks together.

    Attributes
    ----------
    name : str
    recipe, generator, teacher : dict
        What the recipe says of the part, and what is recorded of its generator and of its teacher.
    tasks : int
    accepted : int
        Samples that were kept, of the tasks that say so.
    set_aside : int
        Tasks that killed their workers.
    rejected, skipped, unlabelled, calls : Counter
        Sums over the tasks: samples by reason, seeds by reason, and calls of each teacher.
    cpu_seconds : float
    versions : list of int
    times : list of str
    """

    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    generator: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    tasks: int = 0
    accepted: int = 0
    set_aside: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    unlabelled: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0
    versions: list[int] = field(default_factory=list)
    times: list[str] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Add the record of a task."""
        self.tasks += 1
        for name in ("rejected", "skipped", "unlabelled", "calls"):
            counts = record.get(name)
            if isinstance(counts, dict):
                getattr(self, name).update({str(key): n for key, n in counts.items() if isinstance(n, int)})
        accepted, seconds = record.get("accepted"), record.get("cpu_seconds")
        self.accepted += accepted if isinstance(accepted, int) else 0
        self.set_aside += "killed" in record
        self.cpu_seconds += seconds if isinstance(seconds, (int, float)) else 0.0
        self.versions.append(int(record.get("version", 0)))
        self.times.append(str(record.get("time", "")))

    @property
    def calls_per_sample(self) -> float | None:
        """Structures that teachers labelled for a sample that was kept, also to make it; None if it is not on record."""
        return self.calls.total() / self.accepted if self.accepted and self.calls else None

    @property
    def samples_per_hour(self) -> float | None:
        """Samples that one core made in an hour; None if it is not on record."""
        return 3600 * self.accepted / self.cpu_seconds if self.accepted and self.cpu_seconds else None

    def row(self) -> list[str]:
        """Return the part as a line of a table."""
        wanted = self.recipe.get("samples")
        versions = f"{min(self.versions)} to {max(self.versions)}" if self.versions else "-"
        return [
            self.name, str(self.recipe.get("generator", "-")), str(self.recipe.get("teacher", "-")),
            f"{wanted:,}" if isinstance(wanted, int) else "-", f"{self.accepted:,}" if self.accepted else "-",
            f"{self.tasks:,}", f"{self.rejected.total():,}", f"{self.skipped.total():,}", *self.cost(), versions,
        ]  # fmt: skip

    def cost(self) -> list[str]:
        """Return calls for a sample, samples in an hour of one core, and the hours of one core, as text."""
        calls, rate = self.calls_per_sample, self.samples_per_hour
        return [
            "-" if calls is None else f"{calls:.1f}",
            "-" if rate is None else f"{rate:,.0f}",
            f"{self.cpu_seconds / 3600:,.2f}" if self.cpu_seconds else "-",
        ]

    def document(self) -> dict[str, Any]:
        """Return all of it as plain types."""
        return {
            "recipe": self.recipe, "generator": self.generator, "teacher": self.teacher, "tasks": self.tasks,
            "first commit": min(self.times, default=""), "last commit": max(self.times, default=""),
            "accepted": self.accepted, "set aside": self.set_aside,
            "calls": dict(self.calls), "rejected": dict(self.rejected.most_common()),
            "skipped": dict(self.skipped.most_common()), "unlabelled": dict(self.unlabelled.most_common()),
        }  # fmt: skip


def total(several: list[Part]) -> Part:
    """Return the sum of parts, for the last line of a table."""
    out = Part("all parts")
    for part in several:
        out.tasks += part.tasks
        out.accepted += part.accepted
        out.set_aside += part.set_aside
        out.cpu_seconds += part.cpu_seconds
        for name in ("rejected", "skipped", "unlabelled", "calls"):
            getattr(out, name).update(getattr(part, name))
    return out


def parts(records: list[dict[str, Any]]) -> list[Part]:
    """Return the parts of the recipes in the records, in the order of their first mention."""
    out: dict[str, Part] = {}
    for record in records:
        recipe = record.get("recipe")
        for one in recipe.get("parts") or [] if isinstance(recipe, dict) else []:
            name = str(one.get("name"))
            part = out.setdefault(name, Part(name))
            part.recipe = one
            for kind in ("generator", "teacher"):
                about = record.get(f"{kind}s")
                if isinstance(about, dict) and isinstance(about.get(name), dict):
                    setattr(part, kind, about[name])
        if "part" in record:
            out.setdefault(str(record["part"]), Part(str(record["part"]))).add(record)
    return list(out.values())


def other_records(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the records that are not of tasks, those with the same entries together, under a title."""
    out: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if "part" in record:
            continue
        names = [name for name in record if name not in _WHEN]
        title = (
            "Recipe, software, generators, teachers" if "recipe" in record else ", ".join(map(str, names)) or "commit"
        )
        out.setdefault(title, []).append(record)
    return {
        f"{title} ({len(several)} commits)" if len(several) > 1 else title: several for title, several in out.items()
    }
