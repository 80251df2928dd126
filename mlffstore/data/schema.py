"""The columns of a dataset: names, dimensions, dtypes, units. They are defined here only.

It does not hold data (`mlffstore.data.batch`) and does not know how columns lie on disk (`mlffstore.format.segment`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlffstore.errors import DataError

Array = npt.NDArray[Any]
Axis = Literal["sample", "atom"]
Precision = Literal["float32", "float64"]

FORMAT_VERSION = 2
CONVENTIONS = "CF-1.12 mlffstore-2"
#: Names of the components along the inner dimensions that have names.
COMPONENTS = {"xyz": ["x", "y", "z"], "voigt": ["xx", "yy", "zz", "yz", "xz", "xy"]}
#: Sizes of the inner dimensions.
INNER_SIZES = {"xyz": 3, "vector": 3, "voigt": 6}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table of samples.

    Attributes
    ----------
    name : str
        Standard name, or name of a user column.
    axis : {"sample", "atom"}
        One row per sample, or one row per atom.
    inner : tuple of str
        Names of the dimensions after the first.
    shape : tuple of int
        Sizes of those dimensions.
    dtype : str
        NumPy name of the dtype on disk.
    unit : str
        Unit in UDUNITS spelling, "1" for none.
    long_name : str
        Description in one line.
    """

    name: str
    axis: Axis
    inner: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    unit: str
    long_name: str

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of all dimensions."""
        return (self.axis, *self.inner)

    @property
    def row_nbytes(self) -> int:
        """Bytes of one uncompressed row."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    def same_kind(self, other: Column) -> bool:
        """Return whether two columns differ in their descriptions at most."""
        return replace(self, long_name="") == replace(other, long_name="")

    def require_same_kind(self, other: Column) -> None:
        """Raise `DataError` if a user column of this name, `other`, is of another kind than this one."""
        if other is not self and not self.same_kind(other):
            raise DataError(
                f"user column {self.name!r}: expected {self.dtype} {self.dims} in {self.unit!r} as in the samples before, "
                f"got {other.dtype} {other.dims} in {other.unit!r}; convert it or rename it"
            )

    def with_dtype(self, dtype: str) -> Column:
        """Return the same column with another dtype."""
        return Column(self.name, self.axis, self.inner, self.shape, dtype, self.unit, self.long_name)


def _column(name: str, dims: str, dtype: str, unit: str, long_name: str) -> Column:
    axis, *inner = dims.split()
    shape = tuple(INNER_SIZES[dim] for dim in inner)
    return Column(name, "sample" if axis == "sample" else "atom", tuple(inner), shape, dtype, unit, long_name)


_STRUCTURE = (
    _column("n_atoms", "sample", "int32", "1", "number of atoms of the sample"),
    _column("numbers", "atom", "uint8", "1", "atomic number"),
    _column("positions", "atom xyz", "float32", "angstrom", "Cartesian position"),
    _column("cell", "sample vector xyz", "float64", "angstrom", "cell, rows are lattice vectors"),
    _column("pbc", "sample vector", "bool", "1", "periodic along each lattice vector"),
    _column("charge", "sample", "int16", "e", "total charge"),
    _column("multiplicity", "sample", "int16", "1", "spin multiplicity 2S+1"),
)
_IDENTITY = (
    _column("content_hash", "sample", "uint64", "1", "hash of the structure as stored"),
    _column("root", "sample", "uint64", "1", "content hash of the seed that the sample descends from"),
    _column("source", "sample", "uint32", "1", "where the seed came from"),
    _column("sampler", "sample", "uint32", "1", "what made the structure from the seed"),
)
_LABELS = (
    _column("energy", "sample", "float64", "eV", "total energy"),
    _column("forces", "atom xyz", "float32", "eV/angstrom", "force on the atom"),
    _column("stress", "sample voigt", "float32", "eV/angstrom^3", "Cauchy stress xx yy zz yz xz xy, tension positive"),
)
STRUCTURE: dict[str, Column] = {column.name: column for column in _STRUCTURE}
IDENTITY: dict[str, Column] = {column.name: column for column in _IDENTITY}
LABELS: dict[str, Column] = {column.name: column for column in _LABELS}
#: Every standard column but the labels, in the order of DESIGN and of the files.
STANDARD: dict[str, Column] = STRUCTURE | IDENTITY
#: Columns of codes whose meanings are a vocabulary of strings.
CODED = ("source", "sampler")
#: How the on-disk names of masks begin.
MASK = "mask"
#: The extra column of quarantined samples: why they were rejected.
REASON = _column("reason", "sample", "uint32", "1", "why the sample was rejected")

