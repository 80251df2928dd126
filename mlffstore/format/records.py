"""Segments and layers as the log describes them: plain values, their JSON, and the checks that each passes when read.

Everything that is read from a file of the store is checked here, field by field, before anything else uses it: a store may
come from an unknown source.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.properties import PROPERTIES, Axis, Property
from mlffstore.data.schema import (
    LABELS,
    MAX_DIMENSIONS,
    REASON,
    STANDARD,
    TEACHER,
    USER_DTYPES,
    Column,
    described_properties,
    is_label,
    is_mask,
    label_column,
    mask_column,
    split_key,
)
from mlffstore.data.vocabulary import MAX_WORDS
from mlffstore.errors import DataError, FormatError
from mlffstore.format.codec import CHUNK_NBYTES, Layout
from mlffstore.format.fields import MAX_COUNT, Fields
from mlffstore.runtime.words import is_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DIGEST = re.compile(r"[0-9a-f]{32}")
SEGMENT = re.compile(r"segments/[0-9a-f]{32}\.zarr\.zip")
_AXIS = re.compile("sample|atom")
LAYER = re.compile(r"layers/[0-9a-f]{32}\.zarr\.zip")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The file of a segment or layer."""

    path: str
    nbytes: int
    digest: str
    """Digest of all bytes that belong to no column; with the digests of the columns this covers the whole file."""
    attached: bool = False
    """Whether it is a layer with labels that were made elsewhere: a teacher has not refused the samples without one."""


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """Where one column of a segment or layer is stored: the file, the place of its shard there, size and digest of that."""

    file: StoredFile
    column: Column
    rows: int
    chunk: int
    offset: int
    nbytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a segment without reading its columns."""

    elements: Mapping[int, int]
    """Atomic number -> number of atoms."""
    n_periodic: int
    """Samples that are periodic along any direction."""
    n_atoms_min: int
    n_atoms_max: int
    labelled: Mapping[str, int]
    """Teacher -> samples with any label of that teacher."""


@dataclass(frozen=True, slots=True)
class Layer:
    """More columns over the rows of one segment."""

    path: str
    segment: str
    columns: Mapping[str, StoredColumn]
    file: StoredFile
    labelled: Mapping[str, int]
    """Teacher of this layer -> samples of the segment with any label of that teacher, here or below."""
    vocabulary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Strings of the user columns of strings."""

    @property
    def nbytes_files(self) -> int:
        """Size of the file."""
        return self.file.nbytes

    def over(self, segment: Segment) -> Segment:
        """Return the segment with these columns."""
        counts = {**segment.summary.labelled, **self.labelled}
        return replace(
            segment,
            columns={**segment.columns, **self.columns},
            summary=replace(segment.summary, labelled=counts),
            files={**segment.files, self.path: self.file},
            vocabulary={**segment.vocabulary, **self.vocabulary},
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """An immutable block of whole samples: its columns, and those of the layers over it, by on-disk name."""

    path: str
    n_samples: int
    n_atoms: int
    summary: Summary
    columns: Mapping[str, StoredColumn]
    vocabulary: Mapping[str, tuple[str, ...]]
    files: Mapping[str, StoredFile]
    """Path of the file of the segment, and of that of each layer over it -> what the log says of the file."""

    @property
    def nbytes(self) -> int:
        """Bytes of the columns on disk, without the metadata in the same files."""
        return sum(stored.nbytes for stored in self.columns.values())

    @property
    def nbytes_files(self) -> int:
        """Size of the file and of those of the layers."""
        return sum(file.nbytes for file in self.files.values())

    @property
    def teachers(self) -> tuple[str, ...]:
        """Teachers with labels here, in the order of the columns."""
        labels = (split_key(key)[1] for key in self.columns if not is_mask(key))
        return tuple(dict.fromkeys(teacher for teacher in labels if teacher))

    @property
    def described(self) -> dict[str, Property]:
        """The properties among the labels that are not built in, by name."""
        return described_properties(stored.column for stored in self.columns.values())

    @property
    def user(self) -> dict[str, Column]:
        """The user columns."""
        return user_columns(self.columns)


def is_user(key: str) -> bool:
    """Return whether an on-disk name is that of a user column."""
    return "." not in key and key not in STANDARD and key != "reason"


def user_columns(columns: Mapping[str, StoredColumn]) -> dict[str, Column]:
    """Return the user columns among some columns of a segment or layer, without their masks."""
    return {key: stored.column for key, stored in columns.items() if is_user(key)}


def other_labels(columns: Mapping[str, StoredColumn]) -> dict[str, Column]:
    """Return the labels beside energy, forces and stress by their on-disk names: their kind follows from the log alone."""
    return {key: stored.column for key, stored in columns.items() if is_label(key) and split_key(key)[0] not in LABELS}


def column_document(stored: StoredColumn) -> dict[str, Any]:
    """Return what the log says of a column."""
    column = stored.column
    document: dict[str, Any] = {
        "shape": [stored.rows, *column.shape],
        "dtype": column.dtype,
        "chunk": stored.chunk,
        "offset": stored.offset,
        "nbytes": stored.nbytes,
        "digest": stored.digest,
    }
    if is_user(column.name) or is_mask(column.name):
        document |= {"axis": column.axis, "unit": column.unit, "long_name": column.long_name}
    if column.coded:
        document["strings"] = True
    if column.quantity is not None and not column.quantity.built_in:
        document |= property_document(column.quantity)
    return document


def property_document(spec: Property) -> dict[str, Any]:
    """Return what the log says of a property that is not built in."""
    return {
        "axis": spec.axis,
        "inner": list(spec.shape),
        "unit": spec.unit,
        "long_name": spec.long_name,
        "turns": spec.turns,
        "extensive": spec.extensive,
    }


@functools.lru_cache(maxsize=256)
def _described(
    name: str,
    axis: Axis,
    inner: tuple[str | int, ...],
    unit: str,
    turns: Any,
    dtype: str,
    extensive: bool,
    long_name: str,
) -> Property:
    return Property(
        name, axis, inner, unit, turns, dtype, extensive, long_name, half=dtype == "float16", register=False
    )


def parse_property(name: str, fields: Fields, dtype: str) -> Property:
    """Check and return the property that a column object describes."""
    inner, extensive = fields.items("inner"), fields.document.get("extensive")
    if not all(type(size) in (int, str) for size in inner) or not isinstance(extensive, bool):
        raise FormatError(f"{fields.where}: expected the description of a property; the store is damaged")
    axis: Axis = "sample" if fields.text("axis", _AXIS) == "sample" else "atom"
    try:
        return _described(
            name,
            axis,
            tuple(inner),
            fields.text("unit"),
            fields.text("turns"),
            dtype,
            extensive,
            fields.text("long_name"),
        )
    except DataError as error:
        raise FormatError(f"{fields.where}: {error}; the store is damaged") from error


@functools.lru_cache(maxsize=1024)  # a store of 10,000 segments asks for a dozen names again and again
def _label(spec: Property, teacher: str, shape: tuple[int, ...], dtype: str) -> Column:
    return label_column(spec, teacher, np.empty((0, *shape), dtype))


def _parse_label(key: str, fields: Fields, dtype: str, shape: tuple[int, ...]) -> Column:
    """Check and return the column of a label."""
    name, teacher = split_key(key)
    spec = PROPERTIES.get(name)
    if spec is None:
        spec = parse_property(name, fields, dtype)
    elif "turns" in fields.document:
        raise FormatError(f"{fields.where}: describes a property that every reader knows; the store is damaged")
    if dtype != spec.dtype and not (spec.half and dtype == "float16"):
        raise FormatError(f"{fields.where}: expected dtype {spec.dtype}, got {dtype}; the store is damaged")
    if not spec.fits(shape):
        raise FormatError(f"{fields.where}: expected rows of {spec.describe()}, got {shape}; the store is damaged")
    return _label(spec, teacher or "", shape, dtype)


def parse_column(key: str, value: Any, file: StoredFile, n_samples: int, n_atoms: int, where: str) -> StoredColumn:
    """Check and return a column of a segment or layer that lies in `file`."""
    where = f"{where}: {file.path}/{key}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}(\.[A-Za-z0-9][A-Za-z0-9_+.-]{0,63})?", key):
        raise FormatError(f"{where}: not a column name; the store is damaged")
    fields = Fields(value, where)
    dtype = fields.text("dtype")
    shape = fields.items("shape")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MAX_COUNT for n in shape) or not shape:
        raise FormatError(f"{where}: shape: expected sizes, got {str(shape)[:60]}; the store is damaged")
    column = REASON if key == "reason" else STANDARD.get(key)
    if is_mask(key):
        axis: Axis = "sample" if fields.text("axis", _AXIS) == "sample" else "atom"
        column = mask_column(Column(split_key(key)[1] or "", axis, (), (), "bool", "1", ""))
        if dtype != column.dtype:
            raise FormatError(f"{where}: expected dtype {column.dtype}, got {dtype}; the store is damaged")
    elif is_label(key):
        column = _parse_label(key, fields, dtype, tuple(shape[1:]))
    elif column is None:
        if dtype not in USER_DTYPES or len(shape) > MAX_DIMENSIONS:
            raise FormatError(f"{where}: expected a known column or a numeric user column; the store is damaged")
        axis = "sample" if fields.text("axis", _AXIS) == "sample" else "atom"
        coded = fields.document.get("strings", False)
        if coded not in (False, True) or (coded and (dtype != "uint32" or len(shape) > 1)):
            raise FormatError(f"{where}: strings: expected codes of strings, uint32; the store is damaged")
        inner = tuple(f"{key}_dim{i}" for i in range(1, len(shape)))
        column = Column(
            key, axis, inner, tuple(shape[1:]), dtype, fields.text("unit"), fields.text("long_name"), coded=coded
        )
    elif dtype != column.dtype:
        if not (key == "positions" and dtype == "float64"):
            raise FormatError(f"{where}: expected dtype {column.dtype}, got {dtype}; the store is damaged")
        column = column.with_dtype(dtype)
    rows = n_samples if column.axis == "sample" else n_atoms
    if shape != [rows, *column.shape]:
        raise FormatError(f"{where}: expected shape {[rows, *column.shape]}, got {shape}; the store is damaged")
    if column.name != key:
        column = replace(column, name=key)
    layout = Layout(rows, fields.integer("chunk", 1, max(rows, 1)))
    if layout.chunk * column.row_nbytes > CHUNK_NBYTES + column.row_nbytes:
        raise FormatError(f"{where}: chunk: expected at most {CHUNK_NBYTES} bytes and a row; the store is damaged")
    nbytes = fields.integer("nbytes", layout.least_nbytes, file.nbytes)
    return StoredColumn(
        file=file,
        column=column,
        rows=rows,
        chunk=layout.chunk,
        offset=fields.integer("offset", 0, file.nbytes - nbytes),
        nbytes=nbytes,
        digest=fields.text("digest", DIGEST),
    )


