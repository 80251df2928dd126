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
        seconds = record.get("cpu_seconds")
        self.cpu_seconds += seconds if isinstance(seconds, (int, float)) else 0.0
        self.versions.append(int(record.get("version", 0)))
        self.times.append(str(record.get("time", "")))

    def row(self) -> list[str]:
        """Return the part as a line of a table."""
        wanted = self.recipe.get("samples")
        versions = f"{min(self.versions)} to {max(self.versions)}" if self.versions else "-"
        return [
            self.name, str(self.recipe.get("generator", "-")), str(self.recipe.get("teacher", "-")),
            f"{wanted:,}" if isinstance(wanted, int) else "-", f"{self.tasks:,}", f"{self.rejected.total():,}",
            f"{self.skipped.total():,}", f"{self.cpu_seconds:,.0f} s", versions,
        ]  # fmt: skip

    def document(self) -> dict[str, Any]:
        """Return all of it as plain types."""
        return {
            "recipe": self.recipe, "generator": self.generator, "teacher": self.teacher, "tasks": self.tasks,
            "first commit": min(self.times, default=""), "last commit": max(self.times, default=""),
            "calls": dict(self.calls), "rejected": dict(self.rejected.most_common()),
            "skipped": dict(self.skipped.most_common()), "unlabelled": dict(self.unlabelled.most_common()),
        }  # fmt: skip


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
