"""The manifest of a release: what its folder holds, with checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlffstore.errors import FormatError, StoreNotFoundError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from mlffstore.store.samples import Samples

#: Name of the manifest in the folder of a release.
MANIFEST = "MANIFEST.json"
#: Name of the file with the checksums of all others, the manifest included.
CHECKSUMS = "SHA256SUMS"
#: Value of its member `format`.
MANIFEST_FORMAT = "mlffstore-manifest 1"


def load_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a release folder; the names of its files may be anything yet.

    Raises
    ------
    StoreNotFoundError
        If there is none.
    FormatError
        If it is not one, or of a newer format.
    """
    path = Path(folder) / MANIFEST
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreNotFoundError(
            f"{folder}: expected the folder of a release with {MANIFEST}; make one with 'mlffstore export'"
        ) from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: expected JSON, got something else ({error}); restore the file") from error
    file_format = document.get("format") if isinstance(document, dict) else None
    if file_format != MANIFEST_FORMAT:
        raise FormatError(f"{path}: expected the format {MANIFEST_FORMAT!r}, got {file_format!r}; upgrade mlffstore")
    files = document.get("files")
    if not isinstance(files, dict):
        raise FormatError(f"{path}: expected the member 'files', got {type(files).__name__}; restore the file")
    return document


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a release folder.

    Raises
    ------
    StoreNotFoundError
        If there is none.
    FormatError
        If it is not one, of a newer format, or names a file outside its folder.
    """
    document = load_manifest(folder)
    for name in document["files"]:
        if not is_plain(name):
            raise name_error(folder, name)
    return document


def is_plain(name: str) -> bool:
    """Return whether a name is that of a file in the folder itself."""
    return not ("/" in name or "\\" in name or "\0" in name or name in ("", ".", ".."))


def name_error(folder: str | os.PathLike[str], name: str) -> FormatError:
    """Return the error about a name that is none of a file in the folder."""
    return FormatError(f"{Path(folder) / MANIFEST}: expected names of files in the folder, got {name!r}")


def checksums_text(digests: Mapping[str, str]) -> str:
    """Return the text of the file of checksums, which ``sha256sum -c`` reads.

    Parameters
    ----------
    digests : mapping of str to str
        Name of each file of the folder but the one of checksums -> its SHA-256.
    """
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def describe_file(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def is_cut_from(folder: Path, snapshot: Samples) -> bool:
    """Return whether a release folder is there and holds this version of this store, or this selection of it."""
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_manifest(folder)
    store = manifest.get("store", {})
    same = (store.get("uuid"), store.get("version")) == (snapshot.store_uuid, snapshot.version)
    return same and manifest.get("selection") == snapshot.selection_record()
