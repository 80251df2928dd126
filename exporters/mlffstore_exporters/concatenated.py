"""The concatenated HDF5 layout of MLFF-Distiller's writer: /structures, /labels and /metadata with `*_splits` arrays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import user_rows
from mlffstore.data.schema import CODED, LABELS
from mlffstore.data.splits import SPLITS
from mlffstore.release.selection import select
from mlffstore.runtime.paths import local_path
from mlffstore.store.presence import present
from mlffstore_exporters import chunks
from mlffstore_exporters.columns import recoded
from mlffstore_exporters.folder import new_hdf5, other_labels, parts, tell_left_out
from mlffstore_exporters.hdf5 import CHUNK_NBYTES, filters_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import h5py

    from mlffstore.data.ragged import Ints
    from mlffstore.store.samples import Samples

#: Name -> (rows by, inner shape, dtype); the order is that of the layout's description.
_DATASETS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "structures/atomic_numbers": ("atom", (), "i8"),
    "structures/atomic_numbers_splits": ("bound", (), "i8"),
    "structures/positions": ("atom", (3,), "f8"),
    "structures/cells": ("sample", (3, 3), "f8"),
    "structures/pbc": ("sample", (3,), "?"),
    "structures/charge": ("sample", (), "i2"),
    "structures/multiplicity": ("sample", (), "i2"),
    "labels/energy": ("sample", (), "f8"),
    "labels/energy_mask": ("sample", (), "?"),
    "labels/forces": ("atom", (3,), "f4"),
    "labels/forces_splits": ("bound", (), "i8"),
    "labels/forces_mask": ("sample", (), "?"),
    "labels/stress": ("sample", (6,), "f8"),
    "labels/stress_mask": ("sample", (), "?"),
    "labels/structure_indices": ("sample", (), "i8"),
    "metadata/split": ("sample", (), "u1"),
    "metadata/root": ("sample", (), "u8"),
    "metadata/source": ("sample", (), "u4"),
    "metadata/sampler": ("sample", (), "u4"),
}


def export_concatenated(
    snapshot: Samples,
    path: str | os.PathLike[str],
    *,
    teacher: str | None = None,
    compression_level: int = 4,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled to one file of concatenated arrays.

    Parameters
    ----------
    snapshot : Samples
    path : path
        A new file. It has its name only when it is complete and on disk.
    teacher : str, optional
        Teacher whose labels are used. It is required if there are several.
    compression_level : int, optional
        Compression level of gzip, 1 to 9.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path

    Notes
    -----
    Units are eV and angstrom, stress in Voigt order xx yy zz yz xz xy. A label that a sample lacks is zero and False in
    `energy_mask`, `forces_mask` or `stress_mask`, which have one entry for each sample. The layout has no splits: samples
    lie in the order train, val, test, and `metadata/split` (0, 1, 2) has the split of each. User columns are in the group
    `columns`, with the attributes `axis` and `units`; a missing float is NaN, and of integers and booleans the mask that the
    attribute `ancillary_variables` names says where there is a value. Strings are codes, with a list of strings in the
    attribute `meanings`. Labels beside energy, forces and stress are left out, and a warning is logged.
    """
    teacher_name, target = choose_teacher(snapshot.teachers, teacher), local_path(path)
    _, filters = filters_of("gzip", compression_level)
    with new_hdf5(target) as file:
        _write(file, snapshot, select(snapshot, (teacher_name,)), teacher_name, filters, progress)
    tell_left_out("concatenated", other_labels(snapshot, teacher_name, "the layout has energy, forces and stress"))
    return target


