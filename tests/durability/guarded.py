"""Hostile chunks decoded between guard pages; run by `test_fuzz_chunks.py` in a process of its own, which may crash.

    python -m tests.durability.guarded SEED NUMBER [--unchecked]

Chunks of all compressors are changed at random, get a right CRC-32C again, and go through `decode_chunk`. Between its
checks and the Blosc library the chunk is put right before a page that may not be read, and so is the result: whatever
reads or writes one byte too many kills the process. The last line of the output is a JSON object with the numbers of
chunks that were refused and decoded.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import struct
import sys
from typing import Any

import numpy as np
from numcodecs import blosc

from mlffstore.data.schema import Column
from mlffstore.errors import CorruptionError
from mlffstore.format import codec

_libc = ctypes.CDLL(None, use_errno=True)
_COMPRESSORS = (b"zstd", b"lz4", b"lz4hc", b"blosclz", b"zlib")


class Guarded:
    """Memory of up to `nbytes` bytes with a page in front of it and one behind it that may not be touched."""

    def __init__(self, nbytes: int) -> None:
        self._n = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self._n + 2 * mmap.PAGESIZE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + mmap.PAGESIZE
        for page in (self._start - mmap.PAGESIZE, self._start + self._n):
            if _libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 0):  # PROT_NONE
                raise OSError(ctypes.get_errno(), "mprotect")

    def array(self, nbytes: int, *, at_end: bool) -> np.ndarray:
        """Return `nbytes` bytes that end where the page behind begins, or that begin where the page in front ends."""
        address = self._start + (self._n - nbytes if at_end else 0)
        return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8)


class GuardedBlosc:
    """Stands for `numcodecs.blosc` in `mlffstore.format.codec`: the real library on guarded memory."""

    def __init__(self) -> None:
        self.sources, self.results = Guarded(1 << 18), Guarded(1 << 18)
        self.at_end, self.n_calls = True, 0

    def decompress(self, body: bytes, out: np.ndarray) -> None:
        """Decompress from and to guarded memory."""
        self.n_calls += 1
        source = self.sources.array(len(body), at_end=self.at_end)
        source[:] = np.frombuffer(body, np.uint8)
        result = self.results.array(out.nbytes, at_end=self.at_end)
        blosc.decompress(source, result)
        out[:] = result


def original(rng: np.random.Generator) -> tuple[bytes, Column, codec.Layout]:
    """Return a good chunk without its CRC, made with random parameters, and what it is a chunk of."""
    dtype = np.dtype(rng.choice(["float64", "float32", "int16", "uint8", "bool"]))
    shape = ((), (3,))[int(rng.integers(2))]
    rows = int(rng.choice([1, 7, 100, 3000]))
    column = Column("x", "sample", ("xyz",) if shape else (), shape, dtype.name, "1", "anything")
    kind = rng.random()
    array = rng.integers(0, 256, rows * int(np.prod(shape, initial=1)) * dtype.itemsize, dtype=np.uint8)
    if kind < 0.7:  # such that it can be compressed
        array = array // (200 if kind < 0.4 else 16)
    body = bytes(
        blosc.compress(
            array.view(np.uint8 if dtype.kind == "b" else dtype),
            rng.choice(_COMPRESSORS),
            int(rng.integers(0, 9)),
            int(rng.choice([blosc.NOSHUFFLE, blosc.SHUFFLE, blosc.BITSHUFFLE])),
            int(rng.choice([0, 64, 512, 4096, 1 << 20])),
        )
    )
    return body, column, codec.Layout(rows, rows)


def changed(body: bytes, rng: np.random.Generator) -> bytes:
    """Return a chunk with some changes: in its header, in the starts of its blocks, anywhere, or of its length."""
    data = bytearray(body)
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(7))
        if kind == 0 and len(data) >= 16:  # a size
            size = int(
                rng.choice([0, 1, 4, len(data), len(data) - 1, len(data) + 1, 1 << 30, (1 << 31) - 1, (1 << 32) - 1])
            )
            struct.pack_into("<I", data, int(rng.choice([4, 8, 12])), size)
        elif kind == 1:  # version, flags or size of an item
            data[int(rng.integers(min(4, len(data))))] = int(rng.integers(256))
        elif kind == 2 and len(data) >= 20:  # where a block begins, or its compressed size
            place = 16 + 4 * int(rng.integers(min(8, (len(data) - 16) // 4)))
            struct.pack_into("<I", data, place, int(rng.integers(0, 2 * len(data))))
        elif kind == 3 and len(data) >= 24:  # any word as a size
            place = int(rng.integers(16, len(data) - 4))
            struct.pack_into("<i", data, place, int(rng.choice([-1, 0, len(data), 1 << 30, -(1 << 31)])))
        elif kind == 4:
            del data[int(rng.integers(len(data))) :]
            data = data or bytearray(1)
        elif kind == 5:
            data += bytes(int(rng.integers(1, 64)))
        else:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    if rng.random() < 0.8 and len(data) >= 16:  # most with the sizes that the first check wants
        struct.pack_into("<I", data, 4, struct.unpack_from("<I", body, 4)[0])
        struct.pack_into("<I", data, 12, len(data))
    return bytes(data)


def main() -> None:
    seed, number = int(sys.argv[1]), int(sys.argv[2])
    guarded: Any = GuardedBlosc()
    codec.blosc = guarded
    if "--unchecked" in sys.argv:
        codec._check_blosc = lambda body, nbytes, where: None
    rng = np.random.default_rng(seed)
    refused = decoded = 0
    for _ in range(number):
        body, column, layout = original(rng)
        guarded.at_end = bool(rng.integers(4))
        for data in (body, changed(body, rng)):
            try:
                array = codec.decode_chunk(data + struct.pack("<I", codec.crc32c(data)), column, layout, "chunk")
            except CorruptionError:
                assert data is not body, "a good chunk was refused"
                refused += 1
            else:
                assert array.shape == (layout.chunk, *column.shape)
                decoded += data is not body
    print(json.dumps({"refused": refused, "decoded": decoded, "by the library": guarded.n_calls - number}))


if __name__ == "__main__":
    main()
