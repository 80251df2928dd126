"""What the entries of a log up to some version add up to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

from mlffstore.errors import ConflictError, CorruptionError, DataError, FormatError
from mlffstore.format.records import SEGMENT, Fields, Layer, Segment, parse_layer, parse_segment, user_columns

if TYPE_CHECKING:
    from mlffstore.data.schema import Column
    from mlffstore.format.log import Entry


class SegmentList(Sequence[Segment]):
    """Segments in order, parsed when they are first looked at: a store of 20,000 segments opens at once.

    Parameters
    ----------
    lines : iterable of bytes, optional
        The line of a checkpoint of each segment, which `unpack` parses.
    n_samples, n_atoms : iterable of int, optional
        Sizes of the segments, known without parsing.
    paths : iterable of str, optional
    unpack : callable, optional
    """

    __slots__ = ("_index", "_items", "_lines", "_unpack", "n_atoms", "n_samples", "paths")

    def __init__(
        self,
        lines: Iterable[bytes | None] = (),
        n_samples: Iterable[int] = (),
        n_atoms: Iterable[int] = (),
        paths: Iterable[str] = (),
        unpack: Callable[[bytes], Segment] | None = None,
    ) -> None:
        self._lines, self._unpack = list(lines), unpack
        self._items: list[Segment | None] = [None] * len(self._lines)
        self._index: dict[str, int] | None = None
        self.n_samples, self.n_atoms, self.paths = list(n_samples), list(n_atoms), list(paths)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, item: int) -> Segment: ...
    @overload
    def __getitem__(self, item: slice) -> list[Segment]: ...
    def __getitem__(self, item: int | slice) -> Segment | list[Segment]:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        found = self._items[item]
        if found is None:
            line = self._lines[item]
            assert self._unpack is not None
            assert line is not None
            found = self._unpack(line)
            if (found.path, found.n_samples, found.n_atoms) != (
                self.paths[item],
                self.n_samples[item],
                self.n_atoms[item],
            ):
                raise FormatError(f"{found.path}: the checkpoint contradicts itself; delete the folder _checkpoint")
            self._items[item] = found
        return found

    def lines(self, pack: Callable[[Segment], bytes]) -> list[bytes]:
        """Return the line of every segment; `pack` makes those that are not known yet."""
        for i, line in enumerate(self._lines):
            if line is None:
                self._lines[i] = pack(self[i])
        return [line for line in self._lines if line is not None]

    def copy(self) -> SegmentList:
        """Return a list of its own; the segments are shared."""
        other = SegmentList()
        other._lines, other._items, other._unpack = list(self._lines), list(self._items), self._unpack
        other.n_samples, other.n_atoms, other.paths = list(self.n_samples), list(self.n_atoms), list(self.paths)
        return other

    def find(self, path: str) -> int | None:
        """Return the place of a segment, or None."""
        if self._index is None:
            self._index = {name: i for i, name in enumerate(self.paths)}
        return self._index.get(path)

    def append(self, segment: Segment) -> None:
        """Add a segment at the end."""
        if self._index is not None:
            self._index[segment.path] = len(self._items)
        self._items.append(segment)
        self._lines.append(None)
        self.paths.append(segment.path)
        self.n_samples.append(segment.n_samples)
        self.n_atoms.append(segment.n_atoms)

    def splice(self, start: int, stop: int, segments: Sequence[Segment]) -> None:
        """Put segments in the place of others."""
        paths = [segment.path for segment in segments]
        if self.paths[start:stop] != paths:
            self._index = None
        self._items[start:stop] = segments
        self._lines[start:stop] = [None] * len(segments)
        self.paths[start:stop] = paths
        self.n_samples[start:stop] = [segment.n_samples for segment in segments]
        self.n_atoms[start:stop] = [segment.n_atoms for segment in segments]


class Tables:
    """What many segments share, each value kept once and named by its number; numbers never change."""

    def __init__(self, rows: Iterable[Any] = ()) -> None:
        self.rows = list(rows)
        self._numbers = {json.dumps(row): i for i, row in enumerate(self.rows)}

    def number(self, value: Any) -> int:
        """Return the number of a JSON value, adding it if it is new."""
        text = json.dumps(value)
        if text not in self._numbers:
            self.rows.append(value)  # first, so that an interrupt leaves no number without its row
            self._numbers[text] = len(self.rows) - 1
        return self._numbers[text]


@dataclass(slots=True)
class Totals:
    """Sums over segments, kept up to date commit by commit, so that nobody has to walk all of them."""

    elements: dict[int, int] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    n_periodic: int = 0
    n_atoms_min: int = 0
    n_atoms_max: int = 0
    nbytes: int = 0
    nbytes_raw: int = 0

    def add(self, segment: Segment) -> None:
        """Count one more segment."""
        summary = segment.summary
        for z, n in summary.elements.items():
            self.elements[z] = self.elements.get(z, 0) + n
        self.n_periodic += summary.n_periodic
        self.n_atoms_min = min(self.n_atoms_min or summary.n_atoms_min, summary.n_atoms_min)
        self.n_atoms_max = max(self.n_atoms_max, summary.n_atoms_max)
        self._add(segment, summary.labelled)

    def _add(self, part: Segment | Layer, labelled: Mapping[str, int], sign: int = 1) -> None:
        for who, n in labelled.items():
            self.labelled[who] = self.labelled.get(who, 0) + sign * n
        for stored in part.columns.values():
            self.nbytes += sign * stored.nbytes
            self.nbytes_raw += sign * stored.rows * stored.column.row_nbytes

    def add_layer(self, layer: Layer, below: Segment) -> None:
        """Count the columns of a layer over a segment."""
        before = below.summary.labelled
        self._add(layer, {teacher: n - before.get(teacher, 0) for teacher, n in layer.labelled.items()})

    def exchange(self, old: Iterable[Segment], new: Iterable[Segment]) -> None:
        """Count the same samples in other segments."""
        for segment in old:
            self._add(segment, segment.summary.labelled, -1)
        for segment in new:
            self._add(segment, segment.summary.labelled)

    def copy(self) -> Totals:
        """Return a copy that does not change with this one."""
        return replace(self, elements=dict(self.elements), labelled=dict(self.labelled))


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
    #: Of the checkpoint that this state began with, and of the next one.
    tables: Tables = field(default_factory=Tables)

    def apply(self, entry: Entry, own: str, where: str) -> None:
        """Add the next entry, whose file has the digest `own`.

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
        self.version, self.parent = entry.version, own

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
            for who in segment.teachers:
                self.teachers.setdefault(who, {})
            self._learn_user(segment)
            self.segments.append(segment)
            self.totals.add(segment)
        for segment in rejected:
            self.quarantine.append(segment)
            self.rejected.add(segment)

    def _learn_teachers(self, fields: Fields) -> None:
        about = fields.mapping("teachers") if "teachers" in fields.document else {}
        for who, info in about.items():
            if not self.teachers.get(who):  # a teacher may first be known by name alone
                self.teachers[who] = info if isinstance(info, dict) else {}

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
            for who in above.teachers:
                self.teachers.setdefault(who, {})
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
            held = self.segments if self.segments.find(inputs[0]) is not None else self.quarantine
            start = held.find(inputs[0])
            stop = (start or 0) + len(inputs)
            if start is None or held.paths[start:stop] != inputs:
                raise FormatError(f"{fields.where}: replaces segments that are not there; the store is damaged")
            old = held[start:stop]
            if any(
                sum(getattr(segment, name) for segment in old) != sum(getattr(segment, name) for segment in outputs)
                for name in ("n_samples", "n_atoms")
            ):
                raise FormatError(f"{fields.where}: replaces segments by others of another size; the store is damaged")
            (self.totals if held is self.segments else self.rejected).exchange(old, outputs)
            held.splice(start, stop, outputs)

    def check_append(self, teachers: Mapping[str, Mapping[str, Any]], user: Iterable[Column]) -> None:
        """Raise if a batch with these teachers and user columns does not fit what the store holds.

        Raises
        ------
        ConflictError
            If a teacher of that name has another fingerprint: its energies would be mixed with another model's.
        DataError
            If a user column has another dtype, shape, axis or unit than before.
        """
        for who, info in teachers.items():
            known, new = self.teachers.get(who, {}).get("fingerprint"), info.get("fingerprint")
            if known is not None and new is not None and known != new:
                raise ConflictError(
                    f"teacher {who!r}: the store holds labels of {known!r}, these are of {new!r}; "
                    "store them under another teacher name, their energies must not be mixed"
                )
        for column in user:
            before = self.user.get(column.name)
            if before is not None and not before.same_kind(column):
                raise DataError(
                    f"user column {column.name!r}: expected {before.dtype} {before.dims} in {before.unit!r} as before, "
                    f"got {column.dtype} {column.dims} in {column.unit!r}; convert it or rename it"
                )
