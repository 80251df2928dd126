"""HDF5 chunks, compressed in threads and written in order.

The HDF5 library compresses in one thread, under one lock, with zlib. Here chunks are shuffled, deflated by libdeflate and
checksummed in threads and handed to `write_direct_chunk`; what comes out is what the filters shuffle, gzip and fletcher32
would have written, about twice as fast a thread and a little smaller. Any HDF5 reader opens it.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import deflate
import numpy as np
from numcodecs.fletcher32 import Fletcher32

from mlffstore.runtime.threads import CPU_THREADS, cpu_pool

if TYPE_CHECKING:
    from concurrent.futures import Future

    import h5py

    from mlffstore.data.schema import Array

#: Bytes in the middle of a row of bytes that tell whether it is noise, and what it must shrink to if it is not.
_SAMPLE, _WORTH = 1 << 15, 0.99
#: Bytes of a stored block, at most.
_STORED = 0xFFFF
#: Chunks in memory beyond those that the threads work on.
_AHEAD = 8


@dataclass(slots=True)
class ChunkedDataset:
    """A dataset that is being written: rows that do not fill a chunk yet, and the digests of the chunks before them.

    Attributes
    ----------
    dataset : h5py.Dataset
    level : int or None
        Compression level of libdeflate. With None the HDF5 library applies the dataset's filters by itself.
    """

    dataset: h5py.Dataset
    level: int | None
    row: int = 0
    held: int = 0
    parts: list[Array] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)


class ChunkQueue:
    """Compresses chunks in threads and writes them in the order in which they came, so that files are reproducible."""

    def __init__(self) -> None:
        self._queue: deque[tuple[ChunkedDataset, int, Future[tuple[Any, bytes]]]] = deque()

    def add(self, column: ChunkedDataset, rows: Array) -> None:
        """Append rows. They are not copied, and must not be changed afterwards."""
        size = column.dataset.chunks[0] if len(rows) else 0  # a dataset without rows has no chunks
        while len(rows):
            part = rows[: size - column.held]
            column.parts.append(part)
            column.held, rows = column.held + len(part), rows[len(part) :]
            if column.held == size:
                self._submit(column)

    def finish(self, column: ChunkedDataset) -> None:
        """Write the last rows, in a chunk that is padded with the fill value."""
        if column.held:
            self._submit(column)

    def drain(self) -> None:
        """Wait for all chunks and write them."""
        while self._queue:
            self._write()

    def _submit(self, column: ChunkedDataset) -> None:
        job = cpu_pool().submit(encode, column.parts, column.dataset.chunks, column.dataset.fillvalue, column.level)
        self._queue.append((column, column.row, job))
        column.row, column.held, column.parts = column.row + column.held, 0, []
        while self._queue and (len(self._queue) > CPU_THREADS + _AHEAD or self._queue[0][2].done()):
            self._write()

    def _write(self) -> None:
        column, row, job = self._queue.popleft()
        data, digest = job.result()
        column.digest.update(digest)
        if column.level is None:
            column.dataset[row : row + len(data)] = data
        else:
            column.dataset.id.write_direct_chunk((row, *[0] * (column.dataset.ndim - 1)), data)


def encode(parts: list[Array], shape: tuple[int, ...], fill: Any, level: int | None) -> tuple[Any, bytes]:
    """Return a chunk as HDF5 stores it (its rows, if `level` is None), and the SHA-256 of its rows."""
    rows = np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))
    digest = hashlib.sha256(rows.data).digest()
    if level is None:
        return rows, digest
    if len(rows) < shape[0]:
        rows = np.concatenate([rows, np.full((shape[0] - len(rows), *shape[1:]), fill, rows.dtype)])
    planes = np.ascontiguousarray(rows.view(np.uint8).reshape(-1, rows.itemsize).T)
    packed = zlib_stream(planes, level)
    return bytes(Fletcher32().encode(np.frombuffer(packed, np.uint8))), digest


def zlib_stream(planes: Array, level: int) -> bytes:
    """Return the rows of a matrix of bytes, one after another, as one zlib stream (RFC 1950).

    After the shuffle the first rows are the low bytes of the mantissas, which are noise: trying to compress them takes half
    of the time for nothing, and inflating them again takes time in every reader. Leading rows of which a sample does not
    shrink go into stored blocks (RFC 1951, 3.2.4); the rest is one deflate stream, which ends the zlib stream.
    """
    n, noise = planes.shape[1], 0
    while noise < len(planes) - 1 and n >= _SAMPLE:
        middle = (n - _SAMPLE) // 2
        if len(deflate.deflate_compress(planes[noise, middle : middle + _SAMPLE], 1)) < _WORTH * _SAMPLE:
            break
        noise += 1
    parts: list[Any] = [b"\x78\x9c"]  # deflate, window of 32 KiB, default effort
    stored = planes[:noise].reshape(-1)
    for low in range(0, len(stored), _STORED):
        block = stored[low : low + _STORED]
        parts += [struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF), block.data]
    parts.append(deflate.deflate_compress(planes[noise:].reshape(-1), level))
    parts.append(struct.pack(">I", zlib.adler32(planes.data)))
    return b"".join(parts)
