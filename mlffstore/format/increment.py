"""The file of one checkpoint: a state as what changed since an earlier checkpoint, or the whole state.

It is a JSON document with one line for each segment that is new since the earlier checkpoint, so that a line is parsed only
when its segment is looked at. The names, types and units of columns repeat in every segment and are kept once.
`mlffstore.format.checkpoint` decides which checkpoints there are.
"""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.properties import PROPERTIES
from mlffstore.data.schema import FORMAT_VERSION, REASON, STANDARD, Column, is_label, split_key
from mlffstore.errors import CorruptionError, FormatError, MlffstoreError
from mlffstore.format.fields import MAX_COUNT, Fields
from mlffstore.format.records import (
    SEGMENT,
    Segment,
    StoredFile,
    column_document,
    parse_column,
    parse_layer,
    parse_segment,
    property_document,
    summary_document,
)
from mlffstore.format.sealing import seal, sealed_nbytes
from mlffstore.format.segment_list import Lines, Run, SegmentList, Tables
from mlffstore.format.state import RECENT
from mlffstore.format.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.format.state import State

ROLES = ("segments", "quarantine")
_TOTALS = ("n_periodic", "n_atoms_min", "n_atoms_max", "nbytes", "nbytes_raw", "nbytes_files")
#: What a line says of each column; the rest is shared by many segments.
_OWN = ("chunk", "offset", "nbytes", "digest")
#: A line begins with the names of two shared values.
_NAME_NBYTES = 16
_PATH_NBYTES = len("segments/.zarr.zip") + 32
_PATHS = re.compile(f"(?:{SEGMENT.pattern})*")
_BETWEEN = b",\n"
_SEGMENTS, _QUARANTINE = b',"segments":[\n', b'\n],"quarantine":[\n'
_KIND, _VOCABULARY = 2, _NAME_NBYTES + 5


def unseal(data: bytes, where: str) -> int:
    """Return how many bytes of a sealed object `seal` was given, after checking them.

    Raises
    ------
    CorruptionError
        If the checksum is wrong.
    """
    end = sealed_nbytes(data)
    if end is None:
        raise CorruptionError(f"{where}: the checkpoint is damaged; it may be deleted, the log has everything")
    return end


# -- writing -----------------------------------------------------------------------------------------------------


def encode(state: State, base: int | None) -> bytes:
    """Return the file of a state as what changed since version `base`; the whole state if that is None."""
    pack = partial(_line, tables=state.tables)
    lines: dict[str, list[bytes]] = {}
    new_segments, runs = {}, {}
    for role in ROLES:
        stored: SegmentList = getattr(state, role)
        new = stored.new(base)
        lines[role] = [stored.line(i, pack) for i in new]
        new_segments[role] = {
            "paths": [stored.paths[i] for i in new],
            "n_samples": [stored.n_samples[i] for i in new],
            "n_atoms": [stored.n_atoms[i] for i in new],
            "nbytes": list(map(len, lines[role])),
        }
        runs[role] = stored.runs(base)
    names = {
        line[start : start + _NAME_NBYTES].decode()
        for line in (*lines["segments"], *lines["quarantine"])
        for start in (_KIND, _VOCABULARY)
    }
    document = {
        "format": FORMAT_VERSION,
        "store": state.store,
        "version": state.version,
        "parent": state.parent,
        "base": base,
        "keys": {key: version for key, version in state.keys.items() if base is None or version > base},
        "tags": state.tags,
        "selections": state.selections,
        "teachers": state.teachers,
        "user": {name: _user_document(column) for name, column in state.user.items()},
        "labels": {key: _label_document(column) for key, column in state.labels.items()},
        "expired": state.expired,
        "kept": state.kept,
        "nbytes_log": state.nbytes_log,
        "totals": {"segments": _totals_document(state.totals), "quarantine": _totals_document(state.rejected)},
        "tables": [state.tables.rows[name] for name in sorted(names)],
        "new": new_segments,
        "runs": runs,
    }
    text = json.dumps(document, separators=(",", ":")).encode()[:-1]
    for role in ROLES:
        text += b',"%s":[\n%s\n]' % (role.encode(), _BETWEEN.join(lines[role]))
    return seal(text)


def _totals_document(totals: Totals) -> dict[str, Any]:
    return {
        "elements": {str(z): n for z, n in totals.elements.items()},
        "labelled": totals.labelled,
        **{name: getattr(totals, name) for name in _TOTALS},
    }


