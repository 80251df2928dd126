"""The Zarr stores of nvalchemi-toolkit (NVIDIA ALCHEMI), as its `AtomicDataZarrReader` reads them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlffstore.data.labels import choose_teacher
from mlffstore.data.schema import CODED, STANDARD, Column, is_mask
from mlffstore.errors import DataError
from mlffstore.release.selection import select
from mlffstore.runtime.paths import local_path
from mlffstore_exporters.columns import FileColumns, root_attributes
from mlffstore_exporters.folder import new_folder, parts, write_sidecar
from mlffstore_exporters.meanings import of_electrons, of_labels
from mlffstore_exporters.zarr_arrays import ArrayWriter

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.store.samples import Samples

logger = logging.getLogger(__name__)

#: Our columns -> fields of nvalchemi's AtomicData.
CORE = {
    "numbers": "atomic_numbers", "positions": "positions", "cell": "cell", "pbc": "pbc", "charge": "charge",
    "multiplicity": "spin", "energy": "energy", "forces": "forces", "stress": "stress", "dipole": "dipole",
    "charges": "charges",
}  # fmt: skip
#: Other fields of AtomicData, whose meaning a user column of the same name need not have.
_FIELDS = frozenset(
    (
        "atomic_masses", "atomic_numbers", "atom_categories", "neighbor_list", "shifts", "neighbor_list_shifts",
        "neighbor_matrix", "neighbor_matrix_shifts", "num_neighbors", "virial", "node_attrs", "node_alpha_spins",
        "node_beta_spins", "spin", "graph_alpha_spins", "node_embeddings", "edge_embeddings", "graph_embeddings",
        "velocities", "momenta", "kinetic_energies", "info", "device", "dtype", "num_nodes", "num_edges", "batch_idx",
        "batch_ptr", *CORE.values(),
    )
)  # fmt: skip
#: Fields of samples that nvalchemi keeps as a column, shape (S, 1).
_TALL = ("energy", "charge", "spin")
#: Integers that torch does not compute with -> those that hold them.
_WIDER = {"uint16": "int32", "uint32": "int64"}


def export_nvalchemi(
    snapshot: Samples,
    path: str | os.PathLike[str],
    *,
    teacher: str | None = None,
    dtype: Literal["float32", "float64"] = "float64",
    compression_level: int = 5,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled as Zarr stores of nvalchemi-toolkit.

    Parameters
    ----------
    snapshot : Samples
    path : path
        A new folder, with the folders `train`, `val` and `test`.
    teacher : str, optional
        Teacher whose labels are used. It is required if there are several.
    dtype : {"float64", "float32"}, optional
        dtype of all floating-point fields. nvalchemi casts them to that of the positions, so they share one; float64 changes
        no number, float32 rounds energies to about 7 digits.
    compression_level : int, optional
        Level of Zstandard in Blosc, 1 to 9.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path

    Notes
    -----
    ``train/periodic.zarr`` and ``train/molecule.zarr``, and so on: nvalchemi cannot batch samples with a cell and samples
    without one, and its `MultiDataset` joins the two. Units are eV and angstrom; stress is a matrix, tension positive;
    `spin` is the multiplicity 2S+1. A label that a sample lacks is NaN, which the losses of nvalchemi skip with
    ``ignore_nan=True``; a label that no sample of a store has is not in it. Other properties and user columns of numbers are
    in the group `custom`, beside the masks of those that some samples lack. The group `mlffstore`, which nvalchemi
    ignores, keeps what its tensors cannot hold or would take for something else: roots, strings, 64-bit unsigned
    integers, user columns with the name of a field of AtomicData, of a label or of a spin. ``mlffstore import`` takes all of
    it back.
    """
    if dtype not in ("float32", "float64"):
        raise DataError(f"dtype: expected 'float64' or 'float32', got {dtype!r}")
    teacher_name, target = choose_teacher(snapshot.teachers, teacher), local_path(path)
    source, splits, flat = FileColumns(snapshot, (teacher_name,)), select(snapshot, (teacher_name,)), 0
    rows = {
        (split, kind): {"sample": len(sizes), "atom": int(sizes.sum(dtype=np.int64))}
        for split, index in splits.items()
        for kind, sizes in _sizes(snapshot, index).items()
    }
    with new_folder(target) as folder:
        stores = {
            (split, kind): _Store(folder / split / f"{kind}.zarr", source, size, kind, dtype, compression_level)
            for (split, kind), size in rows.items()
        }
        for split, _, batch in parts(snapshot, splits, teacher_name, progress):
            periodic = batch.pbc.any(axis=1)
            flat += int(np.count_nonzero(periodic & (np.linalg.det(batch.cell) == 0)))
            for kind, chosen in (("periodic", periodic), ("molecule", ~periodic)):
                if chosen.any():
                    part = batch if chosen.all() else batch.take(np.flatnonzero(chosen))
                    stores[split, kind].add(part, source)
        for store in stores.values():
            store.finish(source.vocabularies())
        write_sidecar(folder, "nvalchemi", root_attributes(snapshot, (teacher_name,)))
    if flat:
        logger.warning("nvalchemi needs three independent lattice vectors: %s periodic samples have fewer", f"{flat:,}")
    return target


