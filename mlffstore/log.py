"""The log: numbered JSON entries, each created only if absent, that together say what a store holds.

`Entry` is one commit; `State` is what the entries up to some version add up to. Everything that is read from an entry
is checked here, field by field, before anything else uses it: a store may come from somebody else.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlffstore.codec import crc32c
from mlffstore.errors import ConflictError, CorruptionError, DataError, FormatError
from mlffstore.schema import FORMAT_VERSION, LABELS, REASON, STANDARD, USER_DTYPES, Axis, Column, split_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOG_FOLDER = "_log"
OPERATIONS = ("create", "append", "layer", "replace", "tag")
#: No honest entry comes near this; a larger file is not read into memory.
MAX_ENTRY_NBYTES = 64 << 20
#: Largest count that is believed of a segment: 2**40 atoms are 13 TB of positions.
_MAX_COUNT = 1 << 40
_DIGEST = re.compile(r"[0-9a-f]{32}")
_SEGMENT = re.compile(r"segments/[0-9a-f]{32}")
_LAYER = re.compile(r"layers/[0-9a-f]{32}")


def entry_path(version: int) -> str:
    """Return the path of the entry of a version."""
    return f"{LOG_FOLDER}/{version:020d}.json"


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """Where one column of a segment lies, and what must be found there."""

    folder: str
    column: Column
    rows: int
    chunk: int
    nbytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What `info` says of a segment without reading it."""

    elements: Mapping[int, int]
    """Atomic number -> number of atoms."""
    n_periodic: int
    """Samples that are periodic along any direction."""
    n_atoms_min: int
    n_atoms_max: int


@dataclass(frozen=True, slots=True)
class Segment:
    """An immutable block of whole samples: its columns, and those of the layers over it, by on-disk name."""

    path: str
    n_samples: int
    n_atoms: int
    summary: Summary
    columns: Mapping[str, StoredColumn]
    vocabulary: Mapping[str, tuple[str, ...]]

    @property
    def nbytes(self) -> int:
        """Bytes of the columns on disk."""
        return sum(stored.nbytes for stored in self.columns.values())

    @property
    def teachers(self) -> tuple[str, ...]:
        """Teachers with labels here, in the order of the columns."""
        return tuple(dict.fromkeys(who for who in (split_key(key)[1] for key in self.columns) if who))


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit.

    Attributes
    ----------
    version : int
        Its number; the first is 0.
    store : str
        UUID of the store, so that an entry of another store is recognised.
    transaction : str
        UUID of the attempt: tells a writer after an unclear failure whether the entry is its own.
    parent : str or None
        `mlffstore.codec.digest` of the file of the entry before, which makes the log a chain.
    time : str
        UTC, ISO 8601; for people, never for order.
    operation : {"create", "append", "layer", "replace", "tag"}
    key : str or None
        Idempotency key: a key occurs at most once in a log.
    body : dict
        What the operation says; see docs/format.md.
    """

    version: int
    store: str
    transaction: str
    parent: str | None
    time: str
    operation: str
    key: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the bytes of the file. The last member is the CRC-32C of everything before it."""
        document = {
            "format": FORMAT_VERSION,
            "version": self.version,
            "store": self.store,
            "transaction": self.transaction,
            "parent": self.parent,
            "time": self.time,
            "operation": self.operation,
            "key": self.key,
            **self.body,
        }
        text = json.dumps(document, separators=(",", ":"), allow_nan=False)[:-1]
        return f'{text},"crc32c":{crc32c(text.encode())}}}\n'.encode()


_ENVELOPE = ("format", "version", "store", "transaction", "parent", "time", "operation", "key", "crc32c")


def decode_entry(data: bytes, version: int, store: str | None, where: str) -> Entry:
    """Parse and check the envelope of an entry.

    Raises
    ------
    CorruptionError
        If the bytes are not what was written.
    FormatError
        If it is of a newer format, another store, or not an entry at all.
    """
    head, comma, tail = data.rpartition(b',"crc32c":')
    if not comma or not re.fullmatch(rb"\d{1,10}\}\n", tail) or int(tail[:-2]) != crc32c(head):
        raise CorruptionError(f"{where}: the log entry is damaged or was edited; restore it from a copy")
    try:
        document = json.loads(head + b"}")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: expected a JSON object, got something else ({error})") from error
    fields = _Fields(document, where)
    if fields.integer("format") > FORMAT_VERSION:
        raise FormatError(
            f"{where}: written in format version {document['format']}, this release reads up to {FORMAT_VERSION}; "
            "upgrade mlffstore"
        )
    parent = document.get("parent")
    entry = Entry(
        version=fields.integer("version"),
        store=fields.text("store"),
        transaction=fields.text("transaction"),
        parent=None if parent is None else fields.text("parent", _DIGEST),
        time=fields.text("time"),
        operation=fields.text("operation"),
        key=None if document.get("key") is None else fields.text("key"),
        body={k: v for k, v in document.items() if k not in _ENVELOPE},
    )
    if entry.version != version:
        raise CorruptionError(f"{where}: expected version {version}, got {entry.version}; the file was moved or copied")
    if store is not None and entry.store != store:
        raise CorruptionError(f"{where}: belongs to another store ({entry.store}, not {store}); restore the right file")
    if entry.operation not in OPERATIONS:
        raise FormatError(f"{where}: unknown operation {entry.operation!r}; upgrade mlffstore")
    return entry


