"""The columns of a dataset: names, dimensions, dtypes, units. They are defined here only.

It does not hold data (`mlffstore.data.batch`) and does not know how columns lie on disk (`mlffstore.format.segment`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mlffstore.data.properties import COMPONENTS as COMPONENTS
from mlffstore.data.properties import DIMENSIONS, INNER_SIZES, PROPERTIES, Property, is_dimension, property_of
from mlffstore.data.properties import Axis as Axis
from mlffstore.errors import DataError
from mlffstore.runtime.words import is_text

if TYPE_CHECKING:
    from collections.abc import Iterable

Array = npt.NDArray[Any]
Precision = Literal["float32", "float64"]

FORMAT_VERSION = 2
CONVENTIONS = "CF-1.12 mlffstore-2"


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
    quantity : Property or None
        Of a label, the property that it is.
    coded : bool
        Whether a user column holds strings: its numbers are codes, and a vocabulary says what they stand for.
    """

    name: str
    axis: Axis
    inner: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    unit: str
    long_name: str
    quantity: Property | None = None
    coded: bool = False

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
        return self.name == other.name and self.same_values(other)

    def same_values(self, other: Column) -> bool:
        """Return whether two columns differ in their names and descriptions at most, as labels of two teachers may."""
        mine, others = ((c.axis, c.inner, c.shape, c.dtype, c.unit, c.coded) for c in (self, other))
        if mine != others:
            return False
        return self.quantity is None or other.quantity is None or self.quantity.same_kind(other.quantity)

    def require_same_kind(self, other: Column) -> None:
        """Raise `DataError` if a column of this name, `other`, is of another kind than this one."""
        if other is not self and not self.same_kind(other):
            what = "user column" if self.quantity is None else "labels"
            raise DataError(
                f"{what} {self.name!r}: expected {self.kind()} as in the samples before, got {other.kind()}; convert or "
                "rename it"
            )

    def kind(self) -> str:
        """Return dtype, dimensions and unit in a few words."""
        dims = ", ".join((self.axis, *(f"{dim} {n}" for dim, n in zip(self.inner, self.shape, strict=True))))
        return f"{'strings' if self.coded else self.dtype} ({dims}) in {self.unit!r}"

    def with_dtype(self, dtype: str) -> Column:
        """Return the same column with another dtype."""
        return replace(self, dtype=dtype)


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
STRUCTURE: dict[str, Column] = {column.name: column for column in _STRUCTURE}
IDENTITY: dict[str, Column] = {column.name: column for column in _IDENTITY}
#: The labels that statistics, validation and the fast road of training know by name. Every property, these included, is in
#: `mlffstore.data.properties`.
LABELS: dict[str, Column] = {
    name: Column(
        name,
        spec.axis,
        spec.inner,
        tuple(INNER_SIZES[dim] for dim in spec.inner),
        spec.dtype,
        spec.unit,
        spec.long_name,
        spec,
    )
    for name, spec in PROPERTIES.items()
    if name in ("energy", "forces", "stress")
}
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
#: Dimensions of a user column, the samples or atoms included.
MAX_DIMENSIONS = 8
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


def label_column(label: str | Property, teacher: str, values: Array | None = None) -> Column:
    """Return the column of a teacher's label under its on-disk name.

    Parameters
    ----------
    label : str or Property
        A property, or the name of one that is built in or registered.
    teacher : str
    values : ndarray, shape (S, ...) or (A, ...), optional
        Values of the column. They say its dtype, and the sizes that the property leaves open, 0 by default.
    """
    spec = property_of(label) if isinstance(label, str) else label
    shape = tuple(size or 0 for size in spec.sizes) if values is None else tuple(values.shape[1:])
    dtype = spec.dtype if values is None else values.dtype.name
    long_name = f"{spec.long_name}, {teacher}"
    return Column(label_key(spec.name, teacher), spec.axis, spec.inner, shape, dtype, spec.unit, long_name, spec)


def is_label(key: str) -> bool:
    """Return whether an on-disk name is that of a label."""
    return split_key(key)[1] is not None and not is_mask(key)


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


def user_column(name: str, array: Array, unit: str, axis: Axis, long_name: str = "", *, coded: bool = False) -> Column:
    """Return the description of a user column.

    Parameters
    ----------
    name : str
        A Python-like identifier that is neither a standard name nor a dimension of datasets and files.
    array : ndarray, shape (S, ...) or (A, ...)
        Any boolean, integer or floating dtype.
    unit : str
        Unit; "1" for none.
    axis : {"sample", "atom"}
        Whether there is one row per sample or one row per atom.
    long_name : str, optional
        Description in one line.
    coded : bool, optional
        Whether the numbers are codes of strings.

    Raises
    ------
    DataError
        If the name is taken, a dimension or not an identifier, the dtype is not numeric, or the unit is empty.
    """
    if (
        not _USER_COLUMN.fullmatch(name)
        or name in STANDARD
        or name in LABELS
        or name in {"reason", "teacher", "split", MASK}
    ):
        raise DataError(f"user column: expected an identifier that is not a standard name, got {name!r}; rename it")
    if is_dimension(name):
        raise DataError(
            f"user column: expected a name that is no dimension of datasets and releases ({', '.join(DIMENSIONS)}, "
            f"NAME_dim1, ...), got {name!r}; rename it"
        )
    if array.dtype.name not in USER_DTYPES:
        raise DataError(
            f"user column {name!r}: expected a dtype of {', '.join(USER_DTYPES)}, got {array.dtype}; cast it first"
        )
    if not isinstance(unit, str) or not unit or not is_text(unit):
        raise DataError(f"user column {name!r}: expected a unit, got {unit!r}; use '1' for a number without unit")
    if not isinstance(long_name, str) or not is_text(long_name):
        raise DataError(f"user column {name!r}: expected a description as text, got {long_name!r}")
    if 0 in array.shape[1:] or array.ndim > MAX_DIMENSIONS:
        raise DataError(
            f"user column {name!r}: expected rows of at least one value and at most {MAX_DIMENSIONS - 1} dimensions, got "
            f"shape {array.shape}"
        )
    inner = tuple(f"{name}_dim{i}" for i in range(1, array.ndim))
    shape = tuple(array.shape[1:])
    return Column(name, axis, inner, shape, array.dtype.name, unit, long_name or name, coded=coded)


def described_properties(columns: Iterable[Column]) -> dict[str, Property]:
    """Return the properties among some columns that are not built in, by name.

    Raises
    ------
    DataError
        If one name stands for two different properties, as labels of rejected samples of several commits may have it.
    """
    out: dict[str, Property] = {}
    for column in columns:
        spec = column.quantity
        if spec is not None and not spec.built_in:
            out.setdefault(spec.name, spec).require_same_kind(spec)
    return out
