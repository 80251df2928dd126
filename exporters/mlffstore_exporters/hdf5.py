"""One HDF5 file: groups train, val and test, CF contiguous ragged arrays, netCDF-4 dimension scales, gzip, fletcher32."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import TRUTH, mask_names, user_rows
from mlffstore.data.properties import INNER_SIZES, attributes_of, ordered
from mlffstore.data.schema import (
    CODED,
    CONVENTIONS,
    LABELS,
    STANDARD,
    Column,
    is_label,
    is_mask,
    label_key,
    mask_column,
    mask_key,
    split_key,
)
from mlffstore.data.splits import SPLITS
from mlffstore.data.vocabulary import flag_word
from mlffstore.errors import DataError, missing_dependency
from mlffstore.release import FORMAT
from mlffstore.release.provenance import by_part
from mlffstore.release.selection import select
from mlffstore.runtime.version import VERSION
from mlffstore_exporters import chunks
from mlffstore_exporters.folder import Account, new_hdf5

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import h5py

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.store.snapshot import Snapshot

#: Samples in memory at a time.
_BLOCK = 4096
#: Uncompressed bytes of an HDF5 chunk; h5py's cache holds 1 MiB.
CHUNK_NBYTES = 512 << 10
#: What the netCDF-4 library calls a dimension without coordinates.
_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable. {:9d}"


def export_hdf5(
    snapshot: Snapshot,
    path: str | Path,
    *,
    teacher: str | Sequence[str] | None = None,
    splits: Mapping[str, Ints] | None = None,
    title: str = "",
    version: str = "",
    codec: str = "gzip",
    compression_level: int = 4,
    rounding: Mapping[str, float] | None = None,
    provenance: Sequence[dict[str, Any]] = (),
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled, in their splits, to one HDF5 file.

    Parameters
    ----------
    snapshot : Snapshot
    path : path
        Replaced only when the new file is complete and on disk.
    teacher : str or sequence of str, optional
        Teachers whose labels are exported; required if there are several. For several teachers, the columns are named
        ``energy.NAME`` and so on (heads), and a sample that one of them did not label has NaN there.
    splits : mapping of str to ndarray of int, optional
        Samples of each split, written in store order; by default all that a teacher labelled, split by their root.
    title, version : str, optional
        Name and version of the release.
    codec : {"gzip", "zstd", "blosc", "lz4"}, optional
        All but gzip need the package hdf5plugin, here and wherever the file is read.
    compression_level : int, optional
        1 to 9; lz4 has none.
    rounding : mapping of str to float, optional
        Lossy: label ("forces", "stress") -> step in its unit. Values are rounded to multiples of the largest power of two
        that is not above the step, which compresses better; the error is at most half of it. Recorded in the file.
    provenance : sequence of dict, optional
        JSON kept in the root attribute `provenance`; tasks of a recipe are added up part by part.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path

    Notes
    -----
    The file does not contain the time at which it was written: the same snapshot gives the same bytes.
    """
    teachers, target = choose_teachers(snapshot, teacher), Path(path)
    level, filters = filters_of(codec, compression_level)
    steps = steps_of(rounding or {})
    chosen = select(snapshot, teachers) if splits is None else splits
    total, done = sum(len(index) for index in chosen.values()), 0
    with new_hdf5(target) as file:
        file.attrs.update(_root_attributes(snapshot, teachers, title, version, provenance))
        groups = [file.create_group(split, track_order=True) for split in SPLITS]
        writers = [
            _Split(group, snapshot, chosen.get(split, np.zeros(0, np.int64)), teachers, level, filters, steps)
            for split, group in zip(SPLITS, groups, strict=True)
        ]
        queue = chunks.ChunkQueue()
        account = Account(teachers)
        for batch, owner in _blocks(snapshot, [writer.index for writer in writers], teachers):
            account.add(batch)
            for k, writer in enumerate(writers):
                rows = np.flatnonzero(owner == k)
                writer.add(queue, batch if len(rows) == len(batch) else batch.take(rows))
            done += len(batch)
            if progress is not None:
                progress(done, total)
        for writer in writers:
            writer.finish(queue)
        queue.drain()
        digest = hashlib.sha256()
        for writer in writers:
            digest.update(writer.seal())
        file.attrs["content_sha256"] = digest.hexdigest()
    account.tell()
    return target