class _Fields:
    """Checked access to the members of a JSON object."""

    def __init__(self, document: Any, where: str) -> None:
        if not isinstance(document, dict):
            raise FormatError(f"{where}: expected a JSON object, got {type(document).__name__}")
        self.document, self.where = document, where

    def _get(self, name: str, kind: type | tuple[type, ...], what: str) -> Any:
        value = self.document.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise FormatError(f"{self.where}: {name}: expected {what}, got {str(value)[:60]!r}; the store is damaged")
        return value

    def integer(self, name: str, low: int = 0, high: int = _MAX_COUNT) -> int:
        value: int = self._get(name, int, "an integer")
        if not low <= value <= high:
            raise FormatError(f"{self.where}: {name}: expected {low} to {high}, got {value}; the store is damaged")
        return value

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        value: str = self._get(name, str, "a string")
        if pattern is not None and not pattern.fullmatch(value):
            raise FormatError(f"{self.where}: {name}: unexpected value {value[:80]!r}; the store is damaged")
        return value

    def items(self, name: str) -> list[Any]:
        value: list[Any] = self._get(name, list, "a list")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = self._get(name, dict, "an object")
        return value


def known_column(key: str) -> Column | None:
    """Return the standard column that an on-disk name stands for, or None for a user column."""
    name, teacher = split_key(key)
    if teacher is not None:
        return LABELS.get(name)
    return REASON if key == "reason" else STANDARD.get(key)


def column_document(stored: StoredColumn) -> dict[str, Any]:
    """Return what the log says of a column."""
    column = stored.column
    document: dict[str, Any] = {
        "shape": [stored.rows, *column.shape],
        "dtype": column.dtype,
        "chunk": stored.chunk,
        "nbytes": stored.nbytes,
        "digest": stored.digest,
    }
    if known_column(column.name) is None:
        document |= {"axis": column.axis, "unit": column.unit, "long_name": column.long_name}
    return document


def _parse_column(key: str, value: Any, folder: str, n_samples: int, n_atoms: int, where: str) -> StoredColumn:
    where = f"{where}: {folder}/{key}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}(\.[A-Za-z0-9][A-Za-z0-9_+.-]{0,63})?", key):
        raise FormatError(f"{where}: not a column name; the store is damaged")
    fields = _Fields(value, where)
    dtype = fields.text("dtype")
    shape = fields.items("shape")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= _MAX_COUNT for n in shape) or not shape:
        raise FormatError(f"{where}: shape: expected sizes, got {str(shape)[:60]}; the store is damaged")
    column = known_column(key)
    if column is None:
        if "." in key or dtype not in USER_DTYPES or len(shape) > 8:
            raise FormatError(f"{where}: expected a known column or a numeric user column; the store is damaged")
        axis: Axis = "sample" if fields.text("axis", re.compile("sample|atom")) == "sample" else "atom"
        inner = tuple(f"{key}_dim{i}" for i in range(1, len(shape)))
        column = Column(key, axis, inner, tuple(shape[1:]), dtype, fields.text("unit"), fields.text("long_name"))
    elif dtype != column.dtype:
        if not (key == "positions" and dtype == "float64"):
            raise FormatError(f"{where}: expected dtype {column.dtype}, got {dtype}; the store is damaged")
        column = column.with_dtype(dtype)
    rows = n_samples if column.axis == "sample" else n_atoms
    if shape != [rows, *column.shape]:
        raise FormatError(f"{where}: expected shape {[rows, *column.shape]}, got {shape}; the store is damaged")
    column = replace(column, name=key)
    return StoredColumn(
        folder=folder,
        column=column,
        rows=rows,
        chunk=fields.integer("chunk", 1, max(rows, 1)),
        nbytes=fields.integer("nbytes"),
        digest=fields.text("digest", _DIGEST),
    )


def segment_document(segment: Segment) -> dict[str, Any]:
    """Return what the log says of a segment."""
    return {
        "path": segment.path,
        "n_samples": segment.n_samples,
        "n_atoms": segment.n_atoms,
        "summary": {
            "elements": {str(z): n for z, n in segment.summary.elements.items()},
            "n_periodic": segment.summary.n_periodic,
            "n_atoms_min": segment.summary.n_atoms_min,
            "n_atoms_max": segment.summary.n_atoms_max,
        },
        "columns": {key: column_document(stored) for key, stored in segment.columns.items()},
        "vocabulary": {name: list(words) for name, words in segment.vocabulary.items()},
    }


