"""Where the columns of a store lie on disk, and damage to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import mlffstore as ml


class Shard(NamedTuple):
    """The bytes of one column in the file of a segment or layer."""

    path: Path
    column: str
    offset: int
    nbytes: int

    def read(self) -> bytes:
        """Return the bytes."""
        return self.path.read_bytes()[self.offset : self.offset + self.nbytes]

    def write(self, data: bytes) -> None:
        """Put other bytes in their place; the file ends after them if they are fewer."""
        whole = self.path.read_bytes()
        rest = whole[self.offset + self.nbytes :] if len(data) == self.nbytes else b""
        self.path.write_bytes(whole[: self.offset] + data + rest)


def shards(store: ml.Store, column: str = "") -> list[Shard]:
    """Return the shards of the newest version, those of one column if it is named, in the order of the segments."""
    return [
        Shard(Path(store.url) / stored.file.path, key, stored.offset, stored.nbytes)
        for segment in store.snapshot().segments
        for key, stored in segment.columns.items()
        if column in ("", key)
    ]
