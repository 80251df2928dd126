"""One plain Zarr v3 group: CF contiguous ragged arrays, sharded, which any Zarr reader opens without this package."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.schema import Column
from mlffstore.data.splits import SPLITS
from mlffstore.release.selection import select
from mlffstore.runtime.paths import local_path
from mlffstore_exporters.columns import FileColumns, choose_teachers, root_attributes
from mlffstore_exporters.folder import Account, blocks, new_folder
from mlffstore_exporters.zarr_arrays import ArrayWriter, plain

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mlffstore.store.samples import Samples

#: The attribute `format` of the group.
FORMAT = "mlffstore-zarr 1"
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

    teachers, target = choose_teachers(snapshot, teacher), local_path(path)
    splits = select(snapshot, teachers)
    indices = [splits[name] for name in SPLITS]
    total = sum(map(len, indices))
    counts = snapshot.read(np.sort(np.concatenate(indices)), columns=["n_atoms"]).n_atoms
    rows = {"sample": total, "atom": int(counts.sum(dtype=np.int64))}
    source, account, done = FileColumns(snapshot, teachers), Account(teachers), 0
    with new_folder(target) as folder:
        group = zarr.create_group(folder, attributes={**root_attributes(snapshot, teachers), "format": FORMAT})
        writers = {
            name: ArrayWriter(group, name, column, rows[column.axis], source.attributes(name), compression_level)
            for name, (column, _) in source.columns.items()
        }
        flags = {
            "units": "1",
            "long_name": _SPLIT.long_name,
            "axis": "sample",
            "flag_values": np.arange(3, dtype=np.uint8),
        }
        flags |= {"flag_meanings": " ".join(SPLITS), "meanings": json.dumps(list(SPLITS))}
        split = ArrayWriter(group, "split", _SPLIT, total, flags, compression_level)
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
            writers[name].array.attrs.update(plain(attributes))
        with warnings.catch_warnings():  # the specification of Zarr v3 has no consolidated metadata yet
            warnings.simplefilter("ignore", UserWarning)
            zarr.consolidate_metadata(group.store, zarr_format=3)
    account.tell()
    return target
