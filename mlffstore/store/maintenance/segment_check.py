"""`check_segments`: whether segments and their layers are there and are what was committed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data import rules
from mlffstore.data.hashing import content_hash
from mlffstore.errors import MlffstoreError
from mlffstore.format.coverage import damaged_parts
from mlffstore.format.reader import ChunkCache, ColumnReader, assemble_segment, read_column
from mlffstore.format.segment import summarise
from mlffstore.runtime.threads import io_pool
from mlffstore.store.maintenance.verification import Problem, without_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.format.records import Segment, StoredFile, Summary
    from mlffstore.storage import Storage


@dataclass
class SegmentCheck:
    """Result of the check of some segments.

    Attributes
    ----------
    problems : list of Problem
    n_segments, n_files, nbytes : int
        Segments, files and bytes that were checked.
    """

    problems: list[Problem] = field(default_factory=list)
    n_segments: int = 0
    n_files: int = 0
    nbytes: int = 0


def check_segments(storage: Storage, work: list[tuple[Segment, bool]], full: bool) -> SegmentCheck:
    """Check some segments with their layers."""
    result = SegmentCheck()
    sizes = _sizes(storage, [path for segment, _ in work for path in segment.files])
    for segment, rejected in work:
        result.n_segments += 1
        damaged: set[str] = set()
        for file in segment.files.values():
            size = sizes[file.path]
            result.n_files, result.nbytes = result.n_files + (size >= 0), result.nbytes + max(size, 0)
            problems = list(_check_file(storage, segment, file, size, full))
            result.problems += problems
            damaged |= {file.path} if problems else set()
        if full and not damaged:
            result.problems += _check_values(storage, segment, rejected)
    return result


def _sizes(storage: Storage, paths: list[str]) -> dict[str, int]:
    """Return the size of each file, -1 if there is none; several are asked for at once where it is a request."""

    def size(path: str) -> int:
        try:
            return storage.size(path)
        except (MlffstoreError, OSError):
            return -1

    return dict(zip(paths, (io_pool().map if storage.remote else map)(size, paths), strict=True))


def _check_file(storage: Storage, segment: Segment, file: StoredFile, size: int, full: bool) -> Iterator[Problem]:
    """Check that a file is there and has its size, and if `full`, that each of its bytes is what was committed."""
    if size < 0:
        yield Problem(file.path, "is missing, though the log promises it; restore it from a copy")
        return
    if size != file.nbytes:
        yield Problem(file.path, f"expected {file.nbytes} bytes, got {size}; restore it from a copy")
        return
    if not full:
        return
    try:
        parts = damaged_parts(file, segment.columns.values(), partial(storage.read, file.path))
    except (MlffstoreError, OSError) as error:
        yield Problem(file.path, without_place(str(error), storage.url, file.path))
        return
    if parts:
        names = ", ".join(parts)
        yield Problem(file.path, f"is not what was committed (SHA-256 of {names}); restore it from a copy")


def _check_values(storage: Storage, segment: Segment, rejected: bool) -> Iterator[Problem]:
    """Read every column, and if all can be read, check that the values agree with each other and with the log."""
    reader = ColumnReader(storage, ChunkCache(0))
    columns: dict[str, Array] = {}
    for key, stored in segment.columns.items():
        try:
            columns[key] = read_column(reader, stored)
        except (MlffstoreError, OSError) as error:
            yield Problem(stored.file.path, without_place(str(error), storage.url, stored.file.path))
    if len(columns) < len(segment.columns):
        return
    n_atoms = columns["n_atoms"]
    if int(n_atoms.min()) < 1 or int(n_atoms.sum(dtype=np.int64)) != segment.n_atoms:
        text = f"n_atoms: expected counts that add up to {segment.n_atoms}, got {int(n_atoms.sum())}"
        yield Problem(segment.path, text)
        return
    for key, words in segment.vocabulary.items():
        if key in columns and int(columns[key].max()) >= len(words):
            text = f"{key}: expected codes below {len(words)}, got {int(columns[key].max())}"
            yield Problem(segment.path, text)
            return
    yield from _check_batch(segment, assemble_segment(segment, columns), rejected)


def _check_batch(segment: Segment, batch: SampleBatch, rejected: bool) -> Iterator[Problem]:
    if not rejected:
        try:
            rules.check(batch, ())
        except MlffstoreError as error:
            yield Problem(segment.path, str(error))
    structure = (batch.n_atoms, batch.numbers, batch.positions, batch.cell, batch.pbc, batch.charge, batch.multiplicity)
    wrong = np.flatnonzero(content_hash(*structure) != batch.content_hash)
    if len(wrong):
        yield Problem(
            segment.path,
            f"content_hash: {len(wrong)} samples have another hash than their structure gives, first sample {wrong[0]}",
        )
    logged, actual = _plain(segment.summary), _plain(summarise(batch))
    if logged != actual:
        yield Problem(segment.path, f"the log says {json.dumps(logged)}, the data say {json.dumps(actual)}")


def _plain(summary: Summary) -> dict[str, Any]:
    """Return a summary as plain types, without teachers that labelled no sample."""
    return {
        "elements": dict(summary.elements),
        "n_periodic": summary.n_periodic,
        "n_atoms_min": summary.n_atoms_min,
        "n_atoms_max": summary.n_atoms_max,
        "labelled": {teacher: n for teacher, n in summary.labelled.items() if n},
    }
