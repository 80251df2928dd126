"""Segments and layers: writing a batch as one valid Zarr v3 group, and reading rows of its columns back."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.batch import assemble
from mlffstore.data.labels import has_any_label, has_label
from mlffstore.data.schema import (
    CODED,
    CONVENTIONS,
    LABELS,
    REASON,
    STANDARD,
    Array,
    Column,
    is_mask,
    label_column,
    label_key,
    mask_column,
    split_key,
)
from mlffstore.errors import CorruptionError, StorageError
from mlffstore.format.codec import (
    Layout,
    array_metadata,
    decode_chunk,
    digest,
    encode_chunk,
    join_chunks,
    parse_index,
    shard_name,
)
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
    for who, named in batch.labels.items():
        for name, array in named.items():
            out.append((label_column(name, who), array))
    for name, column in batch.user.items():
        out += user_column_arrays(column, batch.columns[name], batch.masks.get(name))
    if "reason" in batch.columns:
        out.append((REASON, batch.columns["reason"]))
    return out


def user_column_arrays(column: Column, values: Array, mask: Array | None) -> list[tuple[Column, Array]]:
    """Return a user column and, if some rows have no value, its mask, as they go to disk."""
    return [(column, values)] if mask is None else [(column, values), (mask_column(column), mask)]


def write_segment(storage: Storage, batch: SampleBatch) -> Segment:
    """Write a batch under a fresh name. It is durable, but nobody sees it before a log entry names it."""
    path = f"segments/{uuid.uuid4().hex}"
    stored, metadata = write_columns(storage, path, batch_columns(batch), batch.vocabulary)
    return Segment(
        path, len(batch), batch.n_atoms_total, summarise(batch), stored, dict(batch.vocabulary), {path: metadata}
    )


def discard(storage: Storage, folder: str) -> None:
    """Remove a segment or layer that no log entry names, or leave it to garbage collection if that fails."""
    with contextlib.suppress(OSError, StorageError):
        storage.delete([found.path for found in storage.list(folder)])


def marker(folder: str) -> str:
    """Return the path of the file of a segment or layer that garbage collection removes first."""
    return f"{folder}/zarr.json"


def files_of(part: Segment | Layer) -> list[str]:
    """Return the paths of the files of a segment or layer itself, without the layers over it."""
    own = {key: stored for key, stored in part.columns.items() if stored.folder == part.path}
    shards = [f"{part.path}/{key}/{shard_name(stored.column)}" for key, stored in own.items()]
    return [*metadata_paths(part.path, own), *shards]


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
        if teacher is not None and not is_mask(column.name):
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
    """Return what the log says of a batch beside its columns."""
    counts = np.bincount(batch.numbers)
    return Summary(
        elements={int(z): int(counts[z]) for z in np.flatnonzero(counts)},
        n_periodic=int(batch.pbc.any(axis=1).sum()),
        n_atoms_min=int(batch.n_atoms.min()),
        n_atoms_max=int(batch.n_atoms.max()),
        labelled={
            teacher: int(np.count_nonzero(has_any_label(named, batch.n_atoms)))
            for teacher, named in batch.labels.items()
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


def metadata_paths(folder: str, names: Iterable[str]) -> list[str]:
    """Return the paths of the Zarr metadata documents of a folder in the order of their digest."""
    return [f"{folder}/zarr.json", *(f"{folder}/{name}/zarr.json" for name in names)]


def attributes(column: Column, vocabulary: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the CF attributes of a column."""
    out: dict[str, Any] = {"units": column.unit, "long_name": column.long_name}
    name, teacher = split_key(column.name)
    if teacher is not None and not is_mask(column.name):
        out["teacher"] = teacher
    if name == "n_atoms":
        out["sample_dimension"] = "atom"
    if name in (*CODED, "reason"):
        words = vocabulary.get(name, ())
        out |= {"flag_values": list(range(len(words))), "flag_meanings": " ".join(flag_word(w) for w in words)}
        out["meanings"] = list(words)
    return out


