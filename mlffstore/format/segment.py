"""Writing segments and layers: a batch, or more columns over one, as one file that is a zipped Zarr v3 group."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.labels import has_any_label, has_label
from mlffstore.data.properties import property_of
from mlffstore.data.schema import (
    REASON,
    STANDARD,
    Array,
    Column,
    described_properties,
    is_label,
    mask_column,
    split_key,
)
from mlffstore.errors import DataError, StorageError
from mlffstore.format.archive import ArchiveWriter
from mlffstore.format.codec import Layout, array_metadata, digest, encode_chunk, join_chunks, shard_name, short
from mlffstore.format.metadata import GROUP, attributes, json_bytes
from mlffstore.format.reader import ChunkCache, ColumnReader, read_column
from mlffstore.format.records import Layer, Segment, StoredColumn, StoredFile, Summary
from mlffstore.runtime.threads import cpu_pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from mlffstore.data.batch import SampleBatch
    from mlffstore.storage import Storage

#: Columns of this size and below are compressed in the calling thread: handing them over would take longer. Bytes.
_IN_PLACE_NBYTES = 32 << 10


def batch_columns(batch: SampleBatch) -> list[tuple[Column, Array]]:
    """Return every column of a batch as it goes to disk, under its on-disk name."""
    out = []
    for name, spec in STANDARD.items():
        array = batch.content_hash if name == "content_hash" else batch.root if name == "root" else batch.columns[name]
        out.append((spec.with_dtype(array.dtype.name) if name == "positions" else spec, array))
    for teacher, labels in batch.labels.items():
        for name, array in labels.items():
            out.append((batch.label_column(name, teacher), array))
    for name, column in batch.user.items():
        out += user_column_arrays(column, batch.columns[name], batch.masks.get(name))
    if "reason" in batch.columns:
        out.append((REASON, batch.columns["reason"]))
    return out


def user_column_arrays(column: Column, values: Array, mask: Array | None) -> list[tuple[Column, Array]]:
    """Return a user column and, if some rows have no value, its mask, as they go to disk."""
    return [(column, values)] if mask is None else [(column, values), (mask_column(column), mask)]


def write_segment(storage: Storage, batch: SampleBatch) -> Segment:
    """Write a batch under a fresh name. It is durable, and invisible until a log entry names it."""
    path = f"segments/{uuid.uuid4().hex}.zarr.zip"
    columns = list(batch_columns(batch))
    _check_arrays(columns, batch.vocabulary, {"sample": len(batch), "atom": batch.n_atoms_total})
    stored, file = write_columns(storage, path, columns, batch.vocabulary)
    return Segment(
        path, len(batch), batch.n_atoms_total, summarise(batch), stored, dict(batch.vocabulary), {path: file}
    )


def _check_arrays(
    columns: Iterable[tuple[Column, Array]], vocabulary: Mapping[str, Sequence[str]], rows: Mapping[str, int]
) -> None:
    """Raise `DataError` if an array, perhaps one that was set by hand, is not what the description of its column says.

    Readers take dtype and shape from the description: other bytes would be other numbers.
    """
    for column, array in columns:
        shape = (rows[column.axis], *column.shape)
        if array.dtype != np.dtype(column.dtype) or array.shape != shape:
            raise DataError(
                f"{column.name}: expected {column.dtype} of shape {shape}, got {array.dtype} of shape {array.shape}; make "
                "the batch with SampleBatch(...), which converts what it is given, instead of setting its arrays"
            )
        words = vocabulary.get(column.name)
        if words and array.size and int(array.max()) >= len(words):
            raise DataError(
                f"{column.name}: expected codes below {len(words)}, one for each string, got {array.max()}; make the batch "
                "with SampleBatch(...) and strings"
            )


def discard(storage: Storage, path: str) -> None:
    """Remove a segment or layer that no log entry names, or leave it to garbage collection if that fails."""
    with contextlib.suppress(OSError, StorageError):
        storage.delete([path])


def write_layer(
    storage: Storage,
    segment: Segment,
    columns: Iterable[tuple[Column, Array]],
    vocabulary: Mapping[str, tuple[str, ...]] | None = None,
    *,
    attached: bool = False,
) -> Layer:
    """Write more columns over the rows of a segment under a fresh name, to be named by a log entry.

    `vocabulary` has the strings of the user columns of strings. `attached` says that the labels were made elsewhere.
    """
    path = f"layers/{uuid.uuid4().hex}.zarr.zip"
    columns = list(columns)
    _check_arrays(columns, vocabulary or {}, {"sample": segment.n_samples, "atom": segment.n_atoms})
    counts = _count_labelled(ColumnReader(storage, ChunkCache(0)), segment, columns)
    words = dict(vocabulary or {})
    stored, file = write_columns(storage, path, columns, words)
    return Layer(path, segment.path, stored, replace(file, attached=attached), counts, words)


def _count_labelled(reader: ColumnReader, segment: Segment, columns: Sequence[tuple[Column, Array]]) -> dict[str, int]:
    """Return how many samples have a label of each teacher in a new layer, together with the labels below the layer."""
    labels: dict[str, dict[str, Array]] = {}
    described = described_properties(column for column, _ in columns)
    for column, array in columns:
        if is_label(column.name):
            name, teacher = split_key(column.name)
            labels.setdefault(teacher or "", {})[name] = array
    counts = {}
    for teacher, named in labels.items():
        if any(
            property_of(name, described).axis == "sample" and has_label(name, array, np.zeros(0), described).all()
            for name, array in named.items()
        ):
            counts[teacher] = segment.n_samples  # the usual case, in which nothing has to be read
            continue
        below = {split_key(key)[0]: read_column(reader, stored) for key, stored in segment.columns.items()
                 if is_label(key) and split_key(key)[1] == teacher}  # fmt: skip
        n_atoms = read_column(reader, segment.columns["n_atoms"])
        labelled = has_any_label(named, n_atoms, described) | has_any_label(below, n_atoms, segment.described)
        counts[teacher] = int(np.count_nonzero(labelled))
    return counts


def summarise(batch: SampleBatch) -> Summary:
    """Return the summary of a batch that the log keeps beside its columns."""
    counts = np.bincount(batch.numbers)
    return Summary(
        elements={int(z): int(counts[z]) for z in np.flatnonzero(counts)},
        n_periodic=int(batch.pbc.any(axis=1).sum()),
        n_atoms_min=int(batch.n_atoms.min()),
        n_atoms_max=int(batch.n_atoms.max()),
        labelled={
            teacher: int(np.count_nonzero(has_any_label(labels, batch.n_atoms, batch.properties)))
            for teacher, labels in batch.labels.items()
        },
    )


def write_columns(
    storage: Storage,
    path: str,
    columns: Iterable[tuple[Column, Array]],
    vocabulary: Mapping[str, tuple[str, ...]],
) -> tuple[dict[str, StoredColumn], StoredFile]:
    """Write columns as a zipped Zarr group; return what the log must say of them and of their file."""
    columns = list(columns)
    shards: dict[str, tuple[Layout, int, int, str]] = {}
    frame = hashlib.sha256()
    nbytes = 0

    def parts() -> Iterator[bytes]:
        nonlocal nbytes
        archive = ArchiveWriter()
        layouts = {column.name: Layout.of(column, len(array)) for column, array in columns}
        # The smallest first: they are ready while the large ones are still being compressed.
        pending = [(column, _encode(column, layouts[column.name], array))
                   for column, array in sorted(columns, key=lambda pair: pair[1].nbytes)]  # fmt: skip
        for name, document in _documents(columns, layouts, vocabulary):
            text = archive.header(name, document) + document
            frame.update(text)
            yield text
        for column, chunks in pending:
            data = join_chunks([chunk if isinstance(chunk, bytes) else chunk.result() for chunk in chunks])
            header = archive.header(f"{column.name}/{shard_name(column)}", data)
            frame.update(header)
            yield header
            place = archive.offset - len(data)
            shards[column.name] = (layouts[column.name], place, len(data), digest(data))
            yield data
        directory = archive.directory()
        frame.update(directory)
        nbytes = archive.offset
        yield directory

    storage.write(path, parts())
    file = StoredFile(path, nbytes, short(frame))
    stored = {}
    for column, _ in columns:
        layout, offset, size, shard_digest = shards[column.name]
        stored[column.name] = StoredColumn(file, column, layout.rows, layout.chunk, offset, size, shard_digest)
    return stored, file


def _encode(column: Column, layout: Layout, array: Array) -> list[bytes] | list[Future[bytes]]:
    """Return the compressed chunks of a column, large ones as they become ready in other threads."""
    if array.nbytes <= _IN_PLACE_NBYTES:
        return [encode_chunk(column, layout, array, i) for i in range(layout.n_chunks)]
    return [cpu_pool().submit(encode_chunk, column, layout, array, i) for i in range(layout.n_chunks)]


def _documents(
    columns: Iterable[tuple[Column, Array]], layouts: Mapping[str, Layout], vocabulary: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each Zarr metadata document of a group, that of the group first."""
    yield "zarr.json", json_bytes(GROUP)
    for column, _ in columns:
        metadata = array_metadata(column, layouts[column.name], attributes(column, vocabulary))
        yield f"{column.name}/zarr.json", json_bytes(metadata)
