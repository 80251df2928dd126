"""The Zarr metadata documents of segments and layers, with the CF attributes of their columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlffstore.data.schema import CODED, CONVENTIONS, Column, is_mask, split_key
from mlffstore.data.vocabulary import flag_word

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Metadata document of the group.
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {"Conventions": CONVENTIONS}}


def attributes(column: Column, vocabulary: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the CF attributes of a column."""
    out: dict[str, Any] = {"units": column.unit, "long_name": column.long_name}
    name, teacher = split_key(column.name)
    if teacher is not None and not is_mask(column.name):
        out["teacher"] = teacher
    if column.quantity is not None and not column.quantity.built_in:
        out |= {"turns": column.quantity.turns, "extensive": column.quantity.extensive}
    if name == "n_atoms":
        out["sample_dimension"] = "atom"
    if name in (*CODED, "reason") or column.coded:
        words = vocabulary.get(name, ())
        flags = [flag_word(word) for word in words]
        out |= {"flag_values": list(range(len(words))), "flag_meanings": " ".join(flags)}
        if flags != list(words):
            out["meanings"] = list(words)
    return out


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a Zarr metadata document as it is written."""
    return json.dumps(document, separators=(",", ":")).encode()
