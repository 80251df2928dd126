"""`TableRequest`: what a reader of whole columns is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mlffstore.importing.extra import ExtraColumns
    from mlffstore.importing.labels import LabelReader
    from mlffstore.importing.options import Options


@dataclass(frozen=True, slots=True)
class TableRequest:
    """A file to read, and the options of the import.

    Attributes
    ----------
    path : Path
    options : Options
    labels : LabelReader
        It knows the names and units of labels that the caller gave.
    extra : ExtraColumns
        It knows the user columns that the caller asked for.
    source : str
        Where the data came from.
    """

    path: Path
    options: Options
    labels: LabelReader
    extra: ExtraColumns
    source: str