def _write(
    file: h5py.File,
    snapshot: Samples,
    splits: Mapping[str, Ints],
    teacher_name: str,
    filters: dict[str, Any],
    progress: Any,
) -> None:
    n_atoms = np.concatenate([snapshot.read(index, columns=["n_atoms"]).n_atoms for index in splits.values()])
    rows = {"sample": len(n_atoms), "bound": len(n_atoms) + 1, "atom": int(n_atoms.sum(dtype=np.int64))}
    queue = chunks.ChunkQueue()
    columns = {}
    user = {f"columns/{name}": column for name, column in snapshot.user_columns.items()}
    names = snapshot.mask_names()
    layout = _DATASETS | {name: (column.axis, column.shape, column.dtype) for name, column in user.items()}
    layout |= {f"columns/{mask}": (snapshot.user_columns[name].axis, (), "?") for name, mask in names.items()}
    for name, (axis, inner, dtype) in layout.items():
        size = max(1, min(rows[axis], CHUNK_NBYTES // (np.dtype(dtype).itemsize * int(np.prod(inner, dtype=int)))))
        options = {"chunks": (size, *inner), **filters} if rows[axis] else {}
        dataset = file.create_dataset(name, (rows[axis], *inner), dtype, track_times=False, **options)
        columns[name] = chunks.ChunkedDataset(dataset, filters["compression_opts"])
    for name, column in user.items():
        columns[name].dataset.attrs.update({"axis": column.axis, "units": column.unit})
        if column.name in names:
            columns[name].dataset.attrs["ancillary_variables"] = names[column.name]
    done, atoms = 0, 0
    zero = np.zeros(1, np.int64)
    for name in ("structures/atomic_numbers_splits", "labels/forces_splits"):
        queue.add(columns[name], zero)
    words: dict[str, dict[str, int]] = {name: {} for name in (*CODED, *(c.name for c in user.values() if c.coded))}
    for split, _, batch in parts(snapshot, splits, teacher_name, progress):
        ends = atoms + batch.offsets[1:]
        values = {
            "structures/atomic_numbers": batch.numbers, "structures/atomic_numbers_splits": ends,
            "structures/positions": batch.positions, "structures/cells": batch.cell, "structures/pbc": batch.pbc,
            "structures/charge": batch.charge, "structures/multiplicity": batch.multiplicity,
            "labels/forces_splits": ends, "labels/structure_indices": np.arange(done, done + len(batch)),
            "metadata/split": np.full(len(batch), SPLITS.index(split)), "metadata/root": batch.root,
        }  # fmt: skip
        for name, column in LABELS.items():
            whole = present(batch, teacher_name, name)
            rows_of = whole if column.axis == "sample" else np.repeat(whole, batch.n_atoms)
            stored = batch.labels.get(teacher_name, {}).get(name, np.zeros((len(rows_of), *column.shape)))
            values[f"labels/{name}"] = np.where(rows_of.reshape(-1, *(1,) * len(column.shape)), stored, 0.0)
            values[f"labels/{name}_mask"] = whole
        for name in CODED:
            values[f"metadata/{name}"] = recoded(batch, name, words[name])
        for name, column in user.items():
            values[name], mask = user_rows(batch, column)
            if column.coded and column.name in batch.columns:
                values[name] = recoded(batch, column.name, words[column.name])
            if column.name in names:
                values[f"columns/{names[column.name]}"] = mask
        for name, array in values.items():
            queue.add(columns[name], np.ascontiguousarray(array, columns[name].dataset.dtype))
        done, atoms = done + len(batch), int(ends[-1])
    for dataset in columns.values():
        queue.finish(dataset)
    queue.drain()
    for name, codes in words.items():
        file[f"{'metadata' if name in CODED else 'columns'}/{name}"].attrs["meanings"] = json.dumps(list(codes))
    file["metadata"].attrs.update(
        {
            "teacher_model": teacher_name, "num_structures": done, "total_atoms": atoms, "store_uuid": snapshot.store_uuid,
            "store_version": snapshot.version, "splits": "0 train, 1 val, 2 test",
            "units": "eV, angstrom, eV/angstrom, eV/angstrom^3; stress xx yy zz yz xz xy, tension positive; charge e",
        }
    )  # fmt: skip