def _parse_columns(fields: Fields, file: StoredFile, n_samples: int, n_atoms: int) -> dict[str, StoredColumn]:
    """Check and return the columns of a segment or layer."""
    where = fields.where
    columns = {
        key: parse_column(key, column, file, n_samples, n_atoms, where)
        for key, column in fields.mapping("columns").items()
    }
    for key in columns:
        if is_mask(key):
            masked = columns.get(split_key(key)[1] or "")
            if (
                masked is None
                or not is_user(masked.column.name)
                or masked.rows != columns[key].rows
                or np.dtype(masked.column.dtype).kind == "f"
            ):
                raise FormatError(f"{where}: {file.path}/{key}: a mask without its column; the store is damaged")
    return columns


def segment_document(segment: Segment) -> dict[str, Any]:
    """Return what the log says of a segment without layers."""
    return {
        "path": segment.path,
        "n_samples": segment.n_samples,
        "n_atoms": segment.n_atoms,
        "summary": summary_document(segment.summary),
        "columns": {key: column_document(stored) for key, stored in segment.columns.items()},
        "vocabulary": {name: list(words) for name, words in segment.vocabulary.items()},
        **file_document(segment.files[segment.path]),
    }


def file_document(file: StoredFile) -> dict[str, Any]:
    """Return what the log says of the file of a segment or layer."""
    return {"nbytes": file.nbytes, "digest": file.digest, **({"attached": True} if file.attached else {})}


