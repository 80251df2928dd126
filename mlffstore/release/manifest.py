"""The manifest of a release: what its folder holds, with checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlffstore.errors import FormatError, StoreNotFoundError

if TYPE_CHECKING:
    import os

    from mlffstore.snapshot import Snapshot

#: Name of the manifest in the folder of a release.
MANIFEST = "MANIFEST.json"
#: Value of its member `format`.
MANIFEST_FORMAT = "mlffstore-manifest 1"


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a release folder.

    Raises
    ------
    StoreNotFoundError
        If there is none.
    FormatError
        If it is not one, of a newer format, or names a file outside its folder.
    """
    path = Path(folder) / MANIFEST
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreNotFoundError(
            f"{folder}: expected the folder of a release with {MANIFEST}; make one with 'mlffstore export'"
        ) from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FormatError(f"{path}: expected JSON, got something else ({error}); restore the file") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != MANIFEST_FORMAT:
        raise FormatError(f"{path}: expected the format {MANIFEST_FORMAT!r}, got {found!r}; upgrade mlffstore")
    files = document.get("files")
    if not isinstance(files, dict):
        raise FormatError(f"{path}: expected the member 'files', got {type(files).__name__}; restore the file")
    for name in files:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise FormatError(f"{path}: expected names of files in the folder, got {name!r}")
    return document


def describe_file(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def is_cut_from(folder: Path, snapshot: Snapshot) -> bool:
    """Return whether a release folder is there and holds this version of this store."""
    if not (folder / MANIFEST).is_file():
        return False
    store = read_manifest(folder).get("store", {})
    return (store.get("uuid"), store.get("version")) == (snapshot.store_uuid, snapshot.version)
