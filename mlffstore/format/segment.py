"""Writing segments and layers: a batch, or more columns over one, as one valid Zarr v3 group."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.labels import has_any_label, has_label
from mlffstore.data.schema import (
    CONVENTIONS,
    LABELS,
    REASON,
    STANDARD,
    Array,
    Column,
    label_column,
    label_key,
    mask_column,
    split_key,
)
from mlffstore.errors import StorageError
from mlffstore.format.codec import (
    Layout,
    array_metadata,
    digest,
    encode_chunk,
    join_chunks,
    shard_name,
)
from mlffstore.format.metadata import attributes, json_bytes, metadata_paths
from mlffstore.format.reader import ChunkCache, ColumnReader, read_column
from mlffstore.format.records import Layer, Segment, StoredColumn, Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Future

    from mlffstore.data.batch import SampleBatch
    from mlffstore.storage import Content, Storage
from mlffstore.runtime.threads import cpu_pool

#: Decoded chunks kept in memory for small reads, bytes.
CACHE_NBYTES = 256 << 20


def batch_columns(batch: SampleBatch) -> list[tuple[Column, Array]]:
    """Return every column of a batch as it goes to disk, under its on-disk name."""
    out = []
    for name, spec in STANDARD.items():
        array = batch.content_hash if name == "content_hash" else batch.root if name == "root" else batch.columns[name]
        out.append((spec.with_dtype(array.dtype.name) if name == "positions" else spec, array))
    for teacher, labels in batch.labels.items():
        for name, array in labels.items():
            out.append((label_column(name, teacher), array))
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
    path = f"segments/{uuid.uuid4().hex}"
    stored, metadata = write_columns(storage, path, batch_columns(batch), batch.vocabulary)
    return Segment(
        path, len(batch), batch.n_atoms_total, summarise(batch), stored, dict(batch.vocabulary), {path: metadata}
    )


def discard(storage: Storage, folder: str) -> None:
    """Remove a segment or layer that no log entry names, or leave it to garbage collection if that fails."""
    with contextlib.suppress(OSError, StorageError):
        storage.delete([file.path for file in storage.list(folder)])


def marker(folder: str) -> str:
    """Return the path of the file of a segment or layer that garbage collection removes first."""
    return f"{folder}/zarr.json"


def files_of(part: Segment | Layer) -> list[str]:
    """Return the paths of the files of a segment or layer itself, without the layers over it."""
    columns = {key: stored for key, stored in part.columns.items() if stored.folder == part.path}
    shards = [f"{part.path}/{key}/{shard_name(stored.column)}" for key, stored in columns.items()]
    return [*metadata_paths(part.path, columns), *shards]


def write_layer(storage: Storage, segment: Segment, columns: Iterable[tuple[Column, Array]]) -> Layer:
    """Write more columns over the rows of a segment under a fresh name, to be named by a log entry."""
    path = f"layers/{uuid.uuid4().hex}"
    columns = list(columns)
    counts = _count_labelled(ColumnReader(storage, ChunkCache(0)), segment, columns)
    stored, metadata = write_columns(storage, path, columns, {})
    return Layer(path, segment.path, stored, metadata, counts)


def _count_labelled(reader: ColumnReader, segment: Segment, columns: Iterable[tuple[Column, Array]]) -> dict[str, int]:
    """Return how many samples have a label of each teacher in a new layer, together with the labels below the layer."""
    labels: dict[str, dict[str, Array]] = {}
    for column, array in columns:
        name, teacher = split_key(column.name)
        if teacher is not None and name in LABELS:
            labels.setdefault(teacher, {})[name] = array
    counts = {}
    for teacher, named in labels.items():
        if any(
            LABELS[name].axis == "sample" and has_label(name, array, np.zeros(0)).all() for name, array in named.items()
        ):
            counts[teacher] = segment.n_samples  # the usual case, in which nothing has to be read
            continue
        below = {name: read_column(reader, stored) for name in LABELS
                 if (stored := segment.columns.get(label_key(name, teacher))) is not None}  # fmt: skip
        n_atoms = read_column(reader, segment.columns["n_atoms"])
        labelled = has_any_label(named, n_atoms) | has_any_label(below, n_atoms)
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
            teacher: int(np.count_nonzero(has_any_label(labels, batch.n_atoms)))
            for teacher, labels in batch.labels.items()
        },
    )


def write_columns(
    storage: Storage,
    folder: str,
    columns: Iterable[tuple[Column, Array]],
    vocabulary: Mapping[str, tuple[str, ...]],
) -> tuple[dict[str, StoredColumn], str]:
    """Write columns as the arrays of one Zarr group and return what the log must say of them and of their metadata."""
    columns = list(columns)
    order = [column.name for column, _ in columns]
    layouts = {column.name: Layout.of(column, len(array)) for column, array in columns}
    chunks: dict[str, list[Future[bytes]]] = {}
    # The smallest first: their files reach the disk while the large ones are still being compressed.
    columns = sorted(columns, key=lambda pair: pair[1].nbytes)
    for column, array in columns:
        layout = layouts[column.name]
        chunks[column.name] = [
            cpu_pool().submit(encode_chunk, column, layout, array, i) for i in range(layout.n_chunks)
        ]
    stored = {}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"Conventions": CONVENTIONS}}
    documents = {f"{folder}/zarr.json": json_bytes(group)}
    by_name = {column.name: column for column, _ in columns}
    for name in order:
        metadata = array_metadata(by_name[name], layouts[name], attributes(by_name[name], vocabulary))
        documents[f"{folder}/{name}/zarr.json"] = json_bytes(metadata)
    files: dict[str, Content] = dict(documents)
    for column, _ in columns:

        def shard(column: Column = column) -> bytes:
            layout = layouts[column.name]
            data = join_chunks([chunk.result() for chunk in chunks[column.name]])
            stored[column.name] = StoredColumn(folder, column, layout.rows, layout.chunk, len(data), digest(data))
            return data

        files[f"{folder}/{column.name}/{shard_name(column)}"] = shard
    storage.write(files)
    return {name: stored[name] for name in order}, digest(b"".join(documents.values()))