def _user_document(column: Column) -> dict[str, Any]:
    names = ("axis", "inner", "shape", "dtype", "unit", "long_name")
    return {name: getattr(column, name) for name in names} | ({"strings": True} if column.coded else {})


def _label_document(column: Column) -> dict[str, Any]:
    spec = column.quantity
    described = {} if spec is None or spec.built_in else property_document(spec)
    return {"shape": column.shape, "dtype": column.dtype, **described}


def _line(segment: Segment, *, tables: Tables) -> bytes:
    """Return a segment as a line of JSON: the names of the shared values, and the values of this segment."""
    places = {path: i for i, path in enumerate(segment.files)}
    kinds, values = [], []
    for key, stored in segment.columns.items():
        document = column_document(stored)
        own = {name: document.pop(name) for name in _OWN}
        own["digest"] = base64.b64encode(bytes.fromhex(own["digest"]))[:22].decode()
        if own["chunk"] == stored.rows:
            own["chunk"] = 0  # the usual case
        values.append(list(own.values()))
        document["shape"] = document["shape"][1:]
        kinds.append([key, places[stored.file.path], document])
    row = [
        tables.name(kinds),
        tables.name({name: list(words) for name, words in segment.vocabulary.items()}),
        summary_document(segment.summary),
        [[file.path, file.nbytes, file.digest, *([True] if file.attached else [])] for file in segment.files.values()],
        values,
    ]
    return json.dumps(row, separators=(",", ":")).encode()


# -- reading -----------------------------------------------------------------------------------------------------


def base_of(data: bytes, where: str) -> int | None:
    """Return the version of the checkpoint that a file counts from, without reading the rest."""
    _, _, text = data[:65536].partition(b'"base":')
    value = text.partition(b",")[0]
    if value == b"null":
        return None
    if not value.isdigit():
        raise FormatError(f"{where}: not a checkpoint")
    return int(value)


