"""`ArrayWriter`: one sharded Zarr array, written a whole shard at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import zarr

    from mlffstore.data.schema import Array, Column

#: Uncompressed bytes of a chunk, the least that a reader decodes, and of a shard, which is one file.
CHUNK_NBYTES, SHARD_NBYTES = 1 << 20, 32 << 20


class ArrayWriter:
    """Writes one array, a whole shard at a time."""

    def __init__(
        self, group: zarr.Group, name: str, column: Column, rows: int, attributes: dict[str, Any], level: int
    ) -> None:
        from zarr.codecs import BloscCodec, Crc32cCodec

        dtype = np.dtype(column.dtype)
        chunk = max(1, min(rows, CHUNK_NBYTES // max(1, column.row_nbytes)))
        per_shard = max(1, min(-(-rows // chunk), SHARD_NBYTES // CHUNK_NBYTES))
        self._shard, self._done, self._waiting = chunk * per_shard, 0, 0
        self._parts: list[Array] = []
        self.array: Any = group.create_array(
            name,
            shape=(rows, *column.shape),
            dtype=dtype,
            chunks=(chunk, *column.shape),
            shards=(self._shard, *column.shape),
            compressors=[
                BloscCodec(cname="zstd", clevel=level, shuffle="bitshuffle", typesize=dtype.itemsize), Crc32cCodec()
            ],
            fill_value=np.nan if dtype.kind == "f" else 0,
            dimension_names=column.dims,
            attributes=plain(attributes),
        )  # fmt: skip

    def add(self, values: Array) -> None:
        """Add rows, and write every shard that they fill."""
        self._parts.append(values)
        self._waiting += len(values)
        while self._waiting >= self._shard:
            self._write(self._shard)

    def finish(self) -> None:
        """Write what does not fill a shard."""
        if self._waiting:
            self._write(self._waiting)

    def _write(self, n: int) -> None:
        rows = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self.array[self._done : self._done + n] = rows[:n].astype(self.array.dtype, copy=False)
        self._done, self._waiting = self._done + n, self._waiting - n
        self._parts = [rows[n:]] if len(rows) > n else []


def plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON has them."""
    return {
        name: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        for name, value in attributes.items()
    }
