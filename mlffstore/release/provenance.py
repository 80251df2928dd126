"""The provenance of a store as a release, or the log of another store, keeps it: the tasks of a recipe added up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def by_part(provenance: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the provenance with the tasks of a recipe added up part by part: a large run has thousands of them."""
    out: list[dict[str, Any]] = []
    parts: dict[str, dict[str, Any]] = {}
    for entry in provenance:
        if not {"part", "task"} <= set(entry):
            out.append(entry)
            continue
        name = str(entry["part"])
        if name not in parts:
            parts[name] = {"part": name, "tasks": 0, "accepted": 0, "cpu_seconds": 0.0}
            parts[name] |= {what: Counter() for what in ("skipped", "rejected", "calls")}
            out.append(parts[name])
        parts[name]["tasks"] += 1
        for what in ("skipped", "rejected", "calls"):
            parts[name][what].update(entry.get(what, {}))
        parts[name]["accepted"] += entry.get("accepted", 0)
        parts[name]["cpu_seconds"] = round(parts[name]["cpu_seconds"] + entry.get("cpu_seconds", 0.0), 3)
    return out
