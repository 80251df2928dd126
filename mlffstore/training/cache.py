"""The column cache: the labelled samples of a teacher, decoded once into records that a kernel copies from.

A record is one sample: positions, forces, atomic numbers, one after another and aligned to 64 bytes, so that a shuffled
sample is one contiguous read. It lies in memory, or in a folder that all processes map. A folder is named by what it holds:
the store's identity and version and the teacher, or the digest of a release. It is built under another name and renamed, so
that it is whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.batch import SampleBatch, choose_teacher
from mlffstore.errors import CorruptionError, DataError
from mlffstore.ragged import offsets
from mlffstore.release import Release, is_release
from mlffstore.schema import label_key
from mlffstore.splits import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.ragged import Ints
    from mlffstore.schema import Array
    from mlffstore.snapshot import Snapshot

#: Changes when the layout does.
_LAYOUT = 1
#: Bytes that records are aligned to: a line of the processor's cache.
_ALIGN = 64
#: Samples decoded at a time.
_BLOCK = 8192
#: What a row of `Columns.rows` holds: energy, cell (9), stress (6), pbc (3), charge, multiplicity.
_WIDTH = 21
#: Bytes that all caches together may take, unless MLFFSTORE_CACHE_GB says otherwise.
_LIMIT = 50_000_000_000


@dataclass(frozen=True, slots=True)
class Columns:
    """Decoded samples.

    Attributes
    ----------
    teacher : str
    has_forces, has_stress : bool
    begin : ndarray, shape (S,), int64
        Where each record starts, in floats.
    n_atoms : ndarray, shape (S,), int32
    records : ndarray, float32 or float64
    rows : ndarray, shape (S, 21), float64
        Energy, cell, stress, pbc, charge, multiplicity.
    content_hash : ndarray, shape (S,), uint64
    split : ndarray, shape (S,), uint8
    """

    teacher: str
    has_forces: bool
    has_stress: bool
    begin: Ints
    n_atoms: Array
    records: Array
    rows: Array
    content_hash: Array
    split: Array

    @property
    def octets(self) -> Array:
        """The records as bytes."""
        return self.records.view(np.uint8)

    def __len__(self) -> int:
        return len(self.n_atoms)

    @classmethod
    def empty(cls, teacher: str, names: set[str], n_atoms: Array, split: Array, records: Any) -> Columns:
        """Return columns to be filled with `put`; `records` makes an array of the length that it is given."""
        n = len(n_atoms)
        begin, length = plan(n_atoms, "forces" in names, records.dtype)
        return cls(
            teacher, "forces" in names, "stress" in names, begin, n_atoms, records(length), np.empty((n, _WIDTH)),
            np.empty(n, np.uint64), split,
        )  # fmt: skip

    def put(self, batch: SampleBatch, first: int = 0) -> int:
        """Write samples from index `first` on; return the index after them."""
        from mlffstore.kernels import pack

        last, real = first + len(batch), self.records.dtype
        labels = batch.labels.get(self.teacher, {})
        if not np.array_equal(batch.n_atoms, self.n_atoms[first:last]):
            raise DataError("column cache: the sizes of samples changed while they were read; try again")
        forces = np.zeros(0, real)
        if self.has_forces:
            some = labels.get("forces", np.full((batch.n_atoms_total, 3), np.nan, real))
            forces = some.astype(real, copy=False).reshape(-1)
        positions = np.ascontiguousarray(batch.positions, real).reshape(-1)
        pack(self.begin[first:last], batch.offsets, positions, forces, batch.numbers, self.records, self.octets)
        rows = self.rows[first:last]
        rows[:, 0], rows[:, 1:10] = labels.get("energy", np.nan), batch.cell.reshape(-1, 9)
        rows[:, 10:16] = labels["stress"] if self.has_stress and "stress" in labels else np.nan
        rows[:, 16:19], rows[:, 19], rows[:, 20] = batch.pbc, batch.charge, batch.multiplicity
        if "content_hash" in batch.columns:
            self.content_hash[first:last] = batch.content_hash
        return last


# -- where samples come from -----------------------------------------------------------------------------------------


class _StoreSource:
    """Labelled samples of a snapshot."""

    def __init__(self, snapshot: Snapshot, teacher: str | None) -> None:
        self.snapshot = snapshot
        self.teacher = choose_teacher(snapshot.teachers, teacher)
        self.precision = snapshot.precision

    def key(self) -> str:
        return f"store {self.snapshot.store_uuid} {self.snapshot.version} {self.teacher}"

    def title(self) -> str:
        return f"{self.snapshot.url}, version {self.snapshot.version}, {self.teacher}"

    def sizes(self) -> tuple[Array, Array]:
        """Return the atoms and the split of each sample."""
        self.index = self.snapshot.split_indices(None, self.teacher)
        return self.snapshot.read(self.index, columns=["n_atoms"]).n_atoms, self.snapshot.split_codes()[self.index]

    def blocks(self) -> Iterator[SampleBatch]:
        names = (
            "numbers",
            "positions",
            "cell",
            "pbc",
            "charge",
            "multiplicity",
            "content_hash",
            "energy",
            "forces",
            "stress",
        )
        for start in range(0, len(self.index), _BLOCK):
            yield self.snapshot.read(self.index[start : start + _BLOCK], teacher=self.teacher, columns=names)


class _ReleaseSource:
    """Samples of a release that a teacher labelled."""

    def __init__(self, release: Release, teacher: str | None) -> None:
        self.release = release
        self.teacher = choose_teacher(release.teachers, teacher)
        self.precision = str(release.attributes.get("precision", "float32"))

    def key(self) -> str:
        return f"release {self.release.key()} {self.teacher}"

    def title(self) -> str:
        return f"{self.release.path.absolute()}, {self.teacher}"

    def sizes(self) -> tuple[Array, Array]:
        energy = label_key("energy", self.teacher) if len(self.release.teachers) > 1 else "energy"
        sizes, codes = [], []
        for split in self.release.counts:
            one = self.release.n_atoms(split)[~np.isnan(self.release.column(split, energy))]
            sizes.append(one)
            codes.append(np.full(len(one), SPLITS.index(split), np.uint8))
        return np.concatenate(sizes), np.concatenate(codes)

    def blocks(self) -> Iterator[SampleBatch]:
        for split in self.release.counts:
            for batch in self.release.blocks(split, _BLOCK, self.teacher):
                missing = np.isnan(batch.labels[self.teacher]["energy"])
                yield batch.take(np.flatnonzero(~missing)) if missing.any() else batch


def source(data: Any, teacher: str | None) -> _StoreSource | _ReleaseSource:
    """Return where the samples of a path, URL, store or snapshot come from."""
    if isinstance(data, (str, os.PathLike)) and is_release(data):
        return _ReleaseSource(Release(data), teacher)
    if isinstance(data, (str, os.PathLike)):
        from mlffstore.store import open as open_store

        data = open_store(data)
    return _StoreSource(data.snapshot() if hasattr(data, "snapshot") else data, teacher)


# -- building --------------------------------------------------------------------------------------------------------


def plan(n_atoms: Array, has_forces: bool, dtype: Any) -> tuple[Ints, int]:
    """Return where the records start, and the length of all, in floats."""
    width = np.dtype(dtype).itemsize
    floats = n_atoms.astype(np.int64) * (6 if has_forces else 3)
    unit = _ALIGN // width
    length = -(-(floats + -(-n_atoms.astype(np.int64) // width)) // unit) * unit
    begin = offsets(length)
    return begin[:-1], int(begin[-1])


def _fill(where: _StoreSource | _ReleaseSource, out: Columns, progress: Any) -> None:
    """Decode all samples into the records, the next block while one is being written."""
    done, blocks = 0, where.blocks()
    with ThreadPoolExecutor(1, thread_name_prefix="mlffstore-cache") as pool:
        coming = pool.submit(next, blocks, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, blocks, None)
            done = out.put(batch, done)
            if progress is not None:
                progress(done, len(out))


def _label_names(where: _StoreSource | _ReleaseSource) -> set[str]:
    if isinstance(where, _ReleaseSource):
        return where.release.labels(where.teacher)
    keys = {key for segment in where.snapshot.segments for key in segment.columns}
    return {name for name in ("energy", "forces", "stress") if f"{name}.{where.teacher}" in keys}


def in_memory(where: _StoreSource | _ReleaseSource, progress: Any = None) -> Columns:
    """Decode all samples into this process's memory."""
    n_atoms, split = where.sizes()
    out = Columns.empty(where.teacher, _label_names(where), n_atoms, split, Aligned(where.precision))
    _fill(where, out, progress)
    return out


