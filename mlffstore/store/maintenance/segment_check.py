"""`check_segments`: whether segments and their layers are there and are what was committed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data import rules
from mlffstore.data.hashing import content_hash
from mlffstore.errors import MlffstoreError
from mlffstore.format.codec import Layout, array_metadata, digest, shard_name
from mlffstore.format.metadata import attributes, json_bytes, metadata_paths
from mlffstore.format.reader import ChunkCache, ColumnReader, assemble_segment, read_column
from mlffstore.format.segment import summarise
from mlffstore.store.maintenance.verification import Problem, without_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.format.records import Segment, Summary
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
    for segment, rejected in work:
        result.n_segments += 1
        sizes = {file.path: file.nbytes for folder in segment.metadata for file in storage.list(folder)}
        result.n_files, result.nbytes = result.n_files + len(sizes), result.nbytes + sum(sizes.values())
        result.problems += _check_presence(segment, sizes)
        if full:
            result.problems += _check_metadata(storage, segment, sizes)
            result.problems += _check_values(storage, segment, rejected, {problem.path for problem in result.problems})
    return result


def _check_presence(segment: Segment, sizes: Mapping[str, int]) -> Iterator[Problem]:
    for folder in segment.metadata:
        names = [key for key, stored in segment.columns.items() if stored.folder == folder]
        for path in metadata_paths(folder, names):
            if path not in sizes:
                yield Problem(path, "is missing; restore it from a copy")
    for key, stored in segment.columns.items():
        path = f"{stored.folder}/{key}/{shard_name(stored.column)}"
        if path not in sizes:
            yield Problem(path, "is missing, though the log promises it; restore it from a copy")
        elif sizes[path] != stored.nbytes:
            yield Problem(path, f"expected {stored.nbytes} bytes, got {sizes[path]}; restore it from a copy")


def _check_metadata(storage: Storage, segment: Segment, sizes: Mapping[str, int]) -> Iterator[Problem]:
    """Compare the Zarr metadata with their digest in the log; say which document differs, if that can be told."""
    for folder, expected in segment.metadata.items():
        names = [key for key, stored in segment.columns.items() if stored.folder == folder]
        paths = metadata_paths(folder, names)
        if any(path not in sizes for path in paths):
            continue
        try:
            documents = [storage.read(path) for path in paths]
        except FileNotFoundError as error:
            yield Problem(folder, f"a file went missing while it was read ({error})")
            continue
        if digest(b"".join(documents)) == expected:
            continue
        vocabulary = segment.vocabulary if folder == segment.path else {}
        damaged = []
        for name, path, data in zip(names, paths[1:], documents[1:], strict=True):
            stored = segment.columns[name]
            layout = Layout(stored.rows, stored.chunk)
            if data != json_bytes(array_metadata(stored.column, layout, attributes(stored.column, vocabulary))):
                damaged.append(path)
        for path in damaged or [paths[0]]:
            yield Problem(path, "is not the file that was committed (SHA-256); restore it from a copy")


def _check_values(storage: Storage, segment: Segment, rejected: bool, known: set[str]) -> Iterator[Problem]:
    """Read every column, and if all can be read, check that the values agree with each other and with the log."""
    reader = ColumnReader(storage, ChunkCache(0))
    columns: dict[str, Array] = {}
    for key, stored in segment.columns.items():
        path = f"{stored.folder}/{key}/{shard_name(stored.column)}"
        try:
            columns[key] = read_column(reader, stored)
        except (MlffstoreError, OSError) as error:
            if path not in known:
                yield Problem(path, without_place(str(error), storage.url, path))
    if len(columns) < len(segment.columns):
        return
    n_atoms = columns["n_atoms"]
    if int(n_atoms.min()) < 1 or int(n_atoms.sum(dtype=np.int64)) != segment.n_atoms:
        yield Problem(
            f"{segment.path}/n_atoms", f"expected counts that add up to {segment.n_atoms}, got {int(n_atoms.sum())}"
        )
        return
    for key, words in segment.vocabulary.items():
        if key in columns and int(columns[key].max()) >= len(words):
            yield Problem(f"{segment.path}/{key}", f"expected codes below {len(words)}, got {int(columns[key].max())}")
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
            f"{segment.path}/content_hash",
            f"{len(wrong)} samples have another hash than their structure gives, the first is sample {wrong[0]}",
        )
    logged, actual = _plain(segment.summary), _plain(summarise(batch))
    energies = {teacher: int(np.count_nonzero(~np.isnan(labels["energy"])))
                for teacher, labels in batch.labels.items() if "energy" in labels}  # fmt: skip
    if logged["labelled"] == {teacher: n for teacher, n in energies.items() if n}:  # earlier versions counted energies
        logged["labelled"] = actual["labelled"]
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
