"""Decoded samples as records that a kernel copies from, with what is missing masked. Where they lie is up to the caller.

A record is one sample: positions, forces, atomic numbers, one after another and aligned to 64 bytes, so that a shuffled
sample is one contiguous read. User columns lie beside the records, each as one array. Nothing here is NaN for missing: what
a sample lacks is 0, and a mask says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.labels import has_label
from mlffstore.data.ragged import offsets, row_indices
from mlffstore.data.sample_row import SAMPLE_ROW, WIDTH
from mlffstore.errors import CorruptionError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Column

#: Bytes that records are aligned to: a line of the processor's cache.
ALIGN = 64
#: Labels that batches can have.
TRAINED = ("energy", "forces", "stress")


@dataclass(frozen=True, slots=True)
class UserColumn:
    """A numeric user column of all samples, or a label beside energy, forces and stress.

    Attributes
    ----------
    axis : {"sample", "atom"}
    values : ndarray, shape (S, ...) or (A, ...)
        0 where it is missing. Integers are int64 or uint64.
    mask : ndarray, shape (S,) or (A,), bool, or None
        True where the row is there; None if no row is missing, and for a label, whose mask is among those of the samples.
    sums : ndarray, shape (S,), uint64
        Checksum of each sample's rows.
    checked : ndarray, shape (S,), bool
        Which samples need no comparison with their checksum any more.
    turns : str or None
        Of a label, how it turns, see `mlffstore.data.properties.Property`; None for a user column.
    """

    axis: str
    values: Array
    mask: Array | None
    sums: Array
    checked: Array
    turns: str | None = None

    def put(self, rows: slice, batch: SampleBatch, name: str) -> None:
        """Write the rows of a batch, which may lack the column."""
        assert self.mask is not None
        array = batch.columns.get(name)
        if array is None:
            self.values[rows], self.mask[rows] = 0, False
            return
        present = batch.masks.get(name, np.ones(len(array), bool))
        if array.dtype.kind == "f":
            lacking = np.isnan(array)
            present = ~np.any(lacking.reshape(len(array), -1), axis=1)
            array = np.where(lacking, 0, array)
        self.values[rows], self.mask[rows] = array, present

    def put_label(self, rows: slice, values: Array | None, present: Array, n_atoms: Array) -> None:
        """Write the labels of some samples, 0 where `present`, shape (S,), says that there is none."""
        if values is None:
            self.values[rows] = 0
            return
        there = np.repeat(present, n_atoms) if self.axis == "atom" else present
        self.values[rows] = np.where(there.reshape(-1, *(1,) * (values.ndim - 1)), values, 0)

    def words(self) -> tuple[Array, int]:
        """Return the values as unsigned integers in one dimension, and how many are in a row."""
        width = int(np.prod(self.values.shape[1:], dtype=np.int64))
        return self.values.view(f"u{self.values.dtype.itemsize}").reshape(-1), width


@dataclass(frozen=True, slots=True)
class Columns:
    """Decoded samples.

    Attributes
    ----------
    teacher : str
    has_forces, has_stress : bool
    begin : ndarray, shape (S+1,), int64
        Where each record starts, in floats, and where the last one ends.
    starts : ndarray, shape (S+1,), int64
        The first atom of each sample in user columns with the axis atom.
    n_atoms : ndarray, shape (S,), int32
    records : ndarray, float32 or float64
    rows : ndarray, shape (S, WIDTH), float64
        Numbers per sample, in the layout of `mlffstore.data.sample_row`.
    content_hash : ndarray, shape (S,), uint64
    split : ndarray, shape (S,), uint8
    sums : ndarray, shape (S,), uint64
        Checksum of each sample's record and row.
    checked : ndarray, shape (S,), bool
        Which samples need no comparison with their checksum any more. Those in this process's memory never do.
    masks : dict of str to ndarray, shape (S,), bool
        Label -> True where the sample has it; only of labels that some sample lacks, once all samples are there.
    user : dict of str to UserColumn
    place : str
        Where the bytes lie, for error messages.
    hidden : frozenset of str
        Labels that batches do not get.
    """

    teacher: str
    has_forces: bool
    has_stress: bool
    begin: Ints
    starts: Ints
    n_atoms: Array
    records: Array
    rows: Array
    content_hash: Array
    split: Array
    sums: Array
    checked: Array
    masks: dict[str, Array]
    user: dict[str, UserColumn]
    place: str = "memory"
    hidden: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def record_bytes(self) -> Array:
        """The records as bytes, uint8."""
        return self.records.view(np.uint8)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that batches have."""
        more = (name for name, column in self.user.items() if column.turns is not None)
        return ("energy", *(("forces",) if self.has_forces else ()), *(("stress",) if self.has_stress else ()), *more)

    @classmethod
    def empty(
        cls,
        teacher: str,
        labels: Iterable[str],
        n_atoms: Array,
        split: Array,
        precision: str,
        user: Mapping[str, Column],
        room: Callable[[str, Any, tuple[int, ...]], Array],
    ) -> Columns:
        """Return columns to be filled with `put`, and then finished with `sealed`.

        Parameters
        ----------
        user : mapping of str to Column
            User columns wanted, and labels beside energy, forces and stress.
        room : callable
            It makes an array of a name, dtype and shape.
        """
        n, names = len(n_atoms), set(labels)
        begin, starts = plan(n_atoms, "forces" in names, precision), offsets(n_atoms)
        counts = {"sample": n, "atom": int(starts[-1])}
        return cls(
            teacher, "forces" in names, "stress" in names, begin, starts, n_atoms,
            room("records", precision, (int(begin[-1]),)), room("rows", "float64", (n, WIDTH)),
            np.empty(n, np.uint64), split, np.zeros(0, np.uint64), np.ones(n, bool),
            {name: np.zeros(n, bool)
             for name in (*TRAINED, *(key for key, column in user.items() if column.quantity is not None))
             if name == "energy" or name in names or name in user},
            {name: UserColumn(
                column.axis, room(f"user.{name}", _dtype(column), (counts[column.axis], *column.shape)),
                np.zeros(counts[column.axis], bool) if column.quantity is None else None, np.zeros(0, np.uint64),
                np.ones(n, bool), None if column.quantity is None else column.quantity.turns,
            ) for name, column in user.items()},
        )  # fmt: skip

    def put(self, batch: SampleBatch, first: int = 0) -> int:
        """Write samples from index `first` on; return the index after them."""
        from mlffstore.data.kernels import pack

        last, real = first + len(batch), self.records.dtype
        labels = batch.labels.get(self.teacher, {})
        if not np.array_equal(batch.n_atoms, self.n_atoms[first:last]):
            raise DataError("column cache: the sizes of samples changed while they were read; try again")
        forces = np.zeros(0, real)
        if self.has_forces:
            forces = np.zeros((batch.n_atoms_total, 3), real)
            if "forces" in labels:
                present = self.masks["forces"][first:last] = has_label("forces", labels["forces"], batch.n_atoms)
                atoms = np.repeat(present, batch.n_atoms)
                forces[atoms] = labels["forces"][atoms]
        positions = np.ascontiguousarray(batch.positions, real).reshape(-1)
        begin = self.begin[first : last + 1]
        pack(begin, batch.offsets, positions, forces.reshape(-1), batch.numbers, self.records, self.record_bytes)
        rows = self.rows[first:last].view(SAMPLE_ROW)[:, 0]
        for name in ("energy", "stress"):
            rows[name] = 0
            if name in labels and name in self.masks:
                present = self.masks[name][first:last] = has_label(name, labels[name], batch.n_atoms)
                rows[name][present] = labels[name][present]
        for name in ("cell", "pbc", "charge", "multiplicity"):
            rows[name] = batch.columns[name]
        if "content_hash" in batch.columns:
            self.content_hash[first:last] = batch.content_hash
        for name, column in self.user.items():
            ends = (first, last) if column.axis == "sample" else (int(self.starts[first]), int(self.starts[last]))
            if column.turns is None:
                column.put(slice(*ends), batch, name)
                continue
            values = labels.get(name)
            present = np.zeros(len(batch), bool)
            if values is not None:
                present = has_label(name, values, batch.n_atoms, batch.properties)
            self.masks[name][first:last] = present
            column.put_label(slice(*ends), values, present, batch.n_atoms)
        return last

    def sealed(self) -> Columns:
        """Return the columns, all filled, with their checksums and without masks of what is never missing."""
        from mlffstore.data.kernels import sum_records, sum_rows

        sums = np.empty(len(self), np.uint64)
        sum_records(self.begin, self.records.itemsize, self.records.view(np.uint64), self.rows.view(np.uint64), sums)
        user = {}
        for name, column in self.user.items():
            words, width = column.words()
            starts = self.starts if column.axis == "atom" else np.zeros(0, np.int64)
            column_sums = np.empty(len(self), np.uint64)
            sum_rows(starts, width, words, column_sums)
            mask = None if column.mask is None or column.mask.all() else column.mask
            user[name] = replace(column, sums=column_sums, mask=mask)
        masks = {name: mask for name, mask in self.masks.items() if not mask.all()}
        return replace(self, sums=sums, user=user, masks=masks)

    def digest(self, index: Array) -> str:
        """Return a digest of some samples, with their structures and labels, in order."""
        return hashlib.blake2b(np.ascontiguousarray(self.sums[index]).tobytes(), digest_size=16).hexdigest()

    def damaged(self, sample: int) -> CorruptionError:
        """Return the error for a sample whose bytes do not have its checksum."""
        return CorruptionError(
            f"{self.place}: the bytes of sample {sample} are not what was written; remove the cache with "
            "'mlffstore cache --clear', it is built again"
        )

    def take_user(self, index: Array, counts: Array, out: Mapping[str, Array]) -> None:
        """Copy the user columns, and their masks, of the samples at `index`, which have `counts` atoms."""
        from mlffstore.data.kernels import check_rows

        rows = {"sample": index}
        if any(column.axis == "atom" for column in self.user.values()):
            rows["atom"] = row_indices(self.starts[index], counts)
        for name, column in self.user.items():
            words, width = column.words()
            starts = self.starts if column.axis == "atom" else np.zeros(0, np.int64)
            bad = check_rows(index, starts, width, words, column.sums, column.checked)
            if bad >= 0:
                raise self.damaged(bad)
            which = rows[column.axis]
            # The indices are known to be inside; with another mode NumPy would copy into a buffer first.
            np.take(column.values, which, axis=0, out=out[name][: len(which)], mode="clip")
            if column.mask is not None:
                np.take(column.mask, which, out=out[f"{name}_mask"][: len(which)], mode="clip")


def plan(n_atoms: Array, has_forces: bool, dtype: Any) -> Ints:
    """Return where the records start, and where the last one ends, in floats, shape (S+1,)."""
    width = np.dtype(dtype).itemsize
    floats = n_atoms.astype(np.int64) * (6 if has_forces else 3)
    unit = ALIGN // width
    return offsets(-(-(floats + -(-n_atoms.astype(np.int64) // width)) // unit) * unit)


def in_memory(name: str, dtype: Any, shape: tuple[int, ...]) -> Array:
    """Return an array in memory that starts at a multiple of the alignment."""
    kind = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    raw = np.empty(nbytes + ALIGN, np.uint8)
    shift = -raw.ctypes.data % ALIGN
    out: Array = raw[shift : shift + nbytes].view(kind).reshape(shape)
    return out


def _dtype(column: Column) -> str:
    """Return the dtype of a user column in batches: torch computes with few kinds of integers."""
    kind = np.dtype(column.dtype)
    return "int64" if kind.kind in "iu" and kind != np.uint64 else kind.name
