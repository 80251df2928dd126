"""One HDF5 file: groups train, val and test, CF contiguous ragged arrays, netCDF-4 dimension scales, gzip, fletcher32."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError, ReleaseError, missing_dependency
from mlffstore.release import FORMAT, is_release
from mlffstore.release.provenance import by_part
from mlffstore.release.selection import select
from mlffstore.runtime.paths import local_path
from mlffstore_exporters import chunks
from mlffstore_exporters.columns import FileColumns, choose_teachers, root_attributes, steps_of
from mlffstore_exporters.folder import Account, blocks, new_hdf5

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import h5py

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Column
    from mlffstore.store.samples import Samples

#: Uncompressed bytes of an HDF5 chunk; h5py's cache holds 1 MiB.
CHUNK_NBYTES = 512 << 10
#: What the netCDF-4 library calls a dimension without coordinates.
_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable. {:9d}"


def export_hdf5(
    snapshot: Samples,
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
    snapshot : Samples
    path : path
        A new file, whose name ends in ``.h5`` or ``.hdf5``. It has its name only when it is complete and on disk.
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
    teachers, target = choose_teachers(snapshot, teacher), local_path(path)
    if not is_release(target):
        raise ReleaseError(
            f"{target}: expected a name that ends in .h5 or .hdf5, by which the file is known as a release; choose such a "
            "name"
        )
    level, filters = filters_of(codec, compression_level)
    steps = steps_of(rounding or {})
    chosen = select(snapshot, teachers) if splits is None else splits
    total, done = sum(len(index) for index in chosen.values()), 0
    with new_hdf5(target) as file:
        file.attrs.update(
            {
                **root_attributes(snapshot, teachers),
                "format": FORMAT,
                "title": title,
                "version": version,
                "provenance": json.dumps(by_part(provenance), sort_keys=True),
            }
        )
        groups = [file.create_group(split, track_order=True) for split in SPLITS]
        writers = [
            _Split(group, snapshot, chosen.get(split, np.zeros(0, np.int64)), teachers, level, filters, steps)
            for split, group in zip(SPLITS, groups, strict=True)
        ]
        queue = chunks.ChunkQueue()
        account = Account(teachers)
        for batch, owner in blocks(snapshot, [writer.index for writer in writers], teachers):
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


class _Split:
    """Writes one group, some samples at a time."""

    def __init__(
        self,
        group: h5py.Group,
        snapshot: Samples,
        index: Ints,
        teachers: Sequence[str],
        level: int | None,
        filters: dict[str, Any],
        steps: dict[str, float],
    ) -> None:
        self.index, self.source = index, FileColumns(snapshot, teachers, steps)
        counts = snapshot.read(np.sort(index), columns=["n_atoms"]).n_atoms
        rows = {"sample": len(index), "atom": int(counts.sum(dtype=np.int64))}
        columns = {name: column for name, (column, _) in self.source.columns.items()}
        _dimensions(group, rows, list(columns.values()))
        self.datasets = {
            name: chunks.ChunkedDataset(_dataset(group, name, column, rows[column.axis], filters), level)
            for name, column in columns.items()
        }
        for name, writer in self.datasets.items():
            writer.dataset.attrs.update(self.source.attributes(name))

    def add(self, queue: chunks.ChunkQueue, batch: SampleBatch) -> None:
        """Hand the next samples to the queue."""
        for name, writer in self.datasets.items():
            queue.add(writer, self.source.values(batch, name).astype(writer.dataset.dtype, copy=False))

    def finish(self, queue: chunks.ChunkQueue) -> None:
        """Hand over what does not fill a chunk."""
        for writer in self.datasets.values():
            queue.finish(writer)

    def seal(self) -> bytes:
        """Write what is known at the end; return a digest of all columns."""
        for name, attributes in self.source.vocabularies().items():
            self.datasets[name].dataset.attrs.update(attributes)
        for writer in self.datasets.values():
            writer.dataset.attrs["content_sha256"] = writer.digest.hexdigest()
        return b"".join(writer.digest.digest() for writer in self.datasets.values())


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
    for i, dimension in enumerate(column.dims):
        dataset.dims[i].attach_scale(group[dimension])
    return dataset
