"""Where everything lies in the column cache: records, and the extra columns in them and in the extra rows.

A record is one sample: positions, forces if there are any, atomic numbers, then the extra columns with rows of atoms, one
after another. Extra columns with rows of samples lie in a row of bytes of their own. Extra columns are user columns, and
labels beside energy, forces and stress; a mask of a user column is one more column of bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import offsets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Column

#: Bytes that records are aligned to: a line of the processor's cache.
ALIGN = 64


@dataclass(frozen=True, slots=True)
class ExtraColumn:
    """A numeric user column, or a label beside energy, forces and stress.

    Attributes
    ----------
    axis : {"sample", "atom"}
    dtype : str
        In records and batches: torch computes with few kinds of integers, so most are int64.
    shape : tuple of int
        Of a row.
    offset : int
        The first byte of the column in an extra row; in the extra part of a record, for each atom.
    mask : int
        The first byte of its mask likewise; -1 if no row is missing, and for a label, whose mask is a flag of the sample.
    turns : str or None
        Of a label, how it turns, see `mlffstore.data.properties.Property`; None for a user column.
    """

    axis: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    mask: int
    turns: str | None

    @property
    def nbytes(self) -> int:
        """Bytes of a row."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


def place(columns: Mapping[str, Column]) -> tuple[dict[str, ExtraColumn], dict[str, int]]:
    """Return where the extra columns lie, and the bytes of all of them for each sample and for each atom.

    Columns of wide numbers come first, so that rows of any number of atoms stay aligned.

    Parameters
    ----------
    columns : mapping of str to Column
        Numeric user columns, and columns of labels beside energy, forces and stress.
    """
    ends = {"sample": 0, "atom": 0}
    out: dict[str, ExtraColumn] = {}
    for name in sorted(columns, key=lambda name: -np.dtype(_dtype(columns[name])).itemsize):
        column = columns[name]
        turns = None if column.quantity is None else column.quantity.turns
        out[name] = ExtraColumn(column.axis, _dtype(column), column.shape, ends[column.axis], -1, turns)
        ends[column.axis] += out[name].nbytes
    for name, extra in out.items():
        if extra.turns is None:
            out[name] = replace(extra, mask=ends[extra.axis])
            ends[extra.axis] += 1
    ends["sample"] = -(-ends["sample"] // 8) * 8  # checksums are of words
    return {name: out[name] for name in columns}, ends


def extra_begin(n: Any, floats: int, width: int) -> Any:
    """Return after how many bytes of the record of n atoms its extra part begins: a multiple of 8.

    `floats` is how many numbers of `width` bytes an atom has before it (see `floats_of`); the atomic numbers follow these.
    """
    return (n * (floats * width + 1) + 7) // 8 * 8


def floats_of(has_forces: bool) -> int:
    """Return how many floats of structure and labels an atom has in its record."""
    return 6 if has_forces else 3


def plan(n_atoms: Array, has_forces: bool, dtype: Any, per_atom: int = 0) -> Ints:
    """Return where the records start, and where the last one ends, in floats, shape (S+1,).

    Parameters
    ----------
    n_atoms : ndarray, shape (S,)
    has_forces : bool
    dtype : dtype
        Of the floats.
    per_atom : int, optional
        Bytes of all extra columns for each atom.
    """
    width, counts = np.dtype(dtype).itemsize, n_atoms.astype(np.int64)
    nbytes = extra_begin(counts, floats_of(has_forces), width) + counts * per_atom
    return offsets(-(-nbytes // ALIGN) * (ALIGN // width))


def in_memory(name: str, dtype: Any, shape: tuple[int, ...]) -> Array:
    """Return an array in memory that starts at a multiple of the alignment."""
    kind = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    raw = np.empty(nbytes + ALIGN, np.uint8)
    shift = -raw.ctypes.data % ALIGN
    out: Array = raw[shift : shift + nbytes].view(kind).reshape(shape)
    return out


def _dtype(column: Column) -> str:
    kind = np.dtype(column.dtype)
    return "int64" if kind.kind in "iu" and kind != np.uint64 else kind.name
