"""Reads samples into one `SampleBatch`: which columns it has, and the columns of a `Request` in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.batch import SampleBatch, assemble
from mlffstore.data.masks import missing_rows
from mlffstore.data.properties import Property, find_property, ordered
from mlffstore.data.schema import (
    CODED,
    STANDARD,
    described_properties,
    is_mask,
    label_column,
    label_key,
    mask_key,
    split_key,
)
from mlffstore.data.vocabulary import UNKNOWN_ONLY
from mlffstore.format.records import is_user
from mlffstore.runtime.threads import cpu_pool
from mlffstore.store.request import joint_vocabulary

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from mlffstore.data.schema import Array, Column
    from mlffstore.format.reader import ColumnReader
    from mlffstore.format.records import Segment
    from mlffstore.store.request import Request, SegmentRows

#: Reads of more bytes than this are spread over threads.
_PARALLEL_NBYTES = 4 << 20


def choose_columns(
    segments: Iterable[Segment],
    user: Mapping[str, Column],
    wanted: Collection[str] | None,
    teachers: Collection[str] | None,
    described: Mapping[str, Property],
) -> dict[str, Column]:
    """Return the columns to read from some segments, by their names on disk, without `n_atoms`.

    Parameters
    ----------
    segments : iterable of Segment
    user : mapping of str to Column
        All user columns of the snapshot.
    wanted : collection of str, or None
        Names of the columns that were asked for; None for all.
    teachers : collection of str, or None
        Names of the teachers that were asked for; None for all.
    described : mapping of str to Property
        Properties of the snapshot that are not built in.

    Returns
    -------
    dict of str to Column
        It contains user columns and labels that were asked for by name, even if none of the segments has them (labels of an
        open width excepted).
    """
    stored: dict[str, Column] = {}
    for segment in segments:
        for key, column in segment.columns.items():
            if key not in stored:
                stored[key] = column.column
    columns = {}
    for key, description in stored.items():
        name, teacher = split_key(key)
        if key == "n_atoms" or is_mask(key) or (wanted is not None and name not in wanted):
            continue
        if teacher is None or teachers is None or teacher in teachers:
            columns[key] = description
    columns |= {name: user[name] for name in user if name in (wanted or ()) and name not in columns}
    names = ["energy"] if wanted is None else ordered(name for name in wanted if name not in user)
    labels = [spec for name in names if (spec := find_property(name, described)) is not None and not spec.is_open]
    labelled_by = {split_key(key)[1] for key in columns}
    for teacher in teachers or ():
        if teacher not in labelled_by:
            columns |= {label_key(spec.name, teacher): label_column(spec, teacher) for spec in labels}
    return columns


def empty_batch(user: Mapping[str, Column], precision: str, wanted: Collection[str] | None) -> SampleBatch:
    """Return a batch without samples, with the columns that were asked for and without labels.

    Parameters
    ----------
    user : mapping of str to Column
        All user columns of the snapshot.
    precision : str
        dtype of the positions.
    wanted : collection of str, or None
        Names of the columns that were asked for; None for all.
    """
    specs = {**STANDARD, **user}
    specs["positions"] = specs["positions"].with_dtype(precision)
    names = [name for name in specs if wanted is None or name in wanted]
    columns = {name: np.empty((0, *specs[name].shape), specs[name].dtype) for name in names}
    vocabulary: dict[str, tuple[str, ...]] = {name: UNKNOWN_ONLY for name in CODED if name in names}
    vocabulary |= {name: ("",) for name, column in user.items() if name in names and column.coded}
    return assemble(columns, {}, {name: user[name] for name in names if name in user}, vocabulary)


def read_batch(
    request: Request, reader: ColumnReader, columns: Mapping[str, Column], teachers: Iterable[str]
) -> SampleBatch:
    """Read the samples of a request.

    Parameters
    ----------
    request : Request
    reader : ColumnReader
    columns : mapping of str to Column
        The columns to read beside `n_atoms`, by their names on disk. A column that a segment lacks has missing values in
        the rows of that segment.
    teachers : iterable of str
        All teachers in the order that the batch shall have.
    """
    segments = request.segments
    out = {key: _allocate(column, request, segments, key) for key, column in columns.items()}
    masks = {key: np.zeros(len(out[key]), bool) for key in columns if _has_mask(columns[key], segments, key)}
    vocabularies = {key: joint_vocabulary(segments, key) for key, column in columns.items()
                    if key in (*CODED, "reason") or column.coded}  # fmt: skip

    def fill(job: tuple[str, SegmentRows]) -> None:
        key, part = job
        if key in vocabularies:
            out[key][part.places] = part.read_codes(reader, key, vocabularies[key])
        else:
            out[key][part.places] = part.read(reader, key)
        if key in masks:
            masks[key][part.places] = part.read_mask(reader, key)

    jobs = [
        (key, part) for key, column in columns.items() for part in request.rows[column.axis] if part.holds(key, column)
    ]
    nbytes = sum(request.sizes[column.axis] * column.row_nbytes for column in columns.values())
    if nbytes > _PARALLEL_NBYTES:
        list(cpu_pool().map(fill, jobs))
    else:
        for job in jobs:
            fill(job)
    return _assemble(request.n_atoms, out, columns, vocabularies, masks, teachers)


def _allocate(column: Column, request: Request, segments: Sequence[Segment], key: str) -> Array:
    """Return the output of a column, with missing values if some rows will not be filled."""
    rows = request.sizes[column.axis]
    if all(key in segment.columns for segment in segments):
        return np.empty((rows, *column.shape), column.dtype)
    return missing_rows(column, rows)


def _has_mask(column: Column, segments: Sequence[Segment], key: str) -> bool:
    """Return whether a column may lack values that NaN does not mark."""
    if np.dtype(column.dtype).kind == "f" or not is_user(key):
        return False
    return any(key not in segment.columns or mask_key(key) in segment.columns for segment in segments)


def _assemble(
    n_atoms: Array,
    arrays: Mapping[str, Array],
    described: Mapping[str, Column],
    vocabularies: dict[str, tuple[str, ...]],
    masks: Mapping[str, Array],
    teachers: Iterable[str],
) -> SampleBatch:
    columns = {"n_atoms": n_atoms}
    labels: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        name, teacher = split_key(key)
        if teacher is not None:
            labels.setdefault(teacher, {})[name] = array
        else:
            columns[key] = array
    in_order = {teacher: labels[teacher] for teacher in teachers if teacher in labels}
    user = {key: column for key, column in described.items() if is_user(key)}
    needed = {key: mask for key, mask in masks.items() if not mask.all()}
    ordered_labels = {teacher: {name: named[name] for name in ordered(named)} for teacher, named in in_order.items()}
    properties = described_properties(described.values())
    return assemble(columns, ordered_labels, user, vocabularies, masks=needed, properties=properties)
