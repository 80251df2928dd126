"""Decoded samples as records that a kernel copies from, with what is missing masked. Where they lie is up to the caller.

A record is one sample, one after another and aligned to 64 bytes, so that a shuffled sample is one contiguous read; the
layout is `mlffstore.training.layout`. Nothing here is NaN for missing: what a sample lacks is 0, and a mask says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.labels import has_label
from mlffstore.data.sample_row import SAMPLE_ROW, WIDTH
from mlffstore.errors import CorruptionError, DataError
from mlffstore.training.layout import ExtraColumn, floats_of, place, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Column

#: Labels that batches can have.
TRAINED = ("energy", "forces", "stress")


@dataclass(frozen=True, slots=True)
class Columns:
    """Decoded samples.

    Attributes
    ----------
    teacher : str
    has_forces, has_stress : bool
    begin : ndarray, shape (S+1,), int64
        Where each record starts, in floats, and where the last one ends.
    n_atoms : ndarray, shape (S,), int32
    records : ndarray, float32 or float64
    rows : ndarray, shape (S, WIDTH), float64
        Numbers per sample, in the layout of `mlffstore.data.sample_row`.
    extra_rows : ndarray, shape (S, B), uint8
        Extra columns with one row per sample.
    content_hash : ndarray, shape (S,), uint64
    split : ndarray, shape (S,), uint8
    sums, extra_sums : ndarray, shape (S,), uint64
        Checksums of each sample: of structure, energy, forces and stress, and of the extra columns.
    checked, extra_checked : ndarray, shape (S,), bool
        Which samples need no comparison with these any more. Those in this process's memory never do.
    masks : dict of str to ndarray, shape (S,), bool
        Label -> True where the sample has it; only of labels that some sample lacks, once all samples are there.
    extra : dict of str to ExtraColumn
    place : str
        Where the bytes lie, for error messages.
    hidden : frozenset of str
        Labels that batches do not get.
    lacking : set of str
        User columns of which some row is missing, as far as samples were put.
    flags : ndarray, shape (S, F), uint8
        The masks beside each other, as they were when this was made.
    """

    teacher: str
    has_forces: bool
    has_stress: bool
    begin: Ints
    n_atoms: Array
    records: Array
    rows: Array
    extra_rows: Array
    content_hash: Array
    split: Array
    sums: Array
    extra_sums: Array
    checked: Array
    extra_checked: Array
    masks: dict[str, Array]
    extra: dict[str, ExtraColumn]
    place: str = "memory"
    hidden: frozenset[str] = frozenset()
    lacking: set[str] = field(default_factory=set)
    flags: Array = field(init=False)

    def __post_init__(self) -> None:
        flags = np.array(list(self.masks.values()), np.uint8).reshape(len(self.masks), len(self))
        object.__setattr__(self, "flags", np.ascontiguousarray(flags.T))

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def record_bytes(self) -> Array:
        """The records as bytes, uint8."""
        return self.records.view(np.uint8)

    @property
    def floats(self) -> int:
        """Floats of structure and forces that an atom has in its record."""
        return floats_of(self.has_forces)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that batches have."""
        more = (name for name, column in self.extra.items() if column.turns is not None)
        return ("energy", *(("forces",) if self.has_forces else ()), *(("stress",) if self.has_stress else ()), *more)

    @classmethod
    def empty(
        cls,
        teacher: str,
        labels: Iterable[str],
        n_atoms: Array,
        split: Array,
        precision: str,
        columns: Mapping[str, Column],
        room: Callable[[str, Any, tuple[int, ...]], Array],
    ) -> Columns:
        """Return columns to be filled with `put`, and then finished with `sealed`.

        Parameters
        ----------
        columns : mapping of str to Column
            User columns wanted, and labels beside energy, forces and stress.
        room : callable
            It makes an array of a name, dtype and shape.
        """
        n, names = len(n_atoms), set(labels)
        extra, nbytes = place(columns)
        begin = plan(n_atoms, "forces" in names, precision, nbytes["atom"])
        more = (name for name, column in extra.items() if column.turns is not None)
        masked = (*(name for name in TRAINED if name == "energy" or name in names), *more)
        return cls(
            teacher, "forces" in names, "stress" in names, begin, n_atoms,
            room("records", precision, (int(begin[-1]),)), room("rows", "float64", (n, WIDTH)),
            room("extra", "uint8", (n, nbytes["sample"])), np.empty(n, np.uint64), split, np.zeros(0, np.uint64),
            np.zeros(0, np.uint64), np.ones(n, bool), np.ones(n, bool), {name: np.zeros(n, bool) for name in masked}, extra,
        )  # fmt: skip

    def put(self, batch: SampleBatch, first: int = 0) -> int:
        """Write samples from index `first` on; return the index after them."""
        from mlffstore.training.kernels import pack

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
        self.extra_rows[first:last] = 0
        for name, column in self.extra.items():
            if column.turns is None:
                self._put_user(name, column, batch, first)
            else:
                self._put_label(name, column, batch, first)
        return last

    def _put_user(self, name: str, column: ExtraColumn, batch: SampleBatch, first: int) -> None:
        """Write a user column of some samples, and its mask; the batch may lack the column."""
        array = batch.columns.get(name)
        n = len(batch) if column.axis == "sample" else batch.n_atoms_total
        present = np.full(n, array is not None)
        values = np.zeros((n, *column.shape), column.dtype)
        if array is not None:
            present = batch.masks.get(name, present)
            if array.dtype.kind == "f":
                missing = np.isnan(array)
                present = ~np.any(missing.reshape(n, -1), axis=1)
                array = np.where(missing, 0, array)
            values[...] = array
        if not present.all():
            self.lacking.add(name)
        self._write(column.axis, column.offset, values, batch, first)
        self._write(column.axis, column.mask, present, batch, first)

    def _put_label(self, name: str, column: ExtraColumn, batch: SampleBatch, first: int) -> None:
        """Write a label of some samples, 0 where a sample lacks it."""
        array = batch.labels.get(self.teacher, {}).get(name)
        n = len(batch) if column.axis == "sample" else batch.n_atoms_total
        values = np.zeros((n, *column.shape), column.dtype)
        if array is not None:
            present = has_label(name, array, batch.n_atoms, batch.properties)
            self.masks[name][first : first + len(batch)] = present
            there = np.repeat(present, batch.n_atoms) if column.axis == "atom" else present
            values[there] = array[there]
        self._write(column.axis, column.offset, values, batch, first)

    def _write(self, axis: str, offset: int, values: Array, batch: SampleBatch, first: int) -> None:
        """Write the rows of a column into the extra rows, or into the extra part of the records."""
        from mlffstore.training.kernels import pack_extra

        as_bytes = values.view(np.uint8).reshape(len(values), -1)
        if axis == "sample":
            self.extra_rows[first : first + len(batch), offset : offset + as_bytes.shape[1]] = as_bytes
            return
        begin, width = self.begin[first : first + len(batch) + 1], self.records.itemsize
        nbytes = as_bytes.shape[1]
        pack_extra(begin, batch.offsets, self.floats, width, offset, nbytes, as_bytes.reshape(-1), self.record_bytes)

    def sealed(self) -> Columns:
        """Return the columns, all filled, with their checksums and without masks of what is never missing."""
        sums, extra_sums = self.checksums()
        extra = {
            name: column if name in self.lacking else replace(column, mask=-1) for name, column in self.extra.items()
        }
        masks = {name: mask for name, mask in self.masks.items() if not mask.all()}
        return replace(self, sums=sums, extra_sums=extra_sums, extra=extra, masks=masks)

    def checksums(self) -> tuple[Array, Array]:
        """Return what `sums` and `extra_sums` are of the bytes that are there."""
        from mlffstore.training.kernels import sum_records

        sums, extra_sums = np.empty(len(self), np.uint64), np.empty(len(self), np.uint64)
        words, rows, extra_rows = (array.view(np.uint64) for array in (self.records, self.rows, self.extra_rows))
        width = self.records.itemsize
        sum_records(self.begin, self.n_atoms, self.floats, width, words, rows, extra_rows, sums, extra_sums)
        return sums, extra_sums

    def digest(self, index: Array) -> str:
        """Return a digest of some samples, with their structures, labels and user columns, in order."""
        sums = np.stack([self.sums[index], self.extra_sums[index]]) if self.extra else self.sums[index]
        return hashlib.blake2b(np.ascontiguousarray(sums).tobytes(), digest_size=16).hexdigest()

    def damaged(self, sample: int) -> CorruptionError:
        """Return the error for a sample whose bytes do not have its checksum."""
        return CorruptionError(
            f"{self.place}: the bytes of sample {sample} are not what was written; remove the cache with "
            "'mlffstore cache --clear', it is built again"
        )
