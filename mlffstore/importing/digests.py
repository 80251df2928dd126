"""SHA-256 of what is imported: files, and folders as their files with their names."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files of a folder."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for one in sorted(one for one in path.rglob("*") if one.is_file()):
        digest.update(f"{one.relative_to(path).as_posix()}\0{sha256_of(one)}\n".encode())
    return digest.hexdigest()