def flag_word(text: str) -> str:
    """Return a string as one word of CF `flag_meanings`, which are separated by blanks."""
    return "_".join(text.split()) or "_"


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a Zarr metadata document as it is written."""
    return json.dumps(document, indent=1).encode()


class ChunkCache:
    """The chunks decoded last, up to a number of bytes.

    Threads may share it without a lock (each step is one atomic dictionary operation), so a fork cannot leave it locked.
    """

    def __init__(self, nbytes: int = CACHE_NBYTES) -> None:
        self.nbytes = nbytes
        self._chunks: OrderedDict[tuple[str, str, int], Array] = OrderedDict()
        self._used = 0

    def get(self, key: tuple[str, str, int]) -> Array | None:
        """Return a chunk, or None."""
        array = self._chunks.get(key)
        if array is not None:
            with contextlib.suppress(KeyError):  # another thread may just have dropped it
                self._chunks.move_to_end(key)
        return array

    def put(self, key: tuple[str, str, int], array: Array) -> None:
        """Keep a chunk; the ones unused for longest go."""
        if array.nbytes > self.nbytes // 4 or key in self._chunks:
            return
        self._chunks[key] = array
        self._used += array.nbytes
        while self._used > self.nbytes:
            try:
                _, old = self._chunks.popitem(last=False)
            except KeyError:
                break
            self._used -= old.nbytes


class ColumnReader:
    """Reads rows of the columns of segments.

    Parameters
    ----------
    storage : Storage
    cache : ChunkCache
    """

    def __init__(self, storage: Storage, cache: ChunkCache) -> None:
        self.storage, self.cache = storage, cache

    def _shard_path(self, stored: StoredColumn) -> str:
        return f"{stored.folder}/{stored.column.name}/{shard_name(stored.column)}"

    def _read(self, stored: StoredColumn, start: int, nbytes: int) -> bytes:
        path = self._shard_path(stored)
        try:
            data = self.storage.read(path, start, nbytes)
        except FileNotFoundError as error:
            raise CorruptionError(
                f"{self.storage.url}/{path}: the file is missing, though the log promises it; restore it from a copy"
            ) from error
        if len(data) != nbytes:
            raise CorruptionError(
                f"{self.storage.url}/{path}: expected {nbytes} bytes at {start}, got {len(data)}; the file was truncated"
            )
        return data

    def chunks(self, stored: StoredColumn, wanted: list[int]) -> list[Array]:
        """Return some inner chunks of a column, decoded and checked."""
        layout = Layout(stored.rows, stored.chunk)
        where = f"{self.storage.url}/{self._shard_path(stored)}"
        found = {i: self.cache.get((stored.folder, stored.column.name, i)) for i in wanted}
        missing = [i for i, array in found.items() if array is None]
        if missing:
            if 2 * len(missing) >= layout.n_chunks:
                # Most of the shard: one read, checked against the log, which also finds exchanged files.
                data = self._read(stored, 0, stored.nbytes)
                if self.storage.size(self._shard_path(stored)) != stored.nbytes or digest(data) != stored.digest:
                    raise CorruptionError(
                        f"{where}: is not the file that was committed (SHA-256); restore it from a copy"
                    )
                index = data[-layout.index_nbytes :]
                pairs = parse_index(index, layout, stored.nbytes, where)
                pieces = [memoryview(data)[pairs[i][0] : pairs[i][0] + pairs[i][1]] for i in missing]
            else:
                index = self._read(stored, stored.nbytes - layout.index_nbytes, layout.index_nbytes)
                pairs = parse_index(index, layout, stored.nbytes, where)
                pieces = [memoryview(self._read(stored, *pairs[i])) for i in missing]
            for i, piece in zip(missing, pieces, strict=True):
                found[i] = decode_chunk(piece, stored.column, layout, where)
        out = []
        for i in wanted:
            array = found[i]
            assert array is not None
            self.cache.put((stored.folder, stored.column.name, i), array)
            out.append(array)
        return out

    def read(self, stored: StoredColumn, start: int, stop: int, out: Array) -> None:
        """Copy rows `start` to `stop` into `out`, shape (stop - start, ...)."""
        if stop <= start:
            return
        first, last = start // stored.chunk, (stop - 1) // stored.chunk
        for i, array in zip(range(first, last + 1), self.chunks(stored, list(range(first, last + 1))), strict=True):
            lo, hi = max(start, i * stored.chunk), min(stop, (i + 1) * stored.chunk)
            out[lo - start : hi - start] = array[lo - i * stored.chunk : hi - i * stored.chunk]

    def gather(self, stored: StoredColumn, rows: Array) -> Array:
        """Return the rows at `rows`, in that order, reading only the chunks that hold them."""
        ids = rows // stored.chunk
        used = np.unique(ids)
        if len(used) == 0:
            return np.empty((0, *stored.column.shape), stored.column.dtype)
        chunks = self.chunks(stored, used.tolist())
        if len(chunks) == 1:
            return np.asarray(chunks[0][rows - used[0] * stored.chunk])
        position = np.searchsorted(used, ids)
        return np.asarray(np.concatenate(chunks)[position * stored.chunk + rows % stored.chunk])


def read_column(reader: ColumnReader, stored: StoredColumn) -> Array:
    """Return a whole column, shape (rows, ...), checked against the log."""
    out = np.empty((stored.rows, *stored.column.shape), stored.column.dtype)
    reader.read(stored, 0, stored.rows, out)
    return out


def read_segment(reader: ColumnReader, segment: Segment) -> SampleBatch:
    """Return the samples of a segment with everything that the layers over it say: the inverse of `write_segment`."""
    return assemble_segment(segment, {key: read_column(reader, stored) for key, stored in segment.columns.items()})


def assemble_segment(segment: Segment, columns: Mapping[str, Array]) -> SampleBatch:
    """Return the batch of the columns of a segment, given by their on-disk names."""
    plain: dict[str, Array] = {}
    labels: dict[str, dict[str, Array]] = {}
    masks: dict[str, Array] = {}
    for key, array in columns.items():
        name, teacher = split_key(key)
        if teacher is None:
            plain[key] = array
        elif is_mask(key):
            masks[teacher] = array
        else:
            labels.setdefault(teacher, {})[name] = array
    return assemble(plain, labels, segment.user, dict(segment.vocabulary), masks=masks)
