"""What the entries of a log up to some version add up to."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlffstore.errors import ConflictError, CorruptionError, FormatError
from mlffstore.format.fields import Fields
from mlffstore.format.records import SEGMENT, Layer, Segment, parse_layer, parse_segment, user_columns
from mlffstore.format.segment_list import SegmentList, Tables
from mlffstore.format.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlffstore.data.schema import Column
    from mlffstore.format.entry import Entry

#: Entries that a state keeps.
RECENT = 100


@dataclass(slots=True)
class State:
    """What the entries up to `version` add up to. It grows by `apply`; snapshots copy what they need from it."""

    store: str
    precision: str
    settings: Mapping[str, Any]
    version: int = -1
    parent: str | None = None
    segments: SegmentList = field(default_factory=SegmentList)
    quarantine: SegmentList = field(default_factory=SegmentList)
    totals: Totals = field(default_factory=Totals)
    rejected: Totals = field(default_factory=Totals)
    keys: dict[str, int] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)
    teachers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    user: dict[str, Column] = field(default_factory=dict)
    #: Versions before this one are gone, but for those in `kept`.
    expired: int = 0
    kept: tuple[int, ...] = ()
    #: The entries that were applied last, for the history.
    recent: deque[Entry] = field(default_factory=lambda: deque(maxlen=RECENT))
    #: Shared values of the checkpoint that this state began with, and of the next one.
    tables: Tables = field(default_factory=Tables)

    def apply(self, entry: Entry, entry_digest: str, where: str) -> None:
        """Add the next entry, whose file has the digest `entry_digest`.

        Raises
        ------
        CorruptionError
            If it does not follow the entry before.
        FormatError
            If its body is not what its operation needs.
        """
        if entry.parent != self.parent:
            raise CorruptionError(f"{where}: does not follow the entry before it; an entry was replaced or edited")
        fields = Fields(dict(entry.body), where)
        self.segments.now = self.quarantine.now = entry.version
        if entry.operation == "append":
            self._append(fields)
        elif entry.operation == "layer":
            self._layer(fields)
        elif entry.operation == "replace":
            self._replace(fields)
        elif entry.operation == "tag":
            target = fields.integer("target", 0, entry.version - 1)
            if not self.retains(target):
                raise FormatError(f"{where}: a tag of version {target}, which had expired; the store is damaged")
            self.tags[fields.text("tag")] = target
        elif entry.operation == "expire":
            before = fields.integer("before", self.expired, entry.version)
            self.kept = tuple(sorted({version for version in self.tags.values() if version < before}))
            self.expired = before
        if entry.key is not None:
            self.keys[entry.key] = entry.version
        self.version, self.parent = entry.version, entry_digest
        self.recent.append(entry)

    def retains(self, version: int) -> bool:
        """Return whether a version may still be read."""
        return version >= self.expired or version in self.kept

    def _append(self, fields: Fields) -> None:
        segments = [parse_segment(value, fields.where) for value in fields.items("segments")]
        rejected = [parse_segment(value, fields.where) for value in fields.document.get("quarantine", [])]
        self._learn_teachers(fields)
        for segment in segments:
            if self.segments.find(segment.path) is not None:
                raise FormatError(f"{fields.where}: {segment.path} occurs twice; the store is damaged")
            for teacher in segment.teachers:
                self.teachers.setdefault(teacher, {})
            self._learn_user(segment)
            self.segments.append(segment)
            self.totals.add(segment)
        for segment in rejected:
            self.quarantine.append(segment)
            self.rejected.add(segment)

    def _learn_teachers(self, fields: Fields) -> None:
        about = fields.mapping("teachers") if "teachers" in fields.document else {}
        for teacher, info in about.items():
            if not self.teachers.get(teacher):  # a teacher may first be known by name alone
                self.teachers[teacher] = info if isinstance(info, dict) else {}

    def _learn_user(self, part: Segment | Layer) -> None:
        for name, column in user_columns(part.columns).items():
            self.user.setdefault(name, column)

    def _layer(self, fields: Fields) -> None:
        def find(path: str) -> Segment | None:
            i = self.segments.find(path)
            return None if i is None else self.segments[i]

        self._learn_teachers(fields)
        for value in fields.items("layers"):
            layer, below = parse_layer(value, find, fields.where)
            above = layer.over(below)
            for teacher in above.teachers:
                self.teachers.setdefault(teacher, {})
            self._learn_user(layer)
            i = self.segments.find(below.path)
            assert i is not None
            self.segments.splice(i, i + 1, [above])
            self.totals.add_layer(layer, below)

    def _replace(self, fields: Fields) -> None:
        for value in fields.items("replacements"):
            item = Fields(value, fields.where)
            inputs = item.items("inputs")
            outputs = [parse_segment(document, fields.where) for document in item.items("outputs")]
            if not inputs or not all(isinstance(path, str) and SEGMENT.fullmatch(path) for path in inputs):
                raise FormatError(f"{fields.where}: inputs: expected paths of segments; the store is damaged")
            target = self.segments if self.segments.find(inputs[0]) is not None else self.quarantine
            start = target.find(inputs[0])
            stop = (start or 0) + len(inputs)
            if start is None or target.paths[start:stop] != inputs:
                raise FormatError(f"{fields.where}: replaces segments that are not there; the store is damaged")
            old = target[start:stop]
            if any(
                sum(getattr(segment, name) for segment in old) != sum(getattr(segment, name) for segment in outputs)
                for name in ("n_samples", "n_atoms")
            ):
                raise FormatError(f"{fields.where}: replaces segments by others of another size; the store is damaged")
            (self.totals if target is self.segments else self.rejected).exchange(old, outputs)
            target.splice(start, stop, outputs)

    def check_append(self, teachers: Mapping[str, Mapping[str, Any]], user: Iterable[Column]) -> None:
        """Raise if a batch with these teachers and user columns does not fit what the store holds.

        Raises
        ------
        ConflictError
            If a teacher of that name has another fingerprint: its energies would be mixed with another model's.
        DataError
            If a user column has another dtype, shape, axis or unit than before.
        """
        for teacher, info in teachers.items():
            known, new = self.teachers.get(teacher, {}).get("fingerprint"), info.get("fingerprint")
            if known is not None and new is not None and known != new:
                raise ConflictError(
                    f"teacher {teacher!r}: the store holds labels of {known!r}, these are of {new!r}; "
                    "store them under another teacher name, their energies must not be mixed"
                )
        for column in user:
            self.user.get(column.name, column).require_same_kind(column)
