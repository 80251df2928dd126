"""One column of a segment to and from the bytes of a Zarr v3 array that has one chunk, or one shard.

A chunk is compressed by Blosc (zstd after a byte shuffle) and followed by its CRC-32C: the codecs `bytes`, `blosc` and
`crc32c` of the Zarr v3 specification. A column of more than one chunk is a shard: the chunks one after another, then the
index of (offset, length) pairs, followed by its own CRC-32C, which is the codec `sharding_indexed`. Any Zarr v3 reader opens
both. It is written here because a whole column is encoded in one go, in threads, without an event loop that a fork would
break.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numcodecs import blosc

from mlffstore.errors import CorruptionError

if TYPE_CHECKING:
    from mlffstore.data.schema import Array, Column

#: Bytes of an uncompressed inner chunk, at most.
CHUNK_NBYTES = 1 << 20
#: zstd's level. 1 is within 1 % of level 5 on shuffled coordinates and several times as fast.
LEVEL = 1
#: Bytes that Blosc shuffles and compresses together: a whole chunk. The smaller blocks that it would choose by itself
#: (32 KiB at level 1) make positions 5 % and forces 9 % larger, and take two to four times as long to write and to read.
BLOCK_NBYTES = CHUNK_NBYTES
_ABSENT = (1 << 64) - 1
_BLOSC_HEADER = 16


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes."""
    return int(google_crc32c.value(bytes(data) if isinstance(data, memoryview) else data))


def extend_crc32c(value: int, array: Array) -> int:
    """Return the CRC-32C of what `value` is the CRC-32C of, followed by the bytes of a contiguous array."""
    return int(google_crc32c.extend(value, array))


def digest(data: bytes | memoryview) -> str:
    """Return the first 128 bits of the SHA-256 of a file, in hexadecimal.

    The log keeps this of every shard. A CRC of the whole file would not do: chunks end with their own CRC, and the CRC of
    anything followed by its CRC is a constant, so that two shards with chunks of equal length could not be told apart.
    """
    return short(hashlib.sha256(data))


