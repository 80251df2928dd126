"""Whether every byte of the file of a segment or layer is what was committed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeAlias

from mlffstore.format.codec import digest, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlffstore.format.records import StoredColumn, StoredFile

Reads: TypeAlias = "Callable[[int, int], bytes | memoryview]"
#: How messages call the bytes of a file that belong to no column.
METADATA = "metadata"


def columns_in(columns: Iterable[StoredColumn], path: str) -> list[StoredColumn]:
    """Return those of some columns that lie in a file, in the order of the file."""
    return sorted((stored for stored in columns if stored.file.path == path), key=lambda stored: stored.offset)


def damaged_parts(
    file: StoredFile, columns: Iterable[StoredColumn], read: Callable[[int, int], bytes | memoryview]
) -> list[str]:
    """Return the names of the columns of a file that are not what was committed, and `METADATA` for all other bytes.

    Parameters
    ----------
    file : StoredFile
    columns : iterable of StoredColumn
        Columns of a segment; those in other files are left out.
    read : callable
        It returns the bytes of the file from an offset on, as many as are asked for or fewer at the end.
    """
    out = []
    frame, end = hashlib.sha256(), 0
    for stored in columns_in(columns, file.path):
        frame.update(read(end, stored.offset - end))
        if digest(read(stored.offset, stored.nbytes)) != stored.digest:
            out.append(stored.column.name)
        end = stored.offset + stored.nbytes
    frame.update(read(end, file.nbytes - end))
    return out if short(frame) == file.digest else [*out, METADATA]
