"""The column cache: `Columns` in a folder that all processes of a machine map.

A folder is named by what it holds: the digest of a store's log up to the version, or the checksums of a release's files, and
the teacher. It is built under another name and renamed, so that it is whole or not there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import time
import tokenize
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.sample_row import WIDTH
from mlffstore.errors import CorruptionError, MlffstoreError, StorageError
from mlffstore.runtime.folders import building, cache_folder, make_room, remove
from mlffstore.runtime.folders import cached as cached
from mlffstore.runtime.turns import BuildTurn
from mlffstore.training.columns import Columns
from mlffstore.training.layout import ALIGN, ExtraColumn, in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlffstore.data.schema import Array, Column
    from mlffstore.training.sources import Source

logger = logging.getLogger(__name__)

#: Seconds between two looks at a cache that another process is building.
_POLL = 0.2
#: Seconds before the first message about the wait, and between the next ones.
_FIRST_LINE, _LINE = 2.0, 60.0
#: Changes when the layout does.
_LAYOUT = 4


def decoded(where: Source, user: Mapping[str, Column], progress: Any = None) -> Columns:
    """Decode all samples, with some user columns, into this process's memory."""
    n_atoms, split = where.sizes()
    out = Columns.empty(where.teacher, where.labels(), n_atoms, split, where.precision, user, in_memory)
    _fill(where, out, progress)
    return out.sealed()


def mapped(where: Source, progress: Any = None) -> Columns:
    """Return the samples, with all user columns, mapped from the cache; decode them into it first if they are not there.

    Of several processes that need the same cache one builds it. The others wait, and one of them takes over if it ends
    without a cache.

    Parameters
    ----------
    where : Source
    progress : callable, optional
        It is called with the number of samples decoded so far and the number of all samples, also while another process
        decodes them.

    Raises
    ------
    CorruptionError
        If the cache is damaged. Records are compared with their checksums when they are first copied.
    DataError
        If the cache would be larger than allowed.
    StorageError
        If the folder of the cache cannot be written.
    """
    folder = cache_folder() / hashlib.sha256(f"{_LAYOUT} {where.key()}".encode()).hexdigest()[:32]
    columns = _opened(folder)
    if columns is not None:
        return columns
    turn = BuildTurn(folder)
    waited, next_line = 0.0, _FIRST_LINE
    while not turn.take():
        reported = turn.reported()
        if waited >= next_line:
            next_line, so_far = (
                waited + _LINE,
                "" if reported is None else f", {reported[0]:,} of {reported[1]:,} samples",
            )
            logger.warning("%s: waiting for the process that is building the cache%s", where.title(), so_far)
        if reported is not None and progress is not None:
            progress(*reported)
        time.sleep(_POLL)
        waited += _POLL
        if (columns := _opened(folder)) is not None:
            return columns
    try:

        def report(done: int, total: int) -> None:
            turn.report(done, total)
            if progress is not None:
                progress(done, total)

        columns = _opened(folder)  # another process may have had the turn since
        return _build(where, folder, report) if columns is None else columns
    finally:
        turn.release()


def _fill(where: Source, out: Columns, progress: Any) -> None:
    """Decode all samples into the columns, the next block while one is being written."""
    done, blocks = 0, where.blocks(out.extra)
    with ThreadPoolExecutor(1, thread_name_prefix="mlffstore-cache") as pool:
        coming = pool.submit(next, blocks, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, blocks, None)
            done = out.put(batch, done)
            if progress is not None:
                progress(done, len(out))


def _build(where: Source, folder: Path, progress: Any) -> Columns:
    """Build a cache and return it. Its bytes stay readable, whether another process removes or replaces the folder."""
    n_atoms, split = where.sizes()
    user = where.user()
    atoms, width = int(n_atoms.sum(dtype=np.int64)), np.dtype(where.precision).itemsize
    rows = {"sample": len(n_atoms), "atom": atoms}
    extra = sum(rows[column.axis] * (max(column.row_nbytes, 8) + 1) for column in user.values())
    make_room(atoms * (6 * width + 1) + len(n_atoms) * (WIDTH * 8 + ALIGN) + extra)
    with _storage_errors(), building(folder) as temporary:
        made: dict[str, list[Any]] = {}

        def room(name: str, dtype: Any, shape: tuple[int, ...]) -> Array:
            made[name] = [np.dtype(dtype).name, list(shape)]
            return _new(_file(temporary, name), np.dtype(dtype), shape)

        out = Columns.empty(where.teacher, where.labels(), n_atoms, split, where.precision, user, room)
        _fill(where, out, progress)
        out = out.sealed()
        small: dict[str, Array] = {
            "begin": out.begin, "n_atoms": n_atoms, "split": split, "content_hash": out.content_hash, "sums": out.sums,
            "extra_sums": out.extra_sums, **{f"has.{name}": mask for name, mask in out.masks.items()},
        }  # fmt: skip
        for name, array in small.items():
            room(name, array.dtype, array.shape)[...] = array
        about = {
            "title": where.title(), "teacher": where.teacher, "precision": where.precision, "samples": len(out),
            "has_forces": out.has_forces, "has_stress": out.has_stress, "arrays": made,
            "extra": {name: asdict(column) for name, column in out.extra.items()},
            "crc32": {name: zlib.crc32(np.ascontiguousarray(array).data.cast("B")) for name, array in small.items()
                      if array.size},
        }  # fmt: skip
        text = json.dumps(about, indent=1, sort_keys=True)
        (temporary / "about.json").write_text(f"{zlib.crc32(text.encode())}\n{text}")
        columns = _open(temporary, folder)
        for _ in range(2):
            try:
                temporary.rename(folder)
                break
            except OSError:  # another process was faster, or left a part of what it removed
                if (other := _opened(folder)) is not None:
                    return other
                remove(folder)
        return columns