class Aligned:
    """Makes arrays in memory that start at a multiple of the alignment."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def __call__(self, length: int) -> Array:
        """Return an array of floats."""
        nbytes = length * self.dtype.itemsize
        raw = np.empty(nbytes + _ALIGN, np.uint8)
        shift = -raw.ctypes.data % _ALIGN
        return raw[shift : shift + nbytes].view(self.dtype)


class _Mapped(Aligned):
    """Makes arrays that are mapped from a new file."""

    def __init__(self, dtype: Any, path: Path) -> None:
        super().__init__(dtype)
        self.path = path

    def __call__(self, length: int) -> Array:
        """Return an array of floats; a file of no bytes cannot be mapped."""
        return np.memmap(self.path, self.dtype, "w+", shape=(length,)) if length else np.zeros(0, self.dtype)


# -- folders ---------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return where caches lie: MLFFSTORE_CACHE, or ``mlffstore`` in the user's cache folder (XDG_CACHE_HOME)."""
    own = os.environ.get("MLFFSTORE_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlffstore"


def limit() -> int:
    """Return how many bytes all caches together may take: MLFFSTORE_CACHE_GB, or 50 GB."""
    text = os.environ.get("MLFFSTORE_CACHE_GB")
    if text is None:
        return _LIMIT
    try:
        return int(float(text) * 1e9)
    except ValueError as error:
        raise DataError(f"MLFFSTORE_CACHE_GB: expected a number of gigabytes, got {text!r}") from error


def mapped(where: _StoreSource | _ReleaseSource, progress: Any = None) -> Columns:
    """Return the samples from the cache's folder, mapped into memory; decode them there first if they are not there."""
    key = hashlib.sha256(f"{_LAYOUT} {where.key()}".encode()).hexdigest()[:32]
    folder = cache_folder() / key
    if not (folder / "about.json").is_file():
        _build(where, folder, progress)
    os.utime(folder)  # when it was used last
    return _open(folder)


def _build(where: _StoreSource | _ReleaseSource, folder: Path, progress: Any) -> None:
    n_atoms, split = where.sizes()
    width = np.dtype(where.precision).itemsize
    make_room(int(n_atoms.sum(dtype=np.int64)) * (6 * width + 1) + len(n_atoms) * (_WIDTH * 8 + _ALIGN))
    temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir(parents=True)
    try:
        records = _Mapped(where.precision, temporary / "records.bin")
        out = Columns.empty(where.teacher, _label_names(where), n_atoms, split, records)
        _fill(where, out, progress)
        if isinstance(out.records, np.memmap):
            out.records.flush()
        small = ("begin", "n_atoms", "rows", "content_hash", "split")
        for name in small:
            np.save(temporary / f"{name}.npy", getattr(out, name))
        about = {
            "title": where.title(), "teacher": where.teacher, "precision": where.precision, "length": len(out.records),
            "has_forces": out.has_forces, "has_stress": out.has_stress, "samples": len(out),
            "crc32": {path.name: _crc32(path) for path in sorted(temporary.iterdir())},
        }  # fmt: skip
        (temporary / "about.json").write_text(json.dumps(about, indent=1))
        try:
            temporary.rename(folder)
        except OSError:  # another process was faster; what it wrote is the same
            if not (folder / "about.json").is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open(folder: Path) -> Columns:
    try:
        about = json.loads((folder / "about.json").read_text())
        small = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in
                 ("begin", "n_atoms", "rows", "content_hash", "split")}  # fmt: skip
        length = int(about["length"])
        records: Array = np.zeros(0, about["precision"])
        if length:
            records = np.memmap(folder / "records.bin", about["precision"], "r", shape=(length,))
        expected = length * records.itemsize
        if length and (folder / "records.bin").stat().st_size != expected:
            raise ValueError(f"records.bin has not {expected} bytes")
    except (OSError, ValueError, KeyError) as error:
        raise CorruptionError(
            f"{folder}: the cache is damaged ({error}); remove it with 'mlffstore cache --clear', it is built again"
        ) from error
    return Columns(
        about["teacher"], about["has_forces"], about["has_stress"], small["begin"], small["n_atoms"], records,
        small["rows"], small["content_hash"], small["split"],
    )  # fmt: skip


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while part := file.read(1 << 24):
            value = zlib.crc32(part, value)
    return value