def parse_file(fields: Fields, path: str) -> StoredFile:
    """Check and return what the log says of a file."""
    return StoredFile(path, fields.integer("nbytes", 1), fields.text("digest", DIGEST), fields.flag("attached"))


def summary_document(summary: Summary) -> dict[str, Any]:
    """Return what the log says of the content of a segment."""
    return {
        "elements": {str(z): n for z, n in summary.elements.items()},
        "n_periodic": summary.n_periodic,
        "n_atoms_min": summary.n_atoms_min,
        "n_atoms_max": summary.n_atoms_max,
        "labelled": dict(summary.labelled),
    }


def parse_segment(value: Any, where: str) -> Segment:
    """Check and return a segment of a log entry."""
    fields = Fields(value, where)
    path = fields.text("path", SEGMENT)
    n_samples, n_atoms = fields.integer("n_samples", 1), fields.integer("n_atoms", 1)
    file = parse_file(fields, path)
    columns = _parse_columns(fields, file, n_samples, n_atoms)
    if (absent := set(STANDARD) - set(columns)) or n_atoms < n_samples:
        raise FormatError(f"{where}: {path}: columns missing ({', '.join(sorted(absent))}) or counts that cannot be")
    vocabulary = _parse_vocabulary(fields, columns)
    return Segment(path, n_samples, n_atoms, _parse_summary(fields), columns, vocabulary, {path: file})


