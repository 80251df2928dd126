"""One HDF5 release: groups train, val and test, CF contiguous ragged arrays, netCDF-4 dimension scales, gzip and shuffle."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mlffstore import __version__
from mlffstore.batch import choose_teacher
from mlffstore.errors import DataError
from mlffstore.ragged import offsets
from mlffstore.release import FORMAT
from mlffstore.schema import CODED, CONVENTIONS, LABELS, STANDARD, Column, label_key
from mlffstore.segment import flag_word
from mlffstore.splits import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.snapshot import Snapshot

#: Samples in memory at a time.
_BLOCK = 4096
#: Uncompressed bytes of an HDF5 chunk; h5py's cache holds 1 MiB.
_CHUNK_NBYTES = 512 << 10
#: What the netCDF-4 library calls a dimension without coordinates.
_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable. {:9d}"


def export_hdf5(
    snapshot: Snapshot,
    path: str | Path,
    *,
    teacher: str | None = None,
    title: str = "",
    version: str = "",
    compression_level: int = 4,
    provenance: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write the samples that a teacher labelled, in their splits, to one HDF5 file.

    Parameters
    ----------
    snapshot : Snapshot
    path : path
        Replaced only when the new file is complete and on disk.
    teacher : str, optional
        Whose labels; needed when there are several.
    title, version : str, optional
        Name and version of the release.
    compression_level : int, optional
        Of gzip, 0 to 9.
    provenance : sequence of dict, optional
        JSON kept in the root attribute `provenance`.

    Returns
    -------
    Path

    Notes
    -----
    The file says nothing of the time of its making: the same snapshot gives the same bytes.
    """
    who, target = choose_teacher(snapshot.teachers, teacher), Path(path)
    if not 0 <= compression_level <= 9:
        raise DataError(f"compression_level: expected 0 to 9, got {compression_level}")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        # "latest" would shut out older readers; track_order keeps the columns in the order of the specification.
        with h5py.File(temporary, "w", libver=("earliest", "v110"), track_order=True) as file:
            file.attrs.update(_root_attributes(snapshot, who, title, version, provenance))
            for split in SPLITS:
                group = file.create_group(split, track_order=True)
                _write_split(group, snapshot, snapshot.split_indices(split, who), who, compression_level)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return target


def _root_attributes(
    snapshot: Snapshot, who: str, title: str, version: str, provenance: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "Conventions": CONVENTIONS,
        "format": FORMAT,
        "title": title,
        "version": version,
        "teacher": who,
        "teacher_info": json.dumps(snapshot.teacher_info(who), sort_keys=True),
        "store_uuid": snapshot.store_uuid,
        "store_version": snapshot.version,
        "precision": snapshot.precision,
        "settings": json.dumps(snapshot.settings, sort_keys=True),
        "software": f"mlffstore {__version__}",
        "units": "eV, angstrom, eV/angstrom; stress eV/angstrom^3, tension positive; cell rows are lattice vectors",
        "provenance": json.dumps(list(provenance), sort_keys=True),
    }


def _write_split(group: h5py.Group, snapshot: Snapshot, index: np.ndarray, who: str, level: int) -> None:
    """Write one group, a block of samples at a time."""
    counts = snapshot.read(index, columns=["n_atoms"]).n_atoms
    rows = {"sample": len(index), "atom": int(counts.sum(dtype=np.int64))}
    columns = _columns(snapshot, who)
    _dimensions(group, rows, columns)
    datasets = {column.name: _dataset(group, column, rows[column.axis], level) for column in columns}
    words: dict[str, list[str]] = {name: [] for name in CODED}
    starts = offsets(counts)
    for low in range(0, len(index), _BLOCK):
        high = min(low + _BLOCK, len(index))
        batch = snapshot.read(index[low:high], teacher=who)
        for column in columns:
            name = column.name
            a, b = (low, high) if column.axis == "sample" else (int(starts[low]), int(starts[high]))
            if name in LABELS:
                values = batch.labels[who].get(name)
            elif name in CODED:
                new = [word for word in batch.vocabulary[name] if word not in words[name]]
                words[name] += new
                lookup = np.array([words[name].index(word) for word in batch.vocabulary[name]], np.uint16)
                values = lookup[batch.columns[name]]
            else:
                values = batch.columns.get(name)
            if values is not None:
                datasets[name][a:b] = values.astype(datasets[name].dtype, copy=False)
    for name in CODED:
        datasets[name].attrs["flag_values"] = np.arange(max(len(words[name]), 1), dtype=np.uint16)
        datasets[name].attrs["flag_meanings"] = " ".join(flag_word(word) for word in words[name]) or "unknown"
        datasets[name].attrs["meanings"] = json.dumps(words[name])


def _columns(snapshot: Snapshot, who: str) -> list[Column]:
    """Return the columns of the file: standard ones, the labels that the teacher has, user columns."""
    labels = [c for c in LABELS.values() if any(label_key(c.name, who) in s.columns for s in snapshot.segments)]
    structure = [c.with_dtype(snapshot.precision) if c.name == "positions" else c for c in STANDARD.values()]
    return [*structure, *labels, *snapshot.user_columns.values()]


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


def _dataset(group: h5py.Group, column: Column, rows: int, level: int) -> h5py.Dataset:
    dtype = np.dtype("uint8") if column.dtype == "bool" else np.dtype(column.dtype)
    options: dict[str, Any] = {}
    if rows:
        chunk = max(1, min(rows, _CHUNK_NBYTES // max(1, column.row_nbytes)))
        options = {"chunks": (chunk, *column.shape), "compression": "gzip", "compression_opts": level, "shuffle": True}
    if dtype.kind == "f":
        options["fillvalue"] = np.nan
    dataset = group.create_dataset(column.name, (rows, *column.shape), dtype, track_times=False, **options)
    dataset.attrs["units"] = column.unit
    dataset.attrs["long_name"] = column.long_name
    dataset.attrs["axis"] = column.axis
    if column.name == "n_atoms":
        dataset.attrs["sample_dimension"] = "atom"
    if column.name == "pbc":
        dataset.attrs["flag_values"] = np.array([0, 1], np.uint8)
        dataset.attrs["flag_meanings"] = "false true"
    for i, name in enumerate(column.dims):
        dataset.dims[i].attach_scale(group[name])
    return dataset