def choose_teachers(snapshot: Snapshot, teacher: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the teachers of a release."""
    if teacher is None or isinstance(teacher, str):
        return (choose_teacher(snapshot.teachers, teacher),)
    if len(set(teacher)) != len(teacher) or not teacher:
        raise DataError(f"teacher: expected different names, at least one, got {list(teacher)}")
    return tuple(choose_teacher(snapshot.teachers, name) for name in teacher)


def filters_of(codec: str, level: int) -> tuple[int | None, dict[str, Any]]:
    """Return the level of our compression, or None, and the options of h5py for a dataset."""
    if not 1 <= level <= 9:
        raise DataError(f"compression_level: expected 1 to 9, got {level}")
    if codec == "gzip":
        return level, {"compression": "gzip", "compression_opts": level, "shuffle": True, "fletcher32": True}
    if codec not in ("zstd", "blosc", "lz4"):
        raise DataError(f"codec: expected gzip, zstd, blosc or lz4, got {codec!r}")
    try:
        import hdf5plugin
    except ImportError as error:
        raise missing_dependency("hdf5plugin", "hdf5plugin", f"codec={codec!r}") from error
    if codec == "zstd":
        return None, {**hdf5plugin.Zstd(clevel=level), "shuffle": True, "fletcher32": True}
    if codec == "lz4":
        return None, {**hdf5plugin.LZ4(), "shuffle": True, "fletcher32": True}
    return None, {**hdf5plugin.Blosc(cname="zstd", clevel=level, shuffle=hdf5plugin.Blosc.SHUFFLE), "fletcher32": True}


def steps_of(rounding: Mapping[str, float]) -> dict[str, float]:
    """Return the power of two that each label is rounded to."""
    for name, step in rounding.items():
        if name not in ("forces", "stress"):
            raise DataError(f"rounding: expected 'forces' or 'stress', got {name!r}: other columns are kept exactly")
        if not (np.isfinite(step) and step > 0):
            raise DataError(f"rounding: expected a positive step of {name}, got {step!r}")
    return {name: float(2.0 ** np.floor(np.log2(step))) for name, step in rounding.items()}


def _root_attributes(
    snapshot: Snapshot, teachers: Sequence[str], title: str, version: str, provenance: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    info = {name: snapshot.teacher_info(name) for name in teachers}
    only_teacher = {"teacher": teachers[0]} if len(teachers) == 1 else {}
    return {
        "Conventions": CONVENTIONS,
        "format": FORMAT,
        "title": title,
        "version": version,
        **only_teacher,
        "teachers": json.dumps(list(teachers)),
        "teacher_info": json.dumps(info[teachers[0]] if only_teacher else info, sort_keys=True),
        "store_uuid": snapshot.store_uuid,
        "store_version": snapshot.version,
        "precision": snapshot.precision,
        "settings": json.dumps(snapshot.settings, sort_keys=True),
        "software": f"mlffstore {VERSION}",
        "units": "eV, angstrom, eV/angstrom; stress eV/angstrom^3, tension positive; cell rows are lattice vectors",
        "provenance": json.dumps(by_part(provenance), sort_keys=True),
    }


def _blocks(snapshot: Snapshot, splits: Sequence[Ints], teachers: Sequence[str]) -> Iterator[tuple[SampleBatch, Array]]:
    """Yield the samples in store order, so that every chunk of the store is decoded once, and the split of each.

    The next block is read while one is being written.
    """
    owner = np.full(len(snapshot), -1, np.int8)
    for k, index in enumerate(splits):
        owner[index] = k
    wanted = np.flatnonzero(owner >= 0)
    parts = [wanted[low : low + _BLOCK] for low in range(0, len(wanted), _BLOCK)]
    with ThreadPoolExecutor(1, thread_name_prefix="mlffstore-export") as pool:
        coming = [pool.submit(snapshot.read, part, teacher=teachers) for part in parts[:1]]
        for k, part in enumerate(parts):
            batch = coming.pop().result()
            if k + 1 < len(parts):
                coming.append(pool.submit(snapshot.read, parts[k + 1], teacher=teachers))
            yield batch, owner[part]


class _Split:
    """Writes one group, some samples at a time."""

    def __init__(
        self,
        group: h5py.Group,
        snapshot: Snapshot,
        index: Ints,
        teachers: Sequence[str],
        level: int | None,
        filters: dict[str, Any],
        steps: dict[str, float],
    ) -> None:
        self.group, self.snapshot, self.index, self.teachers, self.steps = group, snapshot, index, teachers, steps
        counts = snapshot.read(np.sort(index), columns=["n_atoms"]).n_atoms
        rows = {"sample": len(index), "atom": int(counts.sum(dtype=np.int64))}
        self.columns = stored_columns(snapshot, teachers)
        _dimensions(group, rows, [column for column, _ in self.columns.values()])
        self.datasets = {
            name: chunks.ChunkedDataset(_dataset(group, name, column, rows[column.axis], filters), level)
            for name, (column, _) in self.columns.items()
        }
        for name, (column, key) in self.columns.items():
            if column.quantity is not None:
                self.datasets[name].dataset.attrs["teacher"] = name.partition(".")[2] or teachers[0]
            if key in steps:
                self.datasets[name].dataset.attrs["rounding_step"] = steps[key]
            if is_mask(key):
                self.datasets[key.partition(".")[2]].dataset.attrs["ancillary_variables"] = name
        self.words: dict[str, dict[str, int]] = {name: {} for name in CODED}
        self.words |= {name: {} for name, (column, _) in self.columns.items() if column.coded}

    def add(self, queue: chunks.ChunkQueue, batch: SampleBatch) -> None:
        """Hand the next samples to the queue."""
        for name, (column, key) in self.columns.items():
            dtype = self.datasets[name].dataset.dtype
            values = self._values(batch, name, column, key)
            if values is None:
                rows = batch.n_atoms_total if column.axis == "atom" else len(batch)
                values = np.full((rows, *column.shape), np.nan if dtype.kind == "f" else 0, dtype)
            queue.add(self.datasets[name], values.astype(dtype, copy=False))

    def finish(self, queue: chunks.ChunkQueue) -> None:
        """Hand over what does not fill a chunk."""
        for writer in self.datasets.values():
            queue.finish(writer)

    def seal(self) -> bytes:
        """Write what is known at the end; return a digest of all columns."""
        for name, codes in self.words.items():
            attributes, words = self.datasets[name].dataset.attrs, list(codes) or ([] if name in CODED else [""])
            attributes["flag_values"] = np.arange(max(len(words), 1), dtype=np.uint32)
            attributes["flag_meanings"] = " ".join(flag_word(word) for word in words) or "unknown"
            attributes["meanings"] = json.dumps(words)
        for writer in self.datasets.values():
            writer.dataset.attrs["content_sha256"] = writer.digest.hexdigest()
        return b"".join(writer.digest.digest() for writer in self.datasets.values())

    def _values(self, batch: SampleBatch, name: str, column: Column, key: str) -> Array | None:
        if column.quantity is not None:
            teacher = name.partition(".")[2] or self.teachers[0]
            values = batch.labels.get(teacher, {}).get(key)
            if values is not None and key in self.steps:
                step = values.dtype.type(self.steps[key])
                values = np.rint(values / step) * step
            return values
        if name in self.words:
            if name not in batch.columns:
                return None
            return recoded(batch, name, self.words[name])
        if is_mask(key):
            return user_rows(batch, self.columns[key.partition(".")[2]][0])[1]
        return batch.columns.get(name)


def recoded(batch: SampleBatch, name: str, words: dict[str, int]) -> Array:
    """Return a coded column of a batch in the codes of a file.

    Parameters
    ----------
    batch : SampleBatch
    name : str
        The column.
    words : dict of str to int
        Code of each string in the file. New strings of the batch are added.
    """
    codes, used = batch.columns[name], batch.vocabulary[name]
    own = np.zeros(max(len(used), 1), np.uint32)
    # In order of first appearance, so that the codes of a file do not depend on how its samples are cut into batches.
    appeared, first = np.unique(codes, return_index=True)
    for code in appeared[np.argsort(first)].tolist():
        own[code] = words.setdefault(used[code], len(words))
    return own[codes]


def stored_columns(snapshot: Snapshot, teachers: Sequence[str]) -> dict[str, tuple[Column, str]]:
    """Return the columns of the file by name, each with the name of what it holds.

    Standard columns, the labels that the teachers have, user columns with their masks.
    """
    out = {
        name: (column.with_dtype(snapshot.precision) if name == "positions" else column, name)
        for name, column in STANDARD.items()
    }
    for teacher_name in teachers:
        columns = label_columns(snapshot, teacher_name)
        for property_name, column in columns.items():
            name = property_name if len(teachers) == 1 else label_key(property_name, teacher_name)
            assert column.quantity is not None
            inner = column.inner
            if column.quantity.is_open and len(teachers) > 1:  # each teacher has a width of its own
                inner = tuple(dim if dim in INNER_SIZES else f"{dim}.{teacher_name}" for dim in inner)
            out[name] = (
                replace(column, name=name, long_name=column.quantity.long_name, inner=inner), property_name
            )  # fmt: skip
    user = snapshot.user_columns
    masks = mask_names((segment.columns for segment in snapshot.segments), user)
    for name, column in user.items():
        out[name] = (column, name)
        if name in masks:
            out[masks[name]] = (replace(mask_column(column), name=masks[name]), mask_key(name))
    return out


def label_columns(snapshot: Snapshot, teacher: str) -> dict[str, Column]:
    """Return the columns of the labels that a teacher gave to some sample, by property."""
    columns: dict[str, Column] = {}
    for segment in snapshot.segments:
        for key, stored in segment.columns.items():
            if is_label(key) and split_key(key)[1] == teacher:
                columns.setdefault(split_key(key)[0], stored.column)
    return {name: columns[name] for name in ordered(columns)}


def _dimensions(group: h5py.Group, rows: dict[str, int], columns: list[Column]) -> None:
    """Make the dimension scales, as the netCDF-4 library does."""
    sizes = dict(rows)
    for column in columns:
        sizes |= dict(zip(column.inner, column.shape, strict=True))
    for i, (name, size) in enumerate(sizes.items()):
        # A scale needs no data: the dataset is never written, so it takes no space.
        scale = group.create_dataset(name, shape=(size,), dtype=">f4", track_times=False)
        scale.make_scale(_BARE_DIMENSION.format(size))
        scale.attrs["_Netcdf4Dimid"] = np.int32(i)


def _dataset(group: h5py.Group, name: str, column: Column, rows: int, filters: dict[str, Any]) -> h5py.Dataset:
    dtype = np.dtype("uint8") if column.dtype == "bool" else np.dtype(column.dtype)
    options: dict[str, Any] = {}
    if rows:
        chunk = max(1, min(rows, CHUNK_NBYTES // max(1, column.row_nbytes)))
        options = {"chunks": (chunk, *column.shape), **filters}
    if dtype.kind == "f":
        options["fillvalue"] = np.nan
    dataset = group.create_dataset(name, (rows, *column.shape), dtype, track_times=False, **options)
    dataset.attrs["units"] = column.unit
    dataset.attrs["long_name"] = column.long_name
    dataset.attrs["axis"] = column.axis
    # Energy, forces and stress are known by name, and more than eight attributes take kilobytes.
    if column.quantity is not None and column.quantity.name not in LABELS:
        dataset.attrs.update(attributes_of(column.quantity))
    if column.name == "n_atoms":
        dataset.attrs["sample_dimension"] = "atom"
    if column.dtype == "bool":
        dataset.attrs["flag_values"] = np.array([0, 1], np.uint8)
        dataset.attrs["flag_meanings"] = TRUTH
    for i, dimension in enumerate(column.dims):
        dataset.dims[i].attach_scale(group[dimension])
    return dataset
