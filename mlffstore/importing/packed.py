"""Opens compressed files by their names; every reader sees the plain bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from typing import IO, TYPE_CHECKING, cast

from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
#: Archives that no reader unpacks.
_ARCHIVES = (".zip", ".tar", ".tgz", ".zst", ".7z", ".lz4")


def plain_name(path: Path) -> Path:
    """Return the name of a file without the suffix of its compression.

    Raises
    ------
    DataError
        If it is an archive, or compressed in a way that is not read.
    """
    suffix = path.suffix.lower()
    if suffix in _ARCHIVES:
        raise DataError(
            f"{path}: expected a plain file or one that ends in {', '.join(_OPENERS)}, got {suffix}; unpack it first"
        )
    return path.with_suffix("") if suffix in _OPENERS else path


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed, by its name."""
    return path.suffix.lower() in _OPENERS


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked."""
    opener = cast("Callable[..., IO[bytes]] | None", _OPENERS.get(path.suffix.lower()))
    return path.open("rb") if opener is None else opener(path, "rb")


def open_text(path: Path) -> IO[str]:
    """Open a file for reading as UTF-8 text, unpacked; bytes that are not UTF-8 become replacement characters."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8", errors="replace")
