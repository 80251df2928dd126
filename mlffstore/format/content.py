"""`Content`: a digest of the samples that a commit was given, so that one key cannot stand for two contents unnoticed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.schema import CODED, IDENTITY
from mlffstore.format.codec import digest, extend_crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array, Column

#: Missing rows are taken in pieces of this many values.
_PIECE = 1 << 18


@dataclass(slots=True)
class _Sum:
    """The running checksum of one column; what is missing counts as NaN, or as 0 beside a mask."""

    blank: Array
    row_size: int
    value: int = 0
    #: Checksum of which rows have a value; floats say it by NaN.
    mask: int = 0
    rows: int = 0
    #: Whether any row has a value.
    filled: bool = False

    def add(self, values: Array, mask: Array | None) -> None:
        """Add rows, of which those that the mask says have a value."""
        if values.dtype.kind == "f":
            if values.size and np.isnan(values.min()):
                absent = np.isnan(values)
                self.filled |= not absent.all()
                values = np.where(absent, self.blank, values)
            else:
                self.filled |= values.size > 0
        else:
            if mask is None:
                mask = np.ones(len(values), bool)
            else:
                values = np.where(mask.reshape(-1, *(1,) * (values.ndim - 1)), values, self.blank)
            self.filled |= bool(mask.any())
            self.mask = extend_crc32c(self.mask, np.ascontiguousarray(mask))
        self.value = extend_crc32c(self.value, np.ascontiguousarray(values))
        self.rows += len(values)

    def up_to(self, rows: int) -> _Sum:
        """Return the sum with missing rows at the end, so that there are `rows`."""
        out = _Sum(self.blank, self.row_size, self.value, self.mask, rows, self.filled)
        step = max(1, _PIECE // max(self.row_size, 1))
        for start in range(self.rows, rows, step):
            n = min(step, rows - start)
            out.value = extend_crc32c(out.value, np.full(n * self.row_size, self.blank, self.blank.dtype))
            if self.blank.dtype.kind != "f":
                out.mask = extend_crc32c(out.mask, np.zeros(n, bool))
        return out


class Content:
    """A running digest of structures, roots, sources, samplers, labels and user columns.

    It depends on the samples and their order, and not on how they are cut into batches: strings count by value, a label
    or user column that a batch lacks counts as missing there, and one without any value does not count. CRC-32C detects
    mistakes at the speed of memory; it does not protect against forgery.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], _Sum] = {}
        #: Samples and atoms so far, by where they are stored and axis.
        self._rows: dict[tuple[str, str], int] = {}

    def add(self, batch: SampleBatch, role: str = "segments") -> None:
        """Add samples in the dtypes in which they are stored.

        Parameters
        ----------
        batch : SampleBatch
            Its roots are columns already, see `SampleBatch.hashed`.
        role : {"segments", "quarantine"}, optional
            Where the samples are stored.
        """
        for column, values, mask in _columns(batch):
            key = (role, column.axis, f"{column.name}: {column.kind()}")
            known = self._sums.get(key)
            if known is None:
                blank = np.array(np.nan if values.dtype.kind == "f" else 0, values.dtype)
                known = _Sum(blank, int(np.prod(column.shape)))
            known = self._sums[key] = known.up_to(self._rows.get((role, column.axis), 0))
            known.add(values, mask)
        for axis, n in (("sample", len(batch)), ("atom", batch.n_atoms_total)):
            self._rows[role, axis] = self._rows.get((role, axis), 0) + n

    def digest(self) -> str:
        """Return the digest, 32 hexadecimal digits."""
        sums = {}
        for (role, axis, name), known in self._sums.items():
            if known.filled:
                whole = known.up_to(self._rows[role, axis])
                sums[f"{role}/{name}"] = [whole.value, whole.mask]
        return digest(json.dumps(sums, sort_keys=True).encode())


def _columns(batch: SampleBatch) -> Iterator[tuple[Column, Array, Array | None]]:
    """Yield the columns that count, with their masks; strings as hashes."""
    for name, column in IDENTITY.items():
        values = getattr(batch, name) if name not in CODED else _hashes(batch.columns[name], batch.vocabulary[name])
        yield column, values, None
    for teacher, labels in batch.labels.items():
        for name, values in labels.items():
            yield batch.label_column(name, teacher), values, None
    for name, column in batch.user.items():
        values = batch.columns[name]
        yield column, _hashes(values, batch.vocabulary[name]) if column.coded else values, batch.masks.get(name)


def _hashes(codes: Array, words: Sequence[str]) -> Array:
    """Return the strings that codes stand for as 64-bit hashes."""
    if len(words) > len(codes):  # a piece of a larger batch: only the strings that are there
        used, codes = np.unique(codes, return_inverse=True)
        words = [words[code] for code in used.tolist()]
    table = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words)
    return np.frombuffer(table, np.uint64)[codes]
