"""What the entries of a log up to some version add up to."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mlffstore.data.schema import described_properties, is_mask, split_key
from mlffstore.errors import ConflictError, CorruptionError, DataError, FormatError
from mlffstore.format.commit import Record
from mlffstore.format.fields import Fields
from mlffstore.format.kept_selection import check_selection
from mlffstore.format.records import (
    Layer,
    Segment,
    is_user,
    other_labels,
    parse_layer,
    parse_segment,
    user_columns,
)
from mlffstore.format.replacement import Replacement, column_names, contents, parse_replacements
from mlffstore.format.segment_list import SegmentList, Tables
from mlffstore.format.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Column
    from mlffstore.format.entry import Entry

#: Records of entries that a state keeps.
RECENT = 100


Role = Literal["segments", "quarantine"]


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
    #: Those of the tags that name some samples of their version, with the versions of the entries that say which.
    selections: dict[str, int] = field(default_factory=dict)
    teachers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    user: dict[str, Column] = field(default_factory=dict)
    #: The labels beside energy, forces and stress, by on-disk name.
    labels: dict[str, Column] = field(default_factory=dict)
    #: Versions before this one are gone, but for those in `kept`.
    expired: int = 0
    kept: tuple[int, ...] = ()
    #: Size of the entries.
    nbytes_log: int = 0
    #: Records of the entries that were applied last, for the history.
    recent: deque[Record] = field(default_factory=lambda: deque(maxlen=RECENT))
    #: Shared values of the checkpoint that this state began with, and of the next one.
    tables: Tables = field(default_factory=Tables)
    #: The last version that may have removed samples; of a state that was read from a checkpoint, its own version.
    last_removal: int = field(default=-1, compare=False)

    def __post_init__(self) -> None:
        self.last_removal = self.version

    def copy(self) -> State:
        """Return a copy that does not change with this one; the segments are shared."""
        mutable = (
            "segments",
            "quarantine",
            "totals",
            "rejected",
            "keys",
            "tags",
            "selections",
            "teachers",
            "user",
            "labels",
            "recent",
        )
        return replace(self, **{name: getattr(self, name).copy() for name in mutable})

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
            if "selection" in fields.document:
                check_selection(fields)
                self.selections[fields.text("tag")] = entry.version
        elif entry.operation == "remove":
            self._remove(fields)
            self.last_removal = entry.version
        elif entry.operation == "untag":
            if self.tags.pop(fields.text("tag"), None) is None:
                raise FormatError(f"{where}: withdraws a tag that is not there; the store is damaged")
            self.selections.pop(fields.text("tag"), None)
            self.kept = tuple(version for version in self.kept if version in self.tags.values())
        elif entry.operation == "expire":
            before = fields.integer("before", self.expired, entry.version)
            self.kept = tuple(sorted({version for version in self.tags.values() if version < before}))
            self.expired = before
        if entry.key is not None:
            self.keys[entry.key] = entry.version
        self.version, self.parent = entry.version, entry_digest
        self.nbytes_log += entry.nbytes
        self.recent.append(Record.of(entry))

    def retains(self, version: int) -> bool:
        """Return whether a version may still be read."""
        return version >= self.expired or version in self.kept

    def _append(self, fields: Fields) -> None:
        segments = [parse_segment(value, fields.where) for value in fields.items("segments")]
        rejected = _optional_segments(fields, "quarantine")
        self._learn_teachers(fields)
        self._add(segments, rejected, fields.where)

    def _add(self, segments: Iterable[Segment], rejected: Iterable[Segment], where: str) -> None:
        """Add segments at the end of the accepted and of the rejected samples."""
        for segment in segments:
            self._check_new(segment, where)
            self._learn(segment)
            self.segments.append(segment)
            self.totals.add(segment)
        for segment in rejected:
            self._check_new(segment, where)
            self.quarantine.append(segment)
            self.rejected.add(segment)

    def _check_new(self, segment: Segment, where: str) -> None:
        if self.segments.find(segment.path) is not None or self.quarantine.find(segment.path) is not None:
            raise FormatError(f"{where}: {segment.path} occurs twice; the store is damaged")

    def _learn(self, segment: Segment) -> None:
        """Note the teachers and user columns of accepted samples."""
        for teacher in segment.teachers:
            self.teachers.setdefault(teacher, {})
        self._learn_columns(segment)

    def _learn_teachers(self, fields: Fields) -> None:
        about = fields.mapping("teachers") if "teachers" in fields.document else {}
        for teacher, info in about.items():
            if not self.teachers.get(teacher):  # a teacher may first be known by name alone
                self.teachers[teacher] = info if isinstance(info, dict) else {}

    def _learn_columns(self, part: Segment | Layer) -> None:
        for name, column in user_columns(part.columns).items():
            self.user.setdefault(name, column)
        for key, column in other_labels(part.columns).items():
            if not self.labels.setdefault(key, column).same_kind(column):
                raise FormatError(f"{part.path}: {key}: of another kind than in segments before; the store is damaged")

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
            self._learn_columns(layer)
            i = self.segments.find(below.path)
            assert i is not None
            self.segments.splice(i, i + 1, [above])
            self.totals.add_layer(layer, below)

    def _replace(self, fields: Fields) -> None:
        self._learn_teachers(fields)
        columns = _columns(fields)  # of which samples got values back
        for role, old, replacement in self._exchange(fields, with_runs=columns is not None):
            if _size(old) != _size(replacement.outputs) or (
                columns is not None and replacement.n_samples != _size(old)[0]
            ):
                raise FormatError(f"{fields.where}: replaces segments by others of another size; the store is damaged")
            (self.totals if role == "segments" else self.rejected).exchange(old, replacement.outputs)

    def _exchange(self, fields: Fields, *, with_runs: bool) -> list[tuple[Role, list[Segment], Replacement]]:
        """Put segments in the place of others; return for each replacement which list has them and what is gone."""
        out: list[tuple[Role, list[Segment], Replacement]] = []
        places: list[tuple[int, int, SegmentList, list[Segment]]] = []
        for replacement in parse_replacements(fields, with_runs=with_runs):
            inputs = replacement.inputs
            role: Role = "segments" if self.segments.find(inputs[0]) is not None else "quarantine"
            target = self.segments if role == "segments" else self.quarantine
            start = target.find(inputs[0])
            stop = (start or 0) + len(inputs)
            if start is None or target.paths[start:stop] != inputs:
                raise FormatError(f"{fields.where}: replaces segments that are not there; the store is damaged")
            for segment in replacement.outputs:
                self._check_new(segment, fields.where)
                if role == "segments":
                    self._learn(segment)
            out.append((role, target[start:stop], replacement))
            places.append((start, stop, target, replacement.outputs))
        for start, stop, target, outputs in sorted(places, key=lambda place: -place[0]):  # the last first: places stay
            target.splice(start, stop, outputs)
        return out

    def _remove(self, fields: Fields) -> None:
        """Move samples from the accepted to the rejected ones or back, or take columns off accepted samples."""
        where = fields.where
        if not fields.text("reason"):
            raise FormatError(f"{where}: reason: expected a text; the store is damaged")
        columns = _columns(fields)
        segments, rejected = _optional_segments(fields, "segments"), _optional_segments(fields, "quarantine")
        self._learn_teachers(fields)
        gone: dict[Role, list[Segment]] = {"segments": [], "quarantine": []}
        moved: dict[Role, Counter[str]] = {"segments": Counter(), "quarantine": Counter()}
        for role, old, replacement in self._exchange(fields, with_runs=True):
            left = contents(old)
            left.subtract(contents(replacement.outputs))
            if (
                replacement.n_samples != sum(segment.n_samples for segment in old)
                or left["samples"] != (replacement.n_touched if columns is None else 0)
                or not column_names(replacement.outputs) <= column_names(old)
                or (columns is not None and role == "quarantine")
            ):
                raise FormatError(f"{where}: segments that do not hold what they say; the store is damaged")
            moved[role].update(left)
            gone[role] += old
            for segment in replacement.outputs:
                (self.totals if role == "segments" else self.rejected).add(segment)
        if moved["segments"] != contents(rejected) or moved["quarantine"] != contents(segments):
            raise FormatError(f"{where}: samples that appear or vanish; the store is damaged")
        self._add(segments, rejected, where)
        self.totals.remove(gone["segments"], self.segments)
        self.rejected.remove(gone["quarantine"], self.quarantine)
        self._forget(gone["segments"])

    def _forget(self, gone: Iterable[Segment]) -> None:
        """Forget the user columns, and what is known of the teachers, that no accepted sample has any more.

        A column may then be added with another unit, and labels of another model under the same name. The name of the
        teacher stays, since rejected samples may have labels of it.
        """
        columns = column_names(gone)
        user = {key for key in columns if key in self.user or key in self.labels}
        teachers = {teacher for key in columns if not is_mask(key) and (teacher := split_key(key)[1]) is not None}
        teachers = {teacher for teacher in teachers if not self.totals.labelled.get(teacher)}
        for segment in self.segments:
            if not user and not teachers:
                return
            user -= set(segment.columns)
            teachers -= set(segment.teachers)
        for name in user:
            self.user.pop(name, None)
            self.labels.pop(name, None)
        for teacher in teachers:
            self.teachers[teacher] = {}

    @property
    def properties(self) -> dict[str, Property]:
        """The properties of labels that are not built in, by name."""
        return described_properties(self.labels.values())

    def check_append(
        self, teachers: Mapping[str, Mapping[str, Any]], user: Iterable[Column], labels: Iterable[Column] = ()
    ) -> None:
        """Raise if a batch with these teachers, user columns and labels does not fit what the store holds.

        Raises
        ------
        ConflictError
            If a teacher of that name has another fingerprint: its energies would be mixed with another model's.
        DataError
            If a user column or a property has another dtype, shape, axis or unit than before, or one name would stand
            for both.
        """
        for teacher, info in teachers.items():
            known, new = self.teachers.get(teacher, {}).get("fingerprint"), info.get("fingerprint")
            if known is not None and new is not None and known != new:
                raise ConflictError(
                    f"teacher {teacher!r}: the store holds labels of {known!r}, these are of {new!r}; "
                    "store them under another teacher name, their energies must not be mixed"
                )
        labels, user = list(labels), list(user)
        known = self.properties
        names = {split_key(key)[0] for key in self.labels}
        for column in labels:
            self.labels.get(column.name, column).require_same_kind(column)
            if (spec := column.quantity) is not None:
                known.get(spec.name, spec).require_same_kind(spec)
                if spec.name in self.user:
                    raise DataError(
                        f"labels {spec.name!r}: the store has a user column of this name; rename the property"
                    )
        names |= {split_key(column.name)[0] for column in labels}
        for column in user:
            self.user.get(column.name, column).require_same_kind(column)
            if column.name in names:
                raise DataError(f"user column {column.name!r}: the store has labels of this name; rename the column")


def _optional_segments(fields: Fields, role: str) -> list[Segment]:
    """Return the segments of a member that may be absent."""
    return [parse_segment(value, fields.where) for value in (fields.items(role) if role in fields.document else ())]


def _size(segments: Iterable[Segment]) -> tuple[int, int]:
    """Return the numbers of samples and atoms."""
    pairs = [(segment.n_samples, segment.n_atoms) for segment in segments]
    return sum(n for n, _ in pairs), sum(n for _, n in pairs)


def _columns(fields: Fields) -> list[str] | None:
    """Return the names of the columns of which samples lose or get values, or None."""
    if "columns" not in fields.document:
        return None
    columns = fields.items("columns")
    if not all(isinstance(key, str) and _removable(key) for key in columns):
        raise FormatError(f"{fields.where}: columns: expected labels or user columns; the store is damaged")
    return columns


def _removable(key: str) -> bool:
    """Return whether an on-disk name is that of a label or user column: samples can do without."""
    return not is_mask(key) and (split_key(key)[1] is not None or is_user(key))
