"""The formats of whole columns, each with its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.importing.tables.request import TableRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlffstore.importing.samples import ReadSamples

    Reader = Callable[[TableRequest], Iterator[ReadSamples]]

#: Name of a format -> its reader.
TABLES: dict[str, Reader] = {}

__all__ = ["TABLES", "TableRequest"]
