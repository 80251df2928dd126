"""Opens compressed files by their names, and unpacks them into temporary files, within limits.

What is unpacked never takes its place from a name in an archive, and a file that unpacks to far more than real data does
is refused.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
#: Archives that no reader unpacks.
_ARCHIVES = (".tar", ".tgz", ".zst", ".7z", ".lz4", ".rar")
#: A file may unpack to so many bytes, and beyond that to so many times its size: text of numbers shrinks to a fifth, and
#: zeros to a thousandth or less.
FREE_NBYTES, MAX_RATIO = 1 << 30, 200
#: Bytes that stay free on the disk of temporary files.
_SPARE_NBYTES = 1 << 30
_STEP_NBYTES = 1 << 20
#: Most files in a zip archive, and longest name of one that is shown.
_MAX_MEMBERS, _MAX_NAME = 100_000, 200
#: What reading a damaged or wrong compressed file raises.
DAMAGED: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
)


#: What to do about a file that may be of another format.
REPAIR = "repair the file, or name its format"


@contextlib.contextmanager
def reading(
    expected: str,
    place: Callable[[], str],
    *kinds: type[Exception],
    remedy: str = "download or write the file again",
) -> Iterator[None]:
    """Turn what a reader raises over a damaged or foreign file into a `DataError`; ours pass.

    Parameters
    ----------
    expected : str
        What the file should be, in words.
    place : callable
        It returns the file and the place in it that was reached.
    *kinds : type of Exception
        What this reader raises beside the usual errors.
    remedy : str, optional
        What to do.
    """
    known: tuple[type[Exception], ...] = (KeyError, TypeError, ValueError, *DAMAGED, *kinds)
    try:
        yield
    except DataError:
        raise
    except known as error:
        raise DataError(
            f"{place()}: expected {expected}, got an error while reading it ({type(error).__name__}: {error}); {remedy}"
        ) from error


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
            f"{path}: expected a plain file or one that ends in {', '.join(_OPENERS)} or .zip, got {suffix}; unpack it "
            "first"
        )
    return path.with_suffix("") if suffix in _OPENERS else path


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed, by its name."""
    return path.suffix.lower() in _OPENERS


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive, by its name."""
    return path.suffix.lower() == ".zip"


class _Bounded(io.RawIOBase):
    """Hands on the bytes of a stream until there are too many of them.

    Parameters
    ----------
    stream : binary file
        What is unpacked.
    path : Path
        The compressed file, for messages.
    packed_nbytes : int
        Its size.
    """

    def __init__(self, stream: IO[bytes], path: Path, packed_nbytes: int) -> None:
        self._stream, self._path = stream, path
        self._limit = max(FREE_NBYTES, MAX_RATIO * packed_nbytes)
        self._nbytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._nbytes += len(data)
        if self._nbytes > self._limit:
            raise DataError(
                f"{self._path}: expected data, got a file that unpacks to more than {MAX_RATIO} times its size; if it is "
                "right, unpack it first"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked."""
    opener = cast("Callable[..., IO[bytes]] | None", _OPENERS.get(path.suffix.lower()))
    if opener is None:
        return path.open("rb")
    return io.BufferedReader(_Bounded(opener(path, "rb"), path, path.stat().st_size), _STEP_NBYTES)


def open_text(path: Path) -> IO[str]:
    """Open a file for reading as UTF-8 text, unpacked; bytes that are not UTF-8 become replacement characters."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8", errors="replace")


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a compressed file into a folder and return the new file, which keeps its name without the last suffix.

    Raises
    ------
    DataError
        If it is damaged, unpacks to too much, or the disk is full.
    """
    target = folder / plain_name(path).name
    with undamaged(path), open_binary(path) as stream:
        _copy(stream, target, path)
    return target


def members(path: Path) -> Iterator[zipfile.ZipInfo]:
    """Yield the files in a zip archive, without folders and what operating systems add.

    Raises
    ------
    DataError
        If the archive is damaged, encrypted, or holds too many files.
    """
    with undamaged(path), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise DataError(f"{path}: expected at most {_MAX_MEMBERS:,} files, got {len(infos):,}; unpack it first")
    for info in infos:
        parts = PurePosixPath(info.filename).parts
        if info.is_dir() or "__MACOSX" in parts or parts[-1].startswith("."):
            continue
        if info.flag_bits & 1:
            raise DataError(f"{path}: expected files that are not encrypted, got {info.filename[:_MAX_NAME]!r}")
        yield info


def unpack_member(path: Path, info: zipfile.ZipInfo, folder: Path) -> Path:
    """Unpack one file of a zip archive into a folder and return the new file; its name alone comes from the archive.

    Raises
    ------
    DataError
        If it is damaged, unpacks to too much, or the disk is full.
    """
    target = folder / member_name(info)
    with undamaged(path), zipfile.ZipFile(path) as archive, archive.open(info) as stream:
        bounded = io.BufferedReader(_Bounded(stream, path, max(info.compress_size, 1)), _STEP_NBYTES)
        _copy(bounded, target, path)
    return target


def member_name(info: zipfile.ZipInfo) -> str:
    """Return the last part of the name of a file in an archive, without what could lead elsewhere."""
    name = info.filename.replace("\\", "/").rsplit("/", 1)[-1].replace("\0", "").strip()
    return name[-_MAX_NAME:] if name not in ("", ".", "..") else "unnamed"


def _copy(stream: IO[bytes], target: Path, path: Path) -> None:
    """Copy a stream into a new file, as long as the disk has room."""
    with target.open("xb") as file:
        while data := stream.read(_STEP_NBYTES):
            if shutil.disk_usage(target.parent).free < _SPARE_NBYTES + len(data):
                raise DataError(
                    f"{path}: expected room for the unpacked file in {target.parent}, got a full disk; set TMPDIR to a "
                    "folder with more"
                )
            file.write(data)


@contextlib.contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Raise `DataError` for what reading a compressed file that is damaged, or none, raises."""
    try:
        yield
    except DAMAGED as error:
        raise DataError(
            f"{path}: expected a compressed file, got one that cannot be unpacked ({type(error).__name__}: {error}); "
            "download or write it again"
        ) from error
