"""`Commit` and `Record`: what the history and the provenance of a store need of one log entry."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.format.entry import Entry


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as `Store.history` shows it.

    Attributes
    ----------
    version : int
        Number of the commit.
    time : str
        When it was made, ISO 8601, UTC.
    operation : {"create", "append", "layer", "replace", "remove", "tag", "untag", "expire"}
    key : str or None
        Idempotency key.
    n_samples, n_atoms : int
        Samples that were appended or came back, and their atoms.
    n_quarantined : int
        Samples that were put into quarantine: rejected or removed ones.
    note : str
        What the operation did, in a few words; empty if the figures say everything.
    """

    version: int
    time: str
    operation: str
    key: str | None
    n_samples: int
    n_atoms: int
    n_quarantined: int
    note: str

    @classmethod
    def of(cls, entry: Entry) -> Commit:
        """Return the line of a log entry."""
        return cls(
            version=entry.version,
            time=entry.time,
            operation=entry.operation,
            key=entry.key,
            n_samples=_total(entry, "segments", "n_samples"),
            n_atoms=_total(entry, "segments", "n_atoms"),
            n_quarantined=_total(entry, "quarantine", "n_samples"),
            note=_note(entry),
        )


def _total(entry: Entry, role: str, count: str) -> int:
    return sum(int(segment[count]) for segment in entry.body.get(role, ()))


def _note(entry: Entry) -> str:
    body = entry.body
    if entry.operation == "tag":
        some = body.get("selection")
        chosen = f", {counted(some['n_samples'], 'sample')}" if isinstance(some, dict) else ""
        return f"{body['tag']} = {body['target']}{chosen}"
    if entry.operation == "untag":
        return f"{body['tag']} withdrawn"
    if entry.operation == "remove" or (entry.operation == "replace" and "columns" in body):
        return _correction(entry)
    if entry.operation == "replace":
        n_in, n_out = (sum(len(pair[name]) for pair in body["replacements"]) for name in ("inputs", "outputs"))
        return f"{n_in} segments merged into {n_out}"
    if entry.operation == "expire":
        return f"versions before {body['before']} given up"
    if entry.operation == "layer":
        return ", ".join(sorted({teacher for layer in body["layers"] for teacher in layer["labelled"]}))
    if body.get("duplicates_skipped"):
        return f"{body['duplicates_skipped']} duplicates skipped"
    return ""


def _correction(entry: Entry) -> str:
    """Return what a removal or a reversal did."""
    body = entry.body
    n = sum(sum(item["runs"][1::2]) for item in body["replacements"])
    columns = ", ".join(map(str, body.get("columns", ())))
    if columns and entry.operation == "replace":
        done = f"{columns} of {counted(n, 'sample')} put back"
    elif columns:
        done = f"{columns} of {counted(n, 'sample')} removed"
    else:
        done = f"{counted(n, 'sample')} {'restored' if body.get('segments') else 'removed'}"
    reverts = f"version {body['reverts']} taken back, " if "reverts" in body else ""
    return f"{reverts}{done}: {body.get('reason', '')}"


@dataclass(frozen=True, slots=True)
class Record:
    """What the history and the provenance of a store need of one log entry.

    Attributes
    ----------
    commit : Commit
    provenance : dict
        Empty if the commit has none.
    """

    commit: Commit
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, entry: Entry) -> Record:
        """Return the record of a log entry."""
        notes = entry.body.get("provenance")
        return cls(Commit.of(entry), notes if isinstance(notes, dict) else {})

    def line(self) -> bytes:
        """Return the record as a line of JSON."""
        row = [getattr(self.commit, name) for name in _FIELDS]
        return json.dumps([*row, self.provenance], separators=(",", ":")).encode()

    @classmethod
    def parse(cls, line: bytes) -> Record:
        """Return the record of a line.

        Raises
        ------
        ValueError
            If it is not one.
        """
        *row, provenance = json.loads(line)
        values = dict(zip(_FIELDS, row, strict=True))
        good = isinstance(provenance, dict) and all(
            isinstance(value, _KINDS.get(name, int)) and not isinstance(value, bool) for name, value in values.items()
        )
        if not good:
            raise ValueError("not a record")
        return cls(Commit(**values), provenance)


_FIELDS = tuple(field.name for field in fields(Commit))
_KINDS: dict[str, Any] = {"time": str, "operation": str, "key": (str, type(None)), "note": str}