def parse_segment(value: Any, where: str) -> Segment:
    """Check and return a segment of a log entry."""
    fields = _Fields(value, where)
    path = fields.text("path", _SEGMENT)
    n_samples, n_atoms = fields.integer("n_samples", 1), fields.integer("n_atoms", 1)
    columns = {
        key: _parse_column(key, column, path, n_samples, n_atoms, where)
        for key, column in fields.mapping("columns").items()
    }
    absent = set(STANDARD) - set(columns)
    if absent or n_atoms < n_samples:
        raise FormatError(f"{where}: {path}: columns missing ({', '.join(sorted(absent))}) or counts that cannot be")
    vocabulary = {}
    for name, words in fields.mapping("vocabulary").items():
        if not isinstance(words, list) or len(words) > 65536 or not all(isinstance(word, str) for word in words):
            raise FormatError(f"{where}: vocabulary of {name!r}: expected strings; the store is damaged")
        vocabulary[name] = tuple(words)
    return Segment(path, n_samples, n_atoms, _parse_summary(fields), columns, vocabulary)


def _parse_summary(fields: _Fields) -> Summary:
    summary = _Fields(fields.mapping("summary"), f"{fields.where}: summary")
    elements = _Fields(summary.mapping("elements"), f"{summary.where}: elements")
    if not all(re.fullmatch(r"[1-9]\d{0,2}", z) for z in elements.document):
        raise FormatError(f"{elements.where}: expected atomic numbers; the store is damaged")
    return Summary(
        elements={int(z): elements.integer(z) for z in elements.document},
        n_periodic=summary.integer("n_periodic"),
        n_atoms_min=summary.integer("n_atoms_min"),
        n_atoms_max=summary.integer("n_atoms_max"),
    )


def layer_document(segment: str, path: str, columns: Mapping[str, StoredColumn]) -> dict[str, Any]:
    """Return what the log says of a layer over one segment."""
    return {
        "segment": segment,
        "path": path,
        "columns": {key: column_document(stored) for key, stored in columns.items()},
    }


@dataclass(slots=True)
class State:
    """What the entries up to `version` add up to.

    It grows by `apply`; snapshots copy what they need from it, so growing never changes a snapshot.
    """

    store: str
    precision: str
    settings: Mapping[str, Any]
    version: int = -1
    parent: str | None = None
    segments: list[Segment] = field(default_factory=list)
    quarantine: list[Segment] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)
    teachers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    user: dict[str, Column] = field(default_factory=dict)

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
        fields = _Fields(dict(entry.body), where)
        if entry.operation == "append":
            self._append(fields)
        elif entry.operation == "layer":
            self._layer(fields)
        elif entry.operation == "replace":
            raise FormatError(f"{where}: compacted by a newer mlffstore; upgrade to read it")
        elif entry.operation == "tag":
            target = fields.integer("target", 0, entry.version - 1)
            self.tags[fields.text("tag")] = target
        if entry.key is not None:
            self.keys[entry.key] = entry.version
        self.version, self.parent = entry.version, own

    def _append(self, fields: _Fields) -> None:
        segments = [parse_segment(value, fields.where) for value in fields.items("segments")]
        rejected = [parse_segment(value, fields.where) for value in fields.document.get("quarantine", [])]
        for who, info in fields.document.get("teachers", {}).items():
            self.teachers.setdefault(who, info if isinstance(info, dict) else {})
        for segment in segments:
            for who in segment.teachers:
                self.teachers.setdefault(who, {})
            for key, stored in segment.columns.items():
                if known_column(key) is None:
                    self.user.setdefault(key, stored.column)
        self.segments += segments
        self.quarantine += rejected

    def _layer(self, fields: _Fields) -> None:
        by_path = {segment.path: i for i, segment in enumerate(self.segments)}
        for who, info in fields.document.get("teachers", {}).items():
            self.teachers.setdefault(who, info if isinstance(info, dict) else {})
        for value in fields.items("layers"):
            layer = _Fields(value, fields.where)
            path, target = layer.text("path", _LAYER), layer.text("segment", _SEGMENT)
            if target not in by_path:
                raise FormatError(f"{fields.where}: a layer over {target}, which is not in this version")
            segment = self.segments[by_path[target]]
            columns = {
                key: _parse_column(key, column, path, segment.n_samples, segment.n_atoms, fields.where)
                for key, column in layer.mapping("columns").items()
            }
            taken = set(columns) & set(segment.columns)
            if taken:
                raise CorruptionError(f"{fields.where}: {target} has {', '.join(sorted(taken))} already")
            self.segments[by_path[target]] = replace(segment, columns={**segment.columns, **columns})
            for key, stored in columns.items():
                who = split_key(key)[1]
                if who:
                    self.teachers.setdefault(who, {})
                elif known_column(key) is None:
                    self.user.setdefault(key, stored.column)

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
            if before is not None and replace(before, long_name="") != replace(column, long_name=""):
                raise DataError(
                    f"user column {column.name!r}: expected {before.dtype} {before.dims} in {before.unit!r} as before, "
                    f"got {column.dtype} {column.dims} in {column.unit!r}; convert it or rename it"
                )