def _file(folder: Path, name: str) -> Path:
    return folder / ("records.bin" if name == "records" else f"{name}.npy")


def _new(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Return an array that is mapped from a new file; one without bytes needs none."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not nbytes:
        return np.zeros(shape, dtype)
    if path.suffix == ".npy":
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    else:
        array = np.memmap(path, dtype, "w+", shape=shape)
    # Writing to the map of a file that has no blocks yet would kill the process when the disk is full.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot do it
                    raise
    return np.asarray(array)


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    """Say what to do when the folder of the cache cannot be written."""
    try:
        yield
    except MlffstoreError:
        raise
    except OSError as error:
        raise StorageError(
            f"{cache_folder()}: the cache cannot be written ({error.strerror or error}); choose another folder with "
            "MLFFSTORE_CACHE, or use cache='memory'"
        ) from error


def _opened(folder: Path) -> Columns | None:
    """Return a cache that is there, or None if it is not, or not any more: another process may remove it meanwhile."""
    try:
        columns = _open(folder, folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise StorageError(
            f"{folder}: the cache cannot be read ({error.strerror}); choose another folder with MLFFSTORE_CACHE"
        ) from error
    with contextlib.suppress(OSError):  # removed meanwhile, or of another user
        os.utime(folder)  # when it was used last
    return columns


def _open(folder: Path, place: Path) -> Columns:
    """Map a cache. Sizes are compared before; the checksums of large arrays when they are read, those of small ones here."""
    try:
        checksum, _, text = (folder / "about.json").read_text().partition("\n")
        if int(checksum) != zlib.crc32(text.encode()):
            raise ValueError("about.json changed")
        about = json.loads(text)
        arrays = {name: _map(_file(folder, name), *made) for name, made in about["arrays"].items()}
        for name, crc in about["crc32"].items():
            if zlib.crc32(np.ascontiguousarray(arrays[name]).data.cast("B")) != crc:
                raise ValueError(f"{name}.npy changed")
        n = int(about["samples"])
        extra = {name: ExtraColumn(**{**one, "shape": tuple(one["shape"])}) for name, one in about["extra"].items()}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, tokenize.TokenError) as error:
        # The last two are what NumPy raises over headers of its files.
        raise CorruptionError(
            f"{place}: the cache is damaged ({error}); remove it with 'mlffstore cache --clear', it is built again"
        ) from error
    return Columns(
        about["teacher"], about["has_forces"], about["has_stress"], arrays["begin"], arrays["n_atoms"], arrays["records"],
        arrays["rows"], arrays["extra"], arrays["content_hash"], arrays["split"], arrays["sums"], arrays["extra_sums"],
        np.zeros(n, bool), np.zeros(n, bool),
        {name[4:]: array for name, array in arrays.items() if name.startswith("has.")}, extra, str(place),
    )  # fmt: skip


def _map(path: Path, dtype: str, shape: list[int]) -> Array:
    """Map a file of exactly the bytes that an array has: reading beyond the end of a file would kill the process."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if not nbytes:
        nothing = np.zeros(shape, dtype)
        nothing.flags.writeable = False  # as what is mapped: kernels are compiled for each kind of array
        return nothing
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # measures the file
        if array.dtype != dtype or array.shape != tuple(shape):
            raise ValueError(
                f"{path.name} has the shape {array.shape} and dtype {array.dtype}, not {shape} and {dtype}"
            )
        return np.asarray(array)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != nbytes:
            raise ValueError(f"{path.name} has {size} bytes, not {nbytes}")
        return np.asarray(np.memmap(file, dtype, "r", shape=tuple(shape)))


def damage(folder: Path) -> str:
    """Return what is wrong with a cache after reading all of it; nothing if it is what was written, or gone."""
    try:
        columns = _open(folder, folder)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing" if folder.is_dir() else ""
    except (CorruptionError, OSError) as error:
        return str(error)
    sums, extra_sums = columns.checksums()
    wrong = [f"sample {i}" for i in np.flatnonzero(sums != columns.sums)[:3]]
    wrong += [f"other columns of sample {i}" for i in np.flatnonzero(extra_sums != columns.extra_sums)[:3]]
    return f"{', '.join(wrong)} changed" if wrong else ""
