"""A reader of the log written from docs/format.md alone: it imports nothing of the library, and no rule is taken from
its code.

It gives, for each version, what a reader of that version must see: the energies of the samples in order, and the
idempotency keys. Only stores of `append`, `replace`, `tag` and `expire` with energies of one teacher are understood;
that is enough to check a history of appends, compactions and reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np
from numcodecs import blosc

if TYPE_CHECKING:
    from pathlib import Path


class View(NamedTuple):
    """What a version of a store says: energies, eV, in the order of the snapshot, and the version of each key."""

    energies: tuple[float, ...]
    keys: dict[str, int]


def read_log(folder: Path) -> list[View]:
    """Return the view of each version, after checking that the log is one unbroken chain."""
    uuid = json.loads((folder / "zarr.json").read_bytes())["attributes"]["uuid"]
    views: list[View] = []
    order: list[str] = []  # paths of segments
    energies: dict[str, list[float]] = {}
    keys: dict[str, int] = {}
    parent = None
    while (path := folder / "_log" / f"{len(views):020d}.json").exists():
        data = path.read_bytes()
        head, _, tail = data.rpartition(b',"crc32c":')
        assert int(tail.removesuffix(b"}\n")) == google_crc32c.value(head), path
        entry = json.loads(data)
        assert (entry["format"], entry["version"], entry["store"], entry["parent"]) == (2, len(views), uuid, parent), (
            path
        )
        assert re.fullmatch("[0-9a-f]{32}", entry["transaction"])
        for segment in entry.get("segments", []):
            energies[segment["path"]] = _energies(folder, segment)
            order.append(segment["path"])
        for item in entry.get("replacements", []):
            start = order.index(item["inputs"][0])
            assert order[start : start + len(item["inputs"])] == item["inputs"], path
            for segment in item["outputs"]:
                energies[segment["path"]] = _energies(folder, segment)
            order[start : start + len(item["inputs"])] = [segment["path"] for segment in item["outputs"]]
        if entry["key"] is not None:
            assert entry["key"] not in keys, f"{path}: the key {entry['key']} occurs twice"
            keys = {**keys, entry["key"]: entry["version"]}
        views.append(View(tuple(energy for name in order for energy in energies[name]), keys))
        parent = hashlib.sha256(data).hexdigest()[:32]
    names = {file.name for file in (folder / "_log").glob("*.json")}
    assert len(names) == len(views), "entries beyond a gap"
    return views


def _energies(folder: Path, segment: dict[str, Any]) -> list[float]:
    """Return the energies of a segment of one chunk."""
    (column,) = [column for name, column in segment["columns"].items() if name.startswith("energy.")]
    assert column["shape"][0] <= column["chunk"], "a column of several chunks"
    with (folder / segment["path"]).open("rb") as file:
        file.seek(column["offset"])
        data = file.read(column["nbytes"])
    assert hashlib.sha256(data).hexdigest()[:32] == column["digest"]
    assert google_crc32c.value(data[:-4]).to_bytes(4, "little") == data[-4:]
    return np.frombuffer(blosc.decompress(data[:-4]), column["dtype"])[: column["shape"][0]].tolist()