def _parse_vocabulary(fields: Fields, columns: Mapping[str, StoredColumn]) -> dict[str, tuple[str, ...]]:
    """Check and return the strings of the coded columns of a segment or layer."""
    vocabulary = {}
    for name, words in fields.mapping("vocabulary").items():
        if not isinstance(words, list) or len(words) > MAX_WORDS or not all(isinstance(word, str) for word in words):
            raise FormatError(f"{fields.where}: vocabulary of {name!r}: expected strings; the store is damaged")
        if not all(map(is_text, words)):
            raise FormatError(
                f"{fields.where}: vocabulary of {name!r}: expected text without NUL; the store is damaged"
            )
        vocabulary[name] = tuple(words)
    for name in (key for key, stored in columns.items() if stored.column.coded):
        if name not in vocabulary:
            raise FormatError(f"{fields.where}: {name}: expected the vocabulary of its strings; the store is damaged")
    return vocabulary


def _parse_summary(fields: Fields) -> Summary:
    summary = Fields(fields.mapping("summary"), f"{fields.where}: summary")
    # 0 is what no element is; rejected samples may have it, and any other number.
    elements = Fields(summary.mapping("elements"), f"{summary.where}: elements")
    if not all(re.fullmatch(r"0|[1-9]\d{0,2}", z) and int(z) < 256 for z in elements.document):
        raise FormatError(f"{elements.where}: expected atomic numbers; the store is damaged")
    return Summary(
        elements={int(z): elements.integer(z) for z in elements.document},
        n_periodic=summary.integer("n_periodic"),
        n_atoms_min=summary.integer("n_atoms_min"),
        n_atoms_max=summary.integer("n_atoms_max"),
        labelled=_parse_labelled(summary),
    )


def _parse_labelled(fields: Fields) -> dict[str, int]:
    labelled = Fields(fields.mapping("labelled"), f"{fields.where}: labelled")
    if not all(TEACHER.fullmatch(teacher) for teacher in labelled.document):
        raise FormatError(f"{labelled.where}: expected names of teachers; the store is damaged")
    return {teacher: labelled.integer(teacher) for teacher in labelled.document}


def layer_document(layer: Layer) -> dict[str, Any]:
    """Return what the log says of a layer."""
    return {
        "segment": layer.segment,
        "path": layer.path,
        "columns": {key: column_document(stored) for key, stored in layer.columns.items()},
        "labelled": dict(layer.labelled),
        **({"vocabulary": {name: list(words) for name, words in layer.vocabulary.items()}} if layer.vocabulary else {}),
        **file_document(layer.file),
    }


def parse_layer(value: Any, segments: Callable[[str], Segment | None], where: str) -> tuple[Layer, Segment]:
    """Check and return a layer of a log entry, and the segment below, which `segments` finds by its path."""
    fields = Fields(value, where)
    path, target = fields.text("path", LAYER), fields.text("segment", SEGMENT)
    if (segment := segments(target)) is None:
        raise FormatError(f"{where}: a layer over {target}, which is not in this version; the store is damaged")
    file = parse_file(fields, path)
    columns = _parse_columns(fields, file, segment.n_samples, segment.n_atoms)
    fields.document.setdefault("vocabulary", {})
    vocabulary = _parse_vocabulary(fields, columns)
    if not all(name in columns and columns[name].column.coded for name in vocabulary):
        raise FormatError(f"{where}: {path}: a vocabulary without its column; the store is damaged")
    if taken := set(columns) & set(segment.columns):
        raise FormatError(f"{where}: {target} has {', '.join(sorted(taken))} already; the store is damaged")
    return Layer(path, target, columns, file, _parse_labelled(fields), vocabulary), segment