@dataclass(frozen=True, slots=True)
class Cached:
    """One cache folder: what it holds, its size in bytes, and when it was used last (seconds since 1970)."""

    path: Path
    title: str
    samples: int
    nbytes: int
    used: float


#: Names of caches, and of those that are being built.
_NAME = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{32}\.tmp)?")


def is_cache(path: Path) -> bool:
    """Return whether a path in the cache's folder is ours to remove."""
    return path.is_dir() and _NAME.fullmatch(path.name) is not None


def cached() -> list[Cached]:
    """Return the caches that are there, the one used last first."""
    out = []
    for about in cache_folder().glob("*/about.json"):
        try:
            document = json.loads(about.read_text())
            title, samples = str(document["title"]), int(document["samples"])
        except (OSError, ValueError, KeyError):
            title, samples = "unreadable", 0
        nbytes = sum(path.stat().st_size for path in about.parent.iterdir())
        out.append(Cached(about.parent, title, samples, nbytes, about.parent.stat().st_mtime))
    return sorted(out, key=lambda one: -one.used)


def make_room(nbytes: int) -> list[Cached]:
    """Remove the caches that were not used for longest, so that `nbytes` more stay within the limit; return them.

    A process that maps a removed cache goes on with it: the file system keeps it until the last one is done.
    """
    most, kept = limit(), cached()
    if nbytes > most:
        raise DataError(
            f"the cache would take {nbytes / 1e9:.1f} GB, more than the {most / 1e9:.1f} GB allowed; set "
            "MLFFSTORE_CACHE_GB, or read without it: cache='memory', or TorchDataset.stream"
        )
    removed = []
    while kept and sum(one.nbytes for one in kept) + nbytes > most:
        oldest = kept.pop()
        shutil.rmtree(oldest.path, ignore_errors=True)
        removed.append(oldest)
    return removed


def damage(folder: Path) -> str:
    """Return what is wrong with a cache after reading all of it; nothing if it is what was written."""
    try:
        listed = json.loads((folder / "about.json").read_text())["crc32"].items()
        wrong = [name for name, crc in listed if not (folder / name).is_file() or _crc32(folder / name) != crc]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"about.json cannot be read ({error})"
    return f"{', '.join(wrong)} changed" if wrong else ""