#: Names of teachers.
TEACHER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]{0,63}")
_USER_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
#: dtypes that every Zarr v3 reader shares.
USER_DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64",
)  # fmt: skip


def check_teacher_name(name: str) -> str:
    """Return `name` if it can name a teacher's columns; raise `DataError` otherwise."""
    if not isinstance(name, str) or not TEACHER.fullmatch(name):
        raise DataError(
            f"teacher name: expected 1 to 64 letters, digits or any of '_+.-' starting with a letter or digit, "
            f"got {name!r}; choose a name such as 'dft-pbe'"
        )
    return name


def label_key(column: str, teacher: str) -> str:
    """Return the on-disk name of a teacher's label column, such as ``energy.orb-v2``."""
    return f"{column}.{teacher}"


def label_column(name: str, teacher: str) -> Column:
    """Return the column of a teacher's energy, forces or stress under its on-disk name."""
    spec = LABELS[name]
    return replace(spec, name=label_key(name, teacher), long_name=f"{spec.long_name}, {teacher}")


def mask_key(name: str) -> str:
    """Return the on-disk name of the mask of a user column, such as ``mask.quality``."""
    return f"{MASK}.{name}"


def mask_column(column: Column) -> Column:
    """Return the mask of a user column under its on-disk name: True where a row has a value."""
    return Column(mask_key(column.name), column.axis, (), (), "bool", "1", f"whether {column.name} has a value")


def is_mask(key: str) -> bool:
    """Return whether an on-disk name is that of a mask."""
    return key.startswith(f"{MASK}.")


def split_key(key: str) -> tuple[str, str | None]:
    """Split an on-disk column name into the column and its teacher (None for other columns).

    Of a mask the second part is the column that it belongs to, see `is_mask`.
    """
    name, dot, teacher = key.partition(".")
    return name, teacher if dot else None


def user_column(name: str, array: Array, unit: str, axis: Axis, long_name: str = "") -> Column:
    """Return the description of a user column.

    Parameters
    ----------
    name : str
        A Python-like identifier that is not one of the standard names.
    array : ndarray, shape (S, ...) or (A, ...)
        Any boolean, integer or floating dtype.
    unit : str
        Unit; "1" for none.
    axis : {"sample", "atom"}
        Whether there is one row per sample or one row per atom.
    long_name : str, optional
        Description in one line.

    Raises
    ------
    DataError
        If the name is taken or not an identifier, the dtype is not numeric, or the unit is empty.
    """
    if (
        not _USER_COLUMN.fullmatch(name)
        or name in STANDARD
        or name in LABELS
        or name in {"reason", "teacher", "split", MASK}
    ):
        raise DataError(f"user column: expected an identifier that is not a standard name, got {name!r}; rename it")
    if array.dtype.name not in USER_DTYPES:
        raise DataError(
            f"user column {name!r}: expected a dtype of {', '.join(USER_DTYPES)}, got {array.dtype}; cast it first"
        )
    if not isinstance(unit, str) or not unit:
        raise DataError(f"user column {name!r}: expected a unit, got {unit!r}; use '1' for a number without unit")
    inner = tuple(f"{name}_dim{i}" for i in range(1, array.ndim))
    return Column(name, axis, inner, tuple(array.shape[1:]), array.dtype.name, unit, long_name or name)
