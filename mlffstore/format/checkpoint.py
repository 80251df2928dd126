"""Checkpoints: the state as of a version in one file, so that opening does not read the whole log.

They only save time: any may be missing, and one that does not fit the log is ignored. A checkpoint is a JSON
document with one line for each segment, so that a line is parsed only when its segment is looked at. The names, types and
units of columns repeat in every segment and are kept once.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from mlffstore.data.schema import FORMAT_VERSION, Column
from mlffstore.errors import CorruptionError, FormatError, MlffstoreError
from mlffstore.format.codec import crc32c
from mlffstore.format.fields import MAX_COUNT, Fields
from mlffstore.format.records import (
    SEGMENT,
    Segment,
    StoredFile,
    column_document,
    known_column,
    parse_column,
    parse_layer,
    parse_segment,
    summary_document,
)
from mlffstore.format.segment_list import SegmentList, Tables
from mlffstore.format.state import State
from mlffstore.format.totals import Totals

if TYPE_CHECKING:
    from mlffstore.storage import Storage

FOLDER = "_checkpoint"
#: Names the newest checkpoint. It may be old or missing.
HINT = f"{FOLDER}/last.json"
#: Commits between checkpoints, and between those that stay for reading old versions.
EVERY, STAYING = 100, 1000
_MAX_NBYTES = 4 << 30


def due(version: int) -> bool:
    """Return whether the writer of this version writes a checkpoint."""
    return (version + 1) % EVERY == 0


def wanted(version: int, last: int) -> bool:
    """Return whether a checkpoint helps while `last` is the last version: one of the newest, or a staying one."""
    return version > last - 2 * EVERY or (version + 1) % STAYING == 0


def path_of(version: int) -> str:
    """Return the path of the checkpoint of a version."""
    return f"{FOLDER}/{version:020d}.json"


def save(storage: Storage, state: State) -> None:
    """Write the checkpoint of a state, point the hint at it, and remove one that is not needed any more."""
    storage.replace(path_of(state.version), encode(state))
    storage.replace(HINT, _seal({"version": state.version}))
    old = state.version - 2 * EVERY
    if old >= 0 and not wanted(old, state.version):
        storage.delete([path_of(old)])


def newest(storage: Storage) -> int:
    """Return the version of the newest checkpoint according to the hint. Raise if there is none or it is damaged."""
    try:
        return Fields(_unseal(storage.read(HINT, 0, 4096), HINT), HINT).integer("version")
    except ValueError as error:
        raise CorruptionError(f"{HINT}: not a JSON document; it may be deleted, the log has everything") from error


def load(storage: Storage, empty: State, at_most: int | None = None) -> State | None:
    """Return the state of the newest readable checkpoint that is not newer than `at_most`, or None."""
    try:
        version = newest(storage)
        if at_most is not None and version > at_most:
            version = (at_most + 1) // STAYING * STAYING - 1
            if version < 0:
                return None
        path = path_of(version)
        return decode(storage.read(path, 0, _MAX_NBYTES), version, empty, f"{storage.url}/{path}")
    except (OSError, MlffstoreError):
        return None


def _seal(document: dict[str, Any]) -> bytes:
    """Return JSON whose last member is the CRC-32C of the bytes before it, as in the log."""
    text = json.dumps(document, separators=(",", ":"))[:-1].encode()
    return text + b',"crc32c":%d}\n' % crc32c(text)


def _unseal(data: bytes, where: str) -> dict[str, Any]:
    """Return the document that `_seal` sealed, after checking it."""
    document = json.loads(_checked_bytes(data, where) + b"}")
    if not isinstance(document, dict):
        raise FormatError(f"{where}: expected a JSON object")
    return document


def _checked_bytes(data: bytes, where: str) -> bytes:
    head, comma, tail = data.rpartition(b',"crc32c":')
    if not comma or tail != b"%d}\n" % crc32c(head):
        raise CorruptionError(f"{where}: the checkpoint is damaged; it may be deleted, the log has everything")
    return head


# -- writing -----------------------------------------------------------------------------------------------------


def encode(state: State) -> bytes:
    """Return the bytes of a checkpoint."""
    tables = state.tables
    lines = {role: getattr(state, role).lines(partial(_line, tables=tables)) for role in ("segments", "quarantine")}
    document = {
        "format": FORMAT_VERSION,
        "store": state.store,
        "version": state.version,
        "parent": state.parent,
        "keys": state.keys,
        "tags": state.tags,
        "teachers": state.teachers,
        "user": {name: _user_document(column) for name, column in state.user.items()},
        "expired": state.expired,
        "kept": state.kept,
        "totals": {role: _totals_document(totals) for role, totals in _totals(state).items()},
        "tables": tables.rows,
        "sizes": {
            role: [getattr(state, role).n_samples, getattr(state, role).n_atoms] for role in ("segments", "quarantine")
        },
    }
    text = json.dumps(document, separators=(",", ":")).encode()[:-1]
    for role, rows in lines.items():
        text += b',"%s":[\n%s\n]' % (role.encode(), b",\n".join(rows))
    return text + b',"crc32c":%d}\n' % crc32c(text)


def _totals(state: State) -> dict[str, Totals]:
    return {"segments": state.totals, "quarantine": state.rejected}


def _totals_document(totals: Totals) -> dict[str, Any]:
    return {
        "elements": {str(z): n for z, n in totals.elements.items()},
        "labelled": totals.labelled,
        **{name: getattr(totals, name) for name in _TOTALS},
    }


#: What a line says of each column; the rest is shared by many segments.
_OWN = ("chunk", "offset", "nbytes", "digest")
_TOTALS = ("n_periodic", "n_atoms_min", "n_atoms_max", "nbytes", "nbytes_raw")


def _user_document(column: Column) -> dict[str, Any]:
    names = ("axis", "inner", "shape", "dtype", "unit", "long_name")
    return {name: getattr(column, name) for name in names}


def _line(segment: Segment, *, tables: Tables) -> bytes:
    """Return a segment as a line of JSON: its path, the values of this segment, and the numbers of the shared values."""
    places = {path: i for i, path in enumerate(segment.files)}
    kinds, values = [], []
    for key, stored in segment.columns.items():
        document = column_document(stored)
        values.append([document.pop(name) for name in _OWN])
        document["shape"] = document["shape"][1:]
        kinds.append([key, places[stored.file.path], document])
    vocabulary = {name: list(words) for name, words in segment.vocabulary.items()}
    row = [
        segment.path,
        segment.n_samples,
        segment.n_atoms,
        summary_document(segment.summary),
        [[file.path, file.nbytes, file.digest] for file in segment.files.values()],
        tables.number(kinds),
        values,
        tables.number(vocabulary),
    ]
    return json.dumps(row, separators=(",", ":")).encode()


# -- reading -----------------------------------------------------------------------------------------------------


def decode(data: bytes, version: int, empty: State, where: str) -> State:
    """Return the state of a checkpoint; its segments are parsed when they are looked at.

    Raises
    ------
    CorruptionError, FormatError
        If it is damaged, of another store or version, or not a checkpoint.
    """
    try:
        head = _checked_bytes(data, where)
        if not head.endswith(b"\n]"):
            raise FormatError(f"{where}: not a checkpoint")
        text, _, rest = head.partition(b',"segments":[\n')
        accepted, _, rejected = rest.removesuffix(b"\n]").partition(b'\n],"quarantine":[\n')
        fields = Fields(json.loads(text + b"}"), where)
        if (
            fields.integer("format", 1, FORMAT_VERSION) != FORMAT_VERSION
            or fields.text("store") != empty.store
            or fields.integer("version") != version
        ):
            raise FormatError(f"{where}: a checkpoint of another store or version")
        tables = Tables(fields.items("tables"))
        unpack = partial(_unpack, tables=tables, where=where)
        sizes = fields.mapping("sizes")
        document = fields.document
        return State(
            store=empty.store,
            precision=empty.precision,
            settings=empty.settings,
            version=version,
            parent=fields.text("parent"),
            segments=_segment_list(accepted, sizes["segments"], unpack, where),
            quarantine=_segment_list(rejected, sizes["quarantine"], unpack, where),
            totals=_parse_totals(document["totals"]["segments"]),
            rejected=_parse_totals(document["totals"]["quarantine"]),
            keys=dict(fields.mapping("keys")),
            tags=dict(fields.mapping("tags")),
            teachers=dict(fields.mapping("teachers")),
            user={name: _parse_user(name, value) for name, value in fields.mapping("user").items()},
            expired=fields.integer("expired"),
            kept=tuple(int(version) for version in fields.items("kept")),
            tables=tables,
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        if isinstance(error, MlffstoreError):
            raise
        raise FormatError(f"{where}: not a checkpoint ({type(error).__name__}: {error})") from error


def _segment_list(text: bytes, sizes: Any, unpack: Any, where: str) -> SegmentList:
    lines = text.split(b",\n") if text else []
    n_samples, n_atoms = sizes
    counts = [*n_samples, *n_atoms]
    if not len(lines) == len(n_samples) == len(n_atoms) or not all(
        type(count) is int and 1 <= count <= MAX_COUNT for count in counts
    ):
        raise FormatError(f"{where}: expected as many sizes as segments")
    # A line begins with the quoted path of its segment.
    width = len("segments/.zarr.zip") + 32
    paths = [line[2 : 2 + width].decode() for line in lines]
    if not all(SEGMENT.fullmatch(path) for path in paths):
        raise FormatError(f"{where}: expected paths of segments")
    return SegmentList(lines, n_samples, n_atoms, paths, unpack)


def _unpack(line: bytes, *, tables: Tables, where: str) -> Segment:
    """Return the segment of a line, checked exactly as one of a log entry."""
    try:
        path, n_samples, n_atoms, summary, files, kinds, values, vocabulary = json.loads(line)
        rows = {"sample": n_samples, "atom": n_atoms}
        columns: list[dict[str, Any]] = [{} for _ in files]
        for (key, place, kind), own in zip(tables.rows[kinds], values, strict=True):
            axis = kind["axis"] if "axis" in kind else _axis(key)
            columns[place][key] = {
                **kind, "shape": [rows[axis], *kind["shape"]], **dict(zip(_OWN, own, strict=True))
            }  # fmt: skip
        segment = parse_segment(
            {
                "path": path,
                "n_samples": n_samples,
                "n_atoms": n_atoms,
                "summary": summary,
                "columns": columns[0],
                "vocabulary": tables.rows[vocabulary],
                "nbytes": files[0][1],
                "digest": files[0][2],
            },
            where,
        )
        for (layer_path, nbytes, file_digest), of_layer in zip(files[1:], columns[1:], strict=True):
            document = {
                "path": layer_path,
                "segment": path,
                "columns": of_layer,
                "labelled": {},
                "nbytes": nbytes,
                "digest": file_digest,
            }
            layer, below = parse_layer(document, lambda _, below=segment: below, where)  # type: ignore[misc]
            segment = layer.over(below)
        return segment
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, MlffstoreError):
            raise
        raise FormatError(f"{where}: a line is not a segment ({type(error).__name__}: {error})") from error


def _axis(key: str) -> str:
    column = known_column(key)
    if column is None:
        raise KeyError(key)
    return column.axis


def _parse_totals(value: dict[str, Any]) -> Totals:
    return Totals(
        elements={int(z): int(n) for z, n in value["elements"].items()},
        labelled={str(teacher): int(n) for teacher, n in value["labelled"].items()},
        **{name: int(value[name]) for name in _TOTALS},
    )


def _parse_user(name: str, value: dict[str, Any]) -> Column:
    """Return a user column through the same check as one of a log entry."""
    document = {
        "shape": [1, *value["shape"]], "dtype": value["dtype"], "axis": value["axis"], "unit": value["unit"],
        "long_name": value["long_name"], "chunk": 1, "offset": 0, "nbytes": 0, "digest": "0" * 32,
    }  # fmt: skip
    return parse_column(name, document, StoredFile("segments", 1, ""), 1, 1, "checkpoint").column