def decode(data: bytes, version: int, empty: State, where: str, earlier: State | None) -> State:
    """Return the state of a checkpoint; its segments are parsed when they are looked at.

    Parameters
    ----------
    data : bytes
        The file.
    version : int
        The version that it should be of.
    empty : State
        The state before entry 0 of the store.
    where : str
        The file, for messages.
    earlier : State or None
        The state as of the checkpoint that it counts from, see `base_of`, which is then used up.

    Raises
    ------
    CorruptionError, FormatError
        If it is damaged, of another store or version, or not a checkpoint.
    """
    try:
        end = unseal(data, where)
        first, second = data.find(_SEGMENTS, 0, end), data.rfind(_QUARANTINE, 0, end)
        if not 0 <= first < second or data[end - 2 : end] != b"\n]":
            raise FormatError(f"{where}: not a checkpoint")
        ranges = ((first + len(_SEGMENTS), second), (second + len(_QUARANTINE), end - 2))
        fields = Fields(json.loads(data[:first] + b"}"), where)
        if (
            fields.integer("format") != FORMAT_VERSION
            or fields.text("store") != empty.store
            or fields.integer("version") != version
            or fields.document["base"] != (None if earlier is None else earlier.version)
        ):
            raise FormatError(f"{where}: a checkpoint of another store or version")
        document = fields.document
        tables = Tables() if earlier is None else earlier.tables
        for row in fields.items("tables"):
            tables.name(row)
        unpack = partial(_unpack, tables=tables, where=where)
        lists: dict[str, Any] = {}
        for role, (start, stop) in zip(ROLES, ranges, strict=True):
            runs = [Run(path, length) for path, length in fields.mapping("runs")[role]]
            new = _new_segments(data, start, stop, Fields(fields.mapping("new")[role], where))
            before = None if earlier is None else getattr(earlier, role)
            lists[role] = SegmentList.after(before, runs, new, version, unpack)
        return replace(
            empty,
            version=version,
            parent=fields.text("parent"),
            **lists,
            totals=_parse_totals(document["totals"]["segments"]),
            rejected=_parse_totals(document["totals"]["quarantine"]),
            keys=({} if earlier is None else earlier.keys) | _counts(fields.mapping("keys")),
            tags=_counts(fields.mapping("tags")),
            selections=_counts(fields.mapping("selections")) if "selections" in document else {},
            teachers=dict(fields.mapping("teachers")),
            user={name: _parse_kind(name, value) for name, value in fields.mapping("user").items()},
            labels={key: _parse_kind(key, value) for key, value in fields.mapping("labels").items()},
            expired=fields.integer("expired"),
            kept=tuple(int(version) for version in fields.items("kept")),
            nbytes_log=fields.integer("nbytes_log"),
            recent=deque(maxlen=RECENT),
            tables=tables,
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        if isinstance(error, MlffstoreError):
            raise
        raise FormatError(f"{where}: not a checkpoint ({type(error).__name__}: {error})") from error


def _counts(values: Mapping[str, Any]) -> dict[str, int]:
    if not all(type(version) is int and version >= 0 for version in values.values()):
        raise ValueError("expected versions")
    return dict(values)


def _new_segments(data: bytes, start: int, stop: int, fields: Fields) -> Lines:
    """Return the new segments of a file, whose lines lie between two places."""
    # The lines stay where they are: of a large store most are never looked at, and copies would take most of the time.
    paths, n_samples, n_atoms, nbytes = (fields.items(name) for name in ("paths", "n_samples", "n_atoms", "nbytes"))
    counts = [*n_samples, *n_atoms, *nbytes]
    if not len(paths) == len(n_samples) == len(n_atoms) == len(nbytes) or (
        counts and not ({*map(type, counts)} == {int} and min(counts) >= 1 and max(counts) <= MAX_COUNT)
    ):
        raise FormatError(f"{fields.where}: expected as many sizes as segments")
    if not _PATHS.fullmatch("".join(paths)) or {*map(len, paths)} - {_PATH_NBYTES}:
        raise FormatError(f"{fields.where}: expected paths of segments")
    starts = [start, *(start + np.cumsum(np.asarray(nbytes, np.int64) + len(_BETWEEN))).tolist()]
    if starts.pop() != (stop + len(_BETWEEN) if paths else start):
        raise FormatError(f"{fields.where}: expected as many lines as segments")
    return Lines(data, starts, n_samples, n_atoms, paths)


def _unpack(line: bytes, path: str, n_samples: int, n_atoms: int, *, tables: Tables, where: str) -> Segment:
    """Return the segment of a line, checked exactly as one of a log entry."""
    try:
        kinds, vocabulary, summary, files, values = json.loads(line)
        rows = {"sample": n_samples, "atom": n_atoms}
        columns: list[dict[str, Any]] = [{} for _ in files]
        for (key, place, kind), own in zip(tables.rows[kinds], values, strict=True):
            axis = kind["axis"] if "axis" in kind else _axis(key)
            chunk, offset, nbytes, code = own
            columns[place][key] = {
                **kind, "shape": [rows[axis], *kind["shape"]], "chunk": chunk or rows[axis], "offset": offset,
                "nbytes": nbytes, "digest": base64.b64decode(f"{code}==", validate=True).hex(),
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
        for (layer_path, nbytes, file_digest, *attached), of_layer in zip(files[1:], columns[1:], strict=True):
            document = {
                "path": layer_path,
                "segment": path,
                "columns": of_layer,
                "labelled": {},
                "vocabulary": {key: words for key, words in tables.rows[vocabulary].items() if key in of_layer},
                "nbytes": nbytes,
                "digest": file_digest,
                "attached": attached == [True],
            }
            layer, below = parse_layer(document, lambda _, below=segment: below, where)  # type: ignore[misc]
            segment = layer.over(below)
        return segment
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, MlffstoreError):
            raise
        raise FormatError(f"{where}: a line is not a segment ({type(error).__name__}: {error})") from error


def _axis(key: str) -> str:
    known = (
        PROPERTIES.get(split_key(key)[0])
        if is_label(key)
        else STANDARD.get(key) or (REASON if key == "reason" else None)
    )
    if known is None:
        raise KeyError(key)
    return known.axis


def _parse_totals(value: dict[str, Any]) -> Totals:
    return Totals(
        elements={int(z): int(n) for z, n in value["elements"].items()},
        labelled={str(teacher): int(n) for teacher, n in value["labelled"].items()},
        **{name: int(value[name]) for name in _TOTALS},
    )


def _parse_kind(name: str, value: dict[str, Any]) -> Column:
    """Return a user column or a label through the same check as one of a log entry."""
    document = value | {
        "shape": [1, *value["shape"]], "chunk": 1, "offset": 0, "nbytes": 64, "digest": "0" * 32,
    }  # fmt: skip
    return parse_column(name, document, StoredFile("segments", 64, ""), 1, 1, "checkpoint").column
