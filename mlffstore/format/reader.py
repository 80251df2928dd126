"""Reading rows of the columns of segments and layers, and whole segments as batches."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.batch import SampleBatch, assemble
from mlffstore.data.schema import Array, is_mask, split_key
from mlffstore.errors import CorruptionError
from mlffstore.format.codec import Layout, decode_chunk, digest, parse_index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.format.records import Segment, StoredColumn
    from mlffstore.storage import Storage

#: Decoded chunks kept in memory for small reads, bytes.
CACHE_NBYTES = 256 << 20
#: Files up to this size are read whole when one column is asked for, since the others mostly are too: on a disk, and where
#: each read is a request over a network.
SMALL_NBYTES, SMALL_REMOTE_NBYTES = 64 << 10, 1 << 20
#: Small files kept in memory.
_SMALL_FILES = 16


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
        """Keep a chunk that was decoded just now; the ones unused for longest go."""
        if array.nbytes > self.nbytes // 4 or self._chunks.setdefault(key, array) is not array:
            return  # too large, or another thread was faster
        self._used += array.nbytes
        while self._used > self.nbytes:
            try:
                _, old = self._chunks.popitem(last=False)
            except KeyError:
                break
            self._used -= old.nbytes


class ColumnReader:
    """Reads rows of the columns of segments. Nothing is returned that a checksum does not cover.

    Parameters
    ----------
    storage : Storage
    cache : ChunkCache
    """

    def __init__(self, storage: Storage, cache: ChunkCache) -> None:
        self.storage, self.cache = storage, cache
        self._small_nbytes = SMALL_REMOTE_NBYTES if storage.remote else SMALL_NBYTES
        #: Files that were read whole, by path, the last ones.
        self._small: dict[str, bytes] = {}

    def _read(self, stored: StoredColumn, start: int, nbytes: int) -> bytes | memoryview:
        """Return bytes of the shard of a column; `start` counts from its beginning."""
        file = stored.file
        start += stored.offset
        if file.nbytes > self._small_nbytes:
            return self._read_file(file.path, start, nbytes)
        data = self._small.get(file.path)
        if data is None:
            data = self._read_file(file.path, 0, file.nbytes)
            self._small[file.path] = data
            if len(self._small) > _SMALL_FILES:
                with contextlib.suppress(KeyError, StopIteration, RuntimeError):  # another thread may do the same
                    del self._small[next(iter(self._small))]
        return memoryview(data)[start : start + nbytes]

    def _read_file(self, path: str, start: int, nbytes: int) -> bytes:
        try:
            data = self.storage.read(path, start, nbytes)
        except FileNotFoundError as error:
            raise CorruptionError(
                f"{self.storage.url}/{path}: the file that the log names is missing; if this version has expired, read a "
                "newer one, else restore the file from a copy"
            ) from error
        if len(data) != nbytes:
            raise CorruptionError(
                f"{self.storage.url}/{path}: expected {nbytes} bytes at {start}, got {len(data)}; the file was truncated"
            )
        return data

    def chunks(self, stored: StoredColumn, wanted: list[int]) -> list[Array]:
        """Return some inner chunks of a column, decoded and checked."""
        layout = Layout(stored.rows, stored.chunk)
        where = f"{self.storage.url}/{stored.file.path}/{stored.column.name}"
        arrays = {i: self.cache.get((stored.file.path, stored.column.name, i)) for i in wanted}
        missing = [i for i, array in arrays.items() if array is None]
        if missing:
            if 2 * len(missing) >= layout.n_chunks:
                # Most of the shard: one read, checked against the log, which also finds exchanged files.
                data = self._read(stored, 0, stored.nbytes)
                if digest(data) != stored.digest:
                    raise CorruptionError(f"{where}: is not what was committed (SHA-256); restore the file from a copy")
                index = data[-layout.index_nbytes :]
                pairs = parse_index(index, layout, stored.nbytes, where)
                pieces = [memoryview(data)[pairs[i][0] : pairs[i][0] + pairs[i][1]] for i in missing]
            else:
                index = self._read(stored, stored.nbytes - layout.index_nbytes, layout.index_nbytes)
                pairs = parse_index(index, layout, stored.nbytes, where)
                pieces = [memoryview(self._read(stored, *pairs[i])) for i in missing]
            for i, piece in zip(missing, pieces, strict=True):
                arrays[i] = decoded = decode_chunk(piece, stored.column, layout, where)
                self.cache.put((stored.file.path, stored.column.name, i), decoded)
        out = []
        for i in wanted:
            array = arrays[i]
            assert array is not None
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
    words = {name: meanings for name, meanings in segment.vocabulary.items() if name in plain}
    return assemble(plain, labels, segment.user, words, masks=masks, properties=segment.described)
