"""The root document of a store, its `zarr.json`: which store this is and what was fixed when it was made."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from mlffstore.data.schema import CONVENTIONS, FORMAT_VERSION
from mlffstore.data.splits import check_fractions
from mlffstore.errors import FormatError, MlffstoreError, ReadOnlyError, StoreNotFoundError
from mlffstore.format.codec import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.storage import Storage


def root_document(identity: str, precision: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the root document of a new store."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "mlffstore_format": FORMAT_VERSION,
            "uuid": identity,
            "precision": precision,
            "Conventions": CONVENTIONS,
            **settings,
        },
    }


def _no_store(storage: Storage, is_file: bool) -> str:
    """Return what is there instead of a store, and what to do."""
    is_release = False
    with contextlib.suppress(OSError, MlffstoreError):
        storage.read("MANIFEST.json", 0, 1)
        is_release = True
    if is_file or is_release:
        what = "a release" if is_release else "a file"
        return (
            f"expected a store, which is a folder with a zarr.json, got {what}; `mlffstore import` makes a store of it"
        )
    return (
        "there is no mlffstore store (no zarr.json); check the path, or make one with ml.create(...), `mlffstore import` or "
        "`mlffstore run`"
    )


def read_root(storage: Storage) -> tuple[dict[str, Any], str]:
    """Return the root document of a store after checking it, and the digest of its file."""
    try:
        data = storage.read("zarr.json", 0, 1 << 20)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreNotFoundError(
            f"{storage.url}: {_no_store(storage, isinstance(error, NotADirectoryError))}"
        ) from error
    except PermissionError as error:
        raise ReadOnlyError(f"{storage.url}: may not be read ({error}); check its permissions") from error
    try:
        document = json.loads(data)
        attributes = document["attributes"]
        version = attributes["mlffstore_format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(
            f"{storage.url}: is not an mlffstore store (its zarr.json has no mlffstore_format); check the path. "
            "Other Zarr groups are read with zarr or xarray"
        ) from error
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FormatError(f"{storage.url}: mlffstore_format: expected a number, got {version!r}; the store is damaged")
    if version != FORMAT_VERSION:
        advice = "upgrade mlffstore" if version > FORMAT_VERSION else "make the store anew from its sources"
        raise FormatError(
            f"{storage.url}: has format version {version}, this release reads version {FORMAT_VERSION}; {advice}"
        )
    try:
        check_fractions(attributes["splits"])
        good = (
            attributes["precision"] in ("float32", "float64")
            and isinstance(attributes["split_seed"], int)
            and re.fullmatch("[0-9a-f]{32}", attributes["uuid"]) is not None
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise FormatError(
            f"{storage.url}/zarr.json: expected uuid, precision, splits and split_seed; the store is damaged"
        )
    return dict(document), digest(data)
