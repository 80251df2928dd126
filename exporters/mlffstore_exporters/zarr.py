"""One plain Zarr v3 group: CF contiguous ragged arrays, sharded, which any Zarr reader opens without this package."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.schema import Column
from mlffstore.data.splits import SPLITS
from mlffstore.release.selection import select
from mlffstore_exporters.columns import FileColumns, choose_teachers, root_attributes
from mlffstore_exporters.folder import Account, blocks, new_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import zarr

    from mlffstore.data.schema import Array
    from mlffstore.store.samples import Samples

#: The attribute `format` of the group.
FORMAT = "mlffstore-zarr 1"
#: Uncompressed bytes of a chunk, the least that a reader decodes, and of a shard, which is one file.
CHUNK_NBYTES, SHARD_NBYTES = 1 << 20, 32 << 20
_SPLIT = Column("split", "sample", (), (), "uint8", "1", "split of the sample, decided by its root")


def export_zarr(
    snapshot: Samples,
    path: str | os.PathLike[str],
    *,
    teacher: str | Sequence[str] | None = None,
    compression_level: int = 5,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled to one plain Zarr v3 group.

    Parameters
    ----------
    snapshot : Samples
    path : path
        A new folder.
    teacher : str or sequence of str, optional
        Teachers whose labels are written; required if there are several. For several teachers, the columns are named
        ``energy.NAME`` and so on, and a sample that one of them did not label has NaN there.
    compression_level : int, optional
        Level of Zstandard in Blosc, 1 to 9.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path

    Notes
    -----
    The arrays have the names, units and attributes of an HDF5 release (docs/format.md), the dimensions `sample` and `atom`,
    and lie beside each other: ``xarray.open_zarr(path)`` is one Dataset. The samples of all splits are in the order of the
    store; the array `split` (0 train, 1 val, 2 test) has the split of each. Sample i owns the rows ``starts[i]`` to
    ``starts[i + 1]`` of the arrays of atoms, where `starts` is the cumulative sum of `n_atoms` with a 0 before it.
    A missing float is NaN; of an integer, boolean or string column the array that the attribute `ancillary_variables`
    names says where there is a value. Chunks have a checksum (crc32c). Metadata are consolidated as zarr-python does it; the
    specification has no word on that yet, and readers may ignore it.
    """
    import zarr

    teachers, target = choose_teachers(snapshot, teacher), Path(path)
    splits = select(snapshot, teachers)
    indices = [splits[name] for name in SPLITS]
    total = sum(map(len, indices))
    counts = snapshot.read(np.sort(np.concatenate(indices)), columns=["n_atoms"]).n_atoms
    rows = {"sample": total, "atom": int(counts.sum(dtype=np.int64))}
    source, account, done = FileColumns(snapshot, teachers), Account(teachers), 0
    with new_folder(target) as folder:
        group = zarr.create_group(folder, attributes={**root_attributes(snapshot, teachers), "format": FORMAT})
        writers = {
            name: _Writer(group, name, column, rows[column.axis], source.attributes(name), compression_level)
            for name, (column, _) in source.columns.items()
        }
        flags = {
            "units": "1",
            "long_name": _SPLIT.long_name,
            "axis": "sample",
            "flag_values": np.arange(3, dtype=np.uint8),
        }
        flags |= {"flag_meanings": " ".join(SPLITS), "meanings": json.dumps(list(SPLITS))}
        split = _Writer(group, "split", _SPLIT, total, flags, compression_level)
        for batch, owner in blocks(snapshot, indices, teachers):
            account.add(batch)
            split.add(owner.astype(np.uint8))
            for name, writer in writers.items():
                writer.add(source.values(batch, name))
            done += len(batch)
            if progress is not None:
                progress(done, total)
        for writer in (*writers.values(), split):
            writer.finish()
        for name, attributes in source.vocabularies().items():
            writers[name].array.attrs.update(_plain(attributes))
        with warnings.catch_warnings():  # the specification of Zarr v3 has no consolidated metadata yet
            warnings.simplefilter("ignore", UserWarning)
            zarr.consolidate_metadata(group.store, zarr_format=3)
    account.tell()
    return target


class _Writer:
    """Writes one array, a whole shard at a time."""

    def __init__(
        self, group: zarr.Group, name: str, column: Column, rows: int, attributes: dict[str, Any], level: int
    ) -> None:
        from zarr.codecs import BloscCodec, Crc32cCodec

        dtype = np.dtype(column.dtype)
        chunk = max(1, min(rows, CHUNK_NBYTES // max(1, column.row_nbytes)))
        per_shard = max(1, min(-(-rows // chunk), SHARD_NBYTES // CHUNK_NBYTES))
        self._shard, self._done, self._waiting = chunk * per_shard, 0, 0
        self._parts: list[Array] = []
        self.array: Any = group.create_array(
            name,
            shape=(rows, *column.shape),
            dtype=dtype,
            chunks=(chunk, *column.shape),
            shards=(self._shard, *column.shape),
            compressors=[
                BloscCodec(cname="zstd", clevel=level, shuffle="bitshuffle", typesize=dtype.itemsize), Crc32cCodec()
            ],
            fill_value=np.nan if dtype.kind == "f" else 0,
            dimension_names=column.dims,
            attributes=_plain(attributes),
        )  # fmt: skip

    def add(self, values: Array) -> None:
        """Add rows, and write every shard that they fill."""
        self._parts.append(values)
        self._waiting += len(values)
        while self._waiting >= self._shard:
            self._write(self._shard)

    def finish(self) -> None:
        """Write what does not fill a shard."""
        if self._waiting:
            self._write(self._waiting)

    def _write(self, n: int) -> None:
        rows = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self.array[self._done : self._done + n] = rows[:n].astype(self.array.dtype, copy=False)
        self._done, self._waiting = self._done + n, self._waiting - n
        self._parts = [rows[n:]] if len(rows) > n else []


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON has them."""
    return {
        name: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        for name, value in attributes.items()
    }
