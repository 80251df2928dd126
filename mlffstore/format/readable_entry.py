"""Whether readers will accept an entry of the log, asked before it is written: nothing can take an entry back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.errors import CorruptionError, DataError, FormatError
from mlffstore.format.codec import digest
from mlffstore.format.entry import decode_entry
from mlffstore.format.fields import Fields
from mlffstore.format.records import parse_segment

if TYPE_CHECKING:
    from mlffstore.format.entry import Entry
    from mlffstore.format.state import State


def check_readable(data: bytes, entry: Entry, state: State) -> None:
    """Raise unless readers accept an entry.

    Parameters
    ----------
    data : bytes
        The entry as it would be written.
    entry : Entry
    state : State
        What it would be added to. It does not change.

    Raises
    ------
    DataError
        If a reader would take the store for damaged, with what it would say.
    """
    where = f"log entry {entry.version}"
    try:
        if entry.operation == "append":  # only descriptions can be wrong, and a copy of the state takes time
            fields = Fields(dict(entry.body), where)
            for role in ("segments", "quarantine"):
                for value in fields.items(role) if role in fields.document else ():
                    parse_segment(value, where)
        else:
            state.copy().apply(decode_entry(data, entry.version, entry.store, where), digest(data), where)
    except (FormatError, CorruptionError) as error:
        raise DataError(
            "expected samples and descriptions that readers of the store accept, got some that they would take for damage: "
            f"{str(error).removesuffix('; the store is damaged')}. Nothing was committed; correct names, units, shapes and "
            "dtypes of what is stored"
        ) from error
