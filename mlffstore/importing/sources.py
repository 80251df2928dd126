"""What an import reads: the files and folders that the caller named, found out about, unpacked and digested one by one."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlffstore.errors import DataError, MlffstoreError
from mlffstore.importing import packed
from mlffstore.importing.digests import sha256_of
from mlffstore.importing.origin import OWN, OwnSource
from mlffstore.importing.own import open_own
from mlffstore.importing.readers import STREAMED, choose_format

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Callable, Iterator, Sequence

#: Endings of files that may be read as a stream.
_STREAMED_SUFFIXES = (".extxyz", ".xyz", ".sdf", ".sd", ".mol", ".smi", ".smiles", ".json")
#: Files in archives that are about the data.
_ABOUT_SUFFIXES = (".md", ".pdf", ".rst", ".html", ".htm", ".py", ".ipynb", ".yaml", ".yml", ".sh")
_ABOUT = ("README", "LICENSE", "LICENCE", "CITATION", "CHANGELOG", "NOTICE")


@dataclass(frozen=True, slots=True)
class Source:
    """One file or folder.

    Attributes
    ----------
    path : Path
        What messages call it: what the caller named, and for a file in an archive its name behind that of the archive.
    file : Path
        What is read.
    kind : str
        Its format.
    sha256 : str
        Digest of its content.
    own : OwnSource or None
        The store or release that it is.
    """

    path: Path
    file: Path
    kind: str
    sha256: str
    own: OwnSource | None = None


def sources(paths: Sequence[Path], format: str | None, warn: Callable[[str], None]) -> Iterator[Source]:
    """Yield what there is to read. A file that was unpacked is removed when the next one is asked for.

    Parameters
    ----------
    paths : sequence of Path
    format : str or None
        The format that the caller named.
    warn : callable
        Called with the names of files in archives that are left out.
    """
    for path in paths:
        if packed.is_zip(path) and path.is_file():
            yield from _archive(path, format, warn)
        elif path.is_file() and packed.is_packed(path):
            with tempfile.TemporaryDirectory(prefix="mlffstore-import-") as folder:
                yield _unpacked(path, format, Path(folder))
        else:
            yield _source(path, path, format)


def _unpacked(path: Path, format: str | None, folder: Path) -> Source:
    """Return a compressed file, which is unpacked first unless it can be read as a stream."""
    if format in STREAMED or packed.plain_name(path).suffix.lower() in _STREAMED_SUFFIXES:
        with packed.undamaged(path):
            kind = choose_format(path, format)
        if kind in STREAMED:
            return Source(path, path, kind, sha256_of(path))
    return _source(path, packed.unpack(path, folder), format)


def _source(path: Path, file: Path, format: str | None) -> Source:
    with named(file, path):
        kind = choose_format(file, format)
        if kind not in OWN:
            return Source(path, file, kind, sha256_of(file))
        own = open_own(file, kind)
        return Source(path, file, kind, own.origin.key, own)


def _archive(path: Path, format: str | None, warn: Callable[[str], None]) -> Iterator[Source]:
    """Yield the files of a zip archive whose format is known; name the others."""
    left_out, read = [], 0
    infos: list[zipfile.ZipInfo] = list(packed.members(path))
    for info in infos:
        shown = path / packed.member_name(info)
        if shown.suffix.lower() in _ABOUT_SUFFIXES or shown.stem.upper() in _ABOUT:
            left_out.append(shown.name)
            continue
        with tempfile.TemporaryDirectory(prefix="mlffstore-import-") as folder:
            file = packed.unpack_member(path, info, Path(folder))
            try:
                inner = Path(folder) / "unpacked"
                inner.mkdir()
                source = _unpacked(file, format, inner) if packed.is_packed(file) else _source(shown, file, format)
            except DataError:
                if len(infos) == 1:
                    raise
                left_out.append(packed.member_name(info))
                continue
            read += 1
            yield Source(shown, source.file, source.kind, source.sha256, source.own)
    if not read:
        raise DataError(f"{path}: expected files of a format that is read, got {', '.join(left_out[:9]) or 'nothing'}")
    if left_out:
        warn(f"{path}: left out, since they hold no structures that can be read: {', '.join(left_out[:9])}"
             + (f" and {len(left_out) - 9} more" if len(left_out) > 9 else ""))  # fmt: skip


@contextlib.contextmanager
def named(file: Path, path: Path) -> Iterator[None]:
    """Let errors name what the caller named instead of what was unpacked."""
    try:
        yield
    except MlffstoreError as error:
        if file == path or str(file) not in str(error):
            raise
        raise type(error)(str(error).replace(str(file), str(path))) from error.__cause__