def short(sha256: hashlib._Hash) -> str:
    """Return the first 128 bits of a SHA-256 in hexadecimal."""
    return sha256.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a column of `rows` rows is cut into inner chunks of `chunk` rows; the last one is padded."""

    rows: int
    chunk: int

    @classmethod
    def of(cls, column: Column, rows: int) -> Layout:
        """Choose chunks of equal size, as few as `CHUNK_NBYTES` allows, so that hardly anything is padding."""
        n = max(1, math.ceil(rows * max(column.row_nbytes, 1) / CHUNK_NBYTES))
        return cls(rows, max(1, math.ceil(rows / n)))

    @property
    def n_chunks(self) -> int:
        """Number of inner chunks."""
        return max(1, math.ceil(self.rows / self.chunk))

    @property
    def least_nbytes(self) -> int:
        """Bytes of the smallest data that can hold the chunks: headers, checksums and index."""
        return self.n_chunks * (_BLOSC_HEADER + 4) + self.index_nbytes

    @property
    def index_nbytes(self) -> int:
        """Bytes of the index at the end of the shard, with its checksum; none if there is only one chunk."""
        return 16 * self.n_chunks + 4 if self.n_chunks > 1 else 0


def fill_value(column: Column) -> Any:
    """Return what pads the last chunk: NaN for floats, so that no padding can pass for data; zero otherwise."""
    return np.nan if np.dtype(column.dtype).kind == "f" else 0


def encode_chunk(column: Column, layout: Layout, array: Array, i: int) -> bytes:
    """Return inner chunk `i`, compressed, with its checksum."""
    part = array[i * layout.chunk : (i + 1) * layout.chunk]
    if len(part) < layout.chunk:
        pad = np.full((layout.chunk - len(part), *column.shape), fill_value(column), column.dtype)
        part = np.concatenate([part, pad])
    part = np.ascontiguousarray(part).reshape(-1)
    if part.dtype == bool:
        part = part.view(np.uint8)
    data = bytes(blosc.compress(part, b"zstd", LEVEL, blosc.SHUFFLE, BLOCK_NBYTES))
    return data + struct.pack("<I", crc32c(data))


def join_chunks(chunks: list[bytes]) -> bytes:
    """Return the shard, the chunks and their index, or the only chunk."""
    if len(chunks) == 1:
        return chunks[0]
    sizes = np.array([len(chunk) for chunk in chunks], dtype="<u8")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype("<u8")
    index = np.stack([starts, sizes], axis=1).astype("<u8").tobytes()
    return b"".join([*chunks, index, struct.pack("<I", crc32c(index))])


def parse_index(data: bytes | memoryview, layout: Layout, shard_nbytes: int, where: str) -> list[tuple[int, int]]:
    """Return (offset, length) of every inner chunk from the bytes of the index.

    Raises
    ------
    CorruptionError
        If the checksum is wrong, a chunk is missing, or a chunk lies outside the shard.
    """
    if layout.n_chunks == 1:
        return [(0, shard_nbytes)]
    body, stored = data[:-4], bytes(data[-4:])
    if len(data) != layout.index_nbytes or struct.pack("<I", crc32c(body)) != stored:
        raise CorruptionError(
            f"{where}: the shard index is damaged; run 'mlffstore verify --full' and restore the file"
        )
    pairs = [(int(a), int(n)) for a, n in np.frombuffer(body, "<u8").reshape(-1, 2)]
    limit = shard_nbytes - layout.index_nbytes
    for i, (start, size) in enumerate(pairs):
        if start == _ABSENT or start + size > limit or size < _BLOSC_HEADER + 4:  # with its checksum
            raise CorruptionError(f"{where}: chunk {i} of {len(pairs)} is missing from the shard; restore the file")
    return pairs


def decode_chunk(data: bytes | memoryview, column: Column, layout: Layout, where: str) -> Array:
    """Return one inner chunk, shape (chunk, ...), after checking its checksum.

    Raises
    ------
    CorruptionError
        If the checksum or the decompressed size is wrong.
    """
    body = bytes(data[:-4])
    if len(data) < _BLOSC_HEADER + 4 or struct.pack("<I", crc32c(body)) != bytes(data[-4:]):
        raise CorruptionError(
            f"{where}: a chunk fails its checksum; run 'mlffstore verify --full' and restore the file"
        )
    out = np.empty((layout.chunk, *column.shape), column.dtype)
    _check_blosc(body, out.nbytes, where)
    try:
        blosc.decompress(body, out.reshape(-1).view(np.uint8))
    except (RuntimeError, ValueError) as error:
        raise CorruptionError(f"{where}: a chunk cannot be decompressed ({error}); restore the file") from error
    return out


def _check_blosc(body: bytes, nbytes: int, where: str) -> None:
    """Raise unless the header of a Blosc buffer agrees with what is there and with the size that the log promises.

    The library trusts the compressed size in the header: a larger one would make it read memory behind the buffer. A
    checksum does not help, since whoever made the file made that too. The layout is described in README_CHUNK_FORMAT.rst of
    c-blosc 1.
    """
    version, _, flags, typesize, n_raw, block, n_stored = struct.unpack_from("<BBBBIII", body)
    copied = bool(flags & 2)
    n_blocks = -(-n_raw // block) if block else 0
    if (
        version != 2
        or n_raw != nbytes
        or n_stored != len(body)
        or not typesize
        or (copied and n_stored != n_raw + _BLOSC_HEADER)
        or (n_raw and not 0 < block <= max(n_raw, BLOCK_NBYTES))
        or (not copied and _BLOSC_HEADER + 4 * n_blocks > n_stored)
    ):
        raise CorruptionError(
            f"{where}: expected a Blosc chunk of {len(body)} bytes for {nbytes}, got a header that says {n_stored} for "
            f"{n_raw}; the file is damaged or was made to do harm, restore it from a copy"
        )
    if not copied and n_blocks:
        starts = struct.unpack_from(f"<{n_blocks}I", body, _BLOSC_HEADER)
        if not all(_BLOSC_HEADER + 4 * n_blocks <= start <= n_stored - 4 for start in starts):
            raise CorruptionError(f"{where}: a block of a chunk lies outside of it; restore the file from a copy")


def array_metadata(column: Column, layout: Layout, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the Zarr v3 metadata document (`zarr.json`) of the column."""
    itemsize = np.dtype(column.dtype).itemsize
    little = {"name": "bytes", "configuration": {"endian": "little"}} if itemsize > 1 else {"name": "bytes"}
    blosc_codec = {
        "name": "blosc",
        "configuration": {
            "typesize": itemsize,
            "cname": "zstd",
            "clevel": LEVEL,
            "shuffle": "shuffle",
            "blocksize": BLOCK_NBYTES,
        },
    }
    kind = np.dtype(column.dtype).kind
    codecs: list[dict[str, Any]] = [little, blosc_codec, {"name": "crc32c"}]
    if layout.n_chunks > 1:
        configuration = {
            "chunk_shape": [layout.chunk, *column.shape],
            "codecs": codecs,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [layout.rows, *column.shape],
        "data_type": column.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [layout.chunk * layout.n_chunks, *column.shape]},
        },
        "chunk_key_encoding": {"name": "default"},
        "fill_value": "NaN" if kind == "f" else False if kind == "b" else 0,
        "codecs": codecs,
        "attributes": attributes,
        "dimension_names": list(column.dims),
    }


def shard_name(column: Column) -> str:
    """Return the name of the only shard, ``c/0`` with one more ``/0`` for each inner dimension."""
    return "c" + "/0" * (1 + len(column.shape))