def _sizes(snapshot: Samples, index: Array) -> dict[str, Array]:
    """Return the number of atoms of each sample that is periodic, and of each that is not, if there are any."""
    if not len(index):
        return {}
    batch = snapshot.read(index, columns=["n_atoms", "pbc"])
    periodic = batch.pbc.any(axis=1)
    sizes = {"periodic": batch.n_atoms[periodic], "molecule": batch.n_atoms[~periodic]}
    return {kind: counts for kind, counts in sizes.items() if len(counts)}


class _Store:
    """One store that is being written."""

    def __init__(
        self, path: Path, source: FileColumns, rows: Mapping[str, int], kind: str, dtype: str, level: int
    ) -> None:
        import zarr

        path.parent.mkdir(exist_ok=True)
        self._group, self._rows = zarr.create_group(path), dict(rows)
        groups = {name: self._group.create_group(name) for name in ("meta", "core", "custom", "mlffstore")}
        pointers = Column("atoms_ptr", "sample", (), (), "int64", "1", "first atom of each sample")
        self._pointers = ArrayWriter(groups["meta"], "atoms_ptr", pointers, rows["sample"] + 1, {}, level)
        self._pointers.add(np.zeros(1, np.int64))
        self._n_atoms = 0
        for name, size in (("edges_ptr", rows["sample"] + 1), ("edges_mask", 0)):
            groups["meta"].create_array(name, shape=(size,), dtype="int64" if name == "edges_ptr" else "bool",
                                        fill_value=0)  # fmt: skip
        for name, axis in (("samples_mask", "sample"), ("atoms_mask", "atom")):
            groups["meta"].create_array(name, data=np.ones(rows[axis], bool))
        self._writers: dict[str, tuple[str, str, ArrayWriter]] = {}
        #: Labels of which no sample had a value so far.
        self._empty: set[str] = set()
        for name, (column, _) in source.columns.items():
            if name in ("n_atoms", "content_hash") or (kind == "molecule" and name in ("cell", "pbc")):
                continue
            group, field, stored = _place(name, source, dtype)
            attributes = {**source.attributes(name), "column": name, "dtype": column.dtype}
            writer = ArrayWriter(groups[group], field, stored, rows[column.axis], attributes, level)
            self._writers[name] = (group, field, writer)
            if column.quantity is not None:
                self._empty.add(name)

    def add(self, batch: SampleBatch, source: FileColumns) -> None:
        """Add samples."""
        self._pointers.add(self._n_atoms + batch.offsets[1:].astype(np.int64))
        self._n_atoms += batch.n_atoms_total
        for name, (group, field, writer) in self._writers.items():
            values = source.values(batch, name)
            if name in self._empty and not np.isnan(values).all():
                self._empty.discard(name)
            writer.add(_as_field(field, values) if group == "core" else values)

    def finish(self, vocabularies: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what is left, and what describes the fields."""
        self._pointers.finish()
        fields: dict[str, dict[str, str]] = {"core": {}, "custom": {}}
        for name, (group, field, writer) in self._writers.items():
            writer.finish()
            if name in self._empty:
                del self._group[f"{group}/{field}"]
                continue
            if name in vocabularies:
                writer.array.attrs["meanings"] = vocabularies[name]["meanings"]
            if group in fields:
                fields[group][field] = "atom" if writer.array.attrs["axis"] == "atom" else "system"
        self._group.attrs.update({"num_samples": self._rows["sample"], "fields": fields})


def _place(name: str, source: FileColumns, dtype: str) -> tuple[str, str, Column]:
    """Return the group and the field of a column, and how it is stored."""
    column, key = source.columns[name]
    if is_mask(key):  # beside the column that it belongs to
        return _place(key.partition(".")[2], source, dtype)[0], name, column
    stored = column.with_dtype(dtype if np.dtype(column.dtype).kind == "f" else _WIDER.get(column.dtype, column.dtype))
    if name in CORE and (name in STANDARD or column.quantity is not None):
        field = CORE[name]
        if field == "atomic_numbers":
            stored = column.with_dtype("int64")
        elif field == "stress":
            stored = replace(stored, inner=("vector", "xyz"), shape=(3, 3))
        elif field in _TALL:
            stored = replace(stored, inner=("one",), shape=(1,), dtype=dtype)
        return "core", field, stored
    is_taken = name in _FIELDS or (of_labels if column.quantity is None else of_electrons)(name)
    if is_taken or name in CODED or column.coded or column.dtype == "uint64":
        return "mlffstore", name, column
    return "custom", name, stored


def _as_field(field: str, values: Array) -> Array:
    """Return values in the shape of a field."""
    from ase.stress import voigt_6_to_full_3x3_stress

    if field == "stress":
        return np.asarray(voigt_6_to_full_3x3_stress(values))
    return values[:, None] if field in _TALL else values
