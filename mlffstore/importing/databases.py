"""Reads ASE databases (SQLite, JSON, aselmdb) row by row, with the `data` and key-value pairs that `ase.io` leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import missing_dependency
from mlffstore.importing.packed import REPAIR, reading
from mlffstore.importing.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: Formats of `ase.io` that are databases.
DATABASES = ("db", "json")
#: How SchNetPack names units in the metadata of its databases.
_UNIT_KEYS = ("_property_unit_dict", "property_unit_dict")
_LENGTH_KEYS = ("_distance_unit", "distance_unit")


def read_database(path: Path) -> Iterator[Record]:
    """Yield the rows of a database in the order of their ids.

    The `data` and the key-value pairs of a row are in `Record.more`; units that the metadata name (SchNetPack) in
    `Record.stated_units`.

    Raises
    ------
    DataError
        If it is no database.
    MissingDependencyError
        If it is an LMDB database and the package ase-db-backends is not installed.
    """
    lmdb = path.suffix.lower() == ".aselmdb"
    if lmdb:
        try:
            from ase_db_backends.aselmdb import LMDBDatabase
        except ImportError as error:
            raise missing_dependency("ase-db-backends", "aselmdb", "Reading .aselmdb files") from error
    number = 0
    with reading(
        # The backends raise whatever a damaged file makes them raise.
        "an ASE database",
        lambda: f"{path}, row {number + 1}",
        Exception,
        remedy=REPAIR,
    ):
        if lmdb:
            database: Any = LMDBDatabase(path, readonly=True, use_lock_file=False)
        else:
            from ase.db import connect

            database = connect(str(path), use_lock_file=False)
        with database:  # else ASE connects again for each row
            stated, warnings = _stated_units(database.metadata or {})
            for row in database.select():
                # row.key_value_pairs has the names, but a property of the row, such as `charge` (the sum of initial
                # charges), hides the value of the same name there.
                pairs = {name: vars(row)[name] for name in row.key_value_pairs}
                more = {"data": _plain(row.data), "key_value_pairs": pairs}
                if any(name in _LENGTH_KEYS for name in stated):
                    more["metadata"] = {"length_unit": next(stated[name] for name in _LENGTH_KEYS if name in stated)}
                yield Record(row.toatoms(), f"row {row.id}", more=more, stated_units=stated, warnings=warnings)
                number += 1


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a row, one level of names deep: "a" -> {"b": 1} becomes "a.b"."""
    out: dict[str, Any] = {}
    for name, value in dict(data).items():
        if isinstance(value, dict) and "__ndarray__" not in value:
            out.update({f"{name}.{inner}": one for inner, one in value.items()})
        else:
            out[str(name)] = value
    return out


def _stated_units(metadata: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the units that the metadata name, and a warning that names what else is in them."""
    stated: dict[str, str] = {}
    for key in _UNIT_KEYS:
        if isinstance(metadata.get(key), dict):
            stated |= {str(name): str(unit) for name, unit in metadata[key].items()}
    stated |= {key: str(metadata[key]) for key in _LENGTH_KEYS if isinstance(metadata.get(key), str)}
    rest = [key for key, value in metadata.items() if key not in (*_UNIT_KEYS, *_LENGTH_KEYS) and np.size(value)]
    warnings = (f"the metadata of the database are left out: {', '.join(map(str, rest))}",) if rest else ()
    return stated, warnings
