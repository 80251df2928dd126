"""Properties: the quantities that teachers give, with axis, shape, unit and behaviour under rotation.

The table of built-in properties is here; `Property` registers more in this process. A store and a release record each
property that is not built in beside its columns, so that a reader without the registration knows what the numbers mean.
"""

from __future__ import annotations

import json
import re
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Axis = Literal["sample", "atom"]
Turns = Literal["scalar", "vector", "tensor", "invariant"]

#: Names of the components along the inner dimensions that have names.
COMPONENTS = {"xyz": ["x", "y", "z"], "voigt": ["xx", "yy", "zz", "yz", "xz", "xy"],
              "principal": ["largest", "middle", "smallest"]}  # fmt: skip
#: Sizes of the inner dimensions.
INNER_SIZES = {"xyz": 3, "vector": 3, "voigt": 6, "principal": 3}
#: Names that no property can have: columns that every dataset has, and what the formats need.
TAKEN = frozenset(
    (
        "n_atoms", "numbers", "positions", "cell", "pbc", "charge", "multiplicity", "content_hash", "root", "source",
        "sampler", "reason", "teacher", "split", "mask", "sample", "atom", "batch", "ptr", "edge_index", "shift",
    )
)  # fmt: skip
#: Dimensions and coordinates that Datasets, results of their accessor and files have by themselves.
DIMENSIONS = ("sample", "atom", "teacher", "element", "bin", *INNER_SIZES)
#: The same, a dimension that a row has twice (`xyz_2`), and a dimension of a column without a name of its own.
_DIMENSION = re.compile(rf"{'|'.join(DIMENSIONS)}|(?:{'|'.join(INNER_SIZES)})_\d+|.+_dim\d+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_DTYPES = ("float16", "float32", "float64")
#: Largest size of an inner dimension, and number of inner dimensions.
MAX_WIDTH, MAX_INNER = 1 << 20, 6


@dataclass(frozen=True, slots=True)
class Property:
    """A quantity that teachers give. Making one registers its name in this process.

    Parameters
    ----------
    name : str
        An identifier, such as ``"polarizability"``.
    axis : {"sample", "atom"}
        Whether there is one row per sample or one row per atom.
    shape : sequence of str or int, optional
        Dimensions of a row: ``"xyz"`` (3), ``"voigt"`` (6: xx yy zz yz xz xy), ``"principal"`` (3: along principal axes,
        the largest first), a size, or any other name for a width that each teacher chooses for itself. ``()``, the default,
        is one number.
    unit : str, optional
        Unit of the numbers; "1" for none.
    turns : {"scalar", "vector", "tensor", "invariant"}, optional
        What a rotation R of the structure does: ``"vector"`` (last dimension xyz) turns as R v, ``"tensor"`` (last
        dimensions xyz xyz, or voigt) as R M R^T; a scalar, and an invariant of several numbers, stay.
    dtype : str, optional
        float16, float32 or float64. By default float64 for rows of samples and float32 for rows of atoms.
    extensive : bool, optional
        Whether the value of a system is the sum of those of its parts.
    long_name : str, optional
        Description in one line.
    half : bool, optional
        Whether values that are given as float16 are kept so.
    register : bool, optional
        False describes a property, as a file does, without registering it.

    Raises
    ------
    DataError
        If the description is not consistent, or the name stands for another property already.

    Examples
    --------
    >>> Property("polarizability", axis="sample", shape=("xyz", "xyz"), unit="e*angstrom^2/V", turns="tensor").inner
    ('xyz', 'xyz_2')
    """

    name: str
    axis: Axis
    shape: tuple[str | int, ...] = ()
    unit: str = "1"
    turns: Turns = "scalar"
    dtype: str = ""
    extensive: bool = False
    long_name: str = ""
    half: bool = False
    register: InitVar[bool] = True

    def __post_init__(self, register: bool) -> None:
        shape: Sequence[str | int] = (self.shape,) if isinstance(self.shape, (str, int)) else self.shape
        object.__setattr__(self, "shape", tuple(shape))
        object.__setattr__(self, "dtype", self.dtype or ("float64" if self.axis == "sample" else "float32"))
        object.__setattr__(self, "long_name", self.long_name or str(self.name).replace("_", " "))
        problem = self._problem()
        if problem:
            raise DataError(f"property {self.name!r}: {problem}")
        if register:
            self._register()

    def _problem(self) -> str:
        """Return what is wrong with the description, or nothing."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name in TAKEN:
            return "name: expected an identifier that is no column of every dataset; choose another name"
        if is_dimension(self.name):
            return f"name: expected none of the names of dimensions ({', '.join(DIMENSIONS)}, ...); choose another name"
        if self.axis not in get_args(Axis):
            return f"axis: expected 'sample' or 'atom', got {self.axis!r}"
        if self.turns not in get_args(Turns):
            return f"turns: expected one of {', '.join(get_args(Turns))}, got {self.turns!r}"
        if self.dtype not in _DTYPES:
            return (
                f"dtype: expected one of {', '.join(_DTYPES)}, got {self.dtype!r}; keep other values in a user column"
            )
        if not isinstance(self.unit, str) or not self.unit:
            return f"unit: expected a text, '1' for a number without unit, got {self.unit!r}"
        for size in self.shape:
            fits = 1 <= size <= MAX_WIDTH if type(size) is int else isinstance(size, str) and _NAME.fullmatch(size)
            if not fits:
                return f"shape: expected names of dimensions or sizes from 1 to {MAX_WIDTH}, got {size!r}"
        if len(self.shape) > MAX_INNER:
            return f"shape: expected at most {MAX_INNER} dimensions, got {len(self.shape)}"
        if self.turns == "vector" and self.shape[-1:] != ("xyz",):
            return f"a vector needs xyz as its last dimension, got {self.shape}"
        if self.turns == "tensor" and self.shape[-1:] != ("voigt",) and self.shape[-2:] != ("xyz", "xyz"):
            return f"a tensor needs voigt, or xyz xyz, as its last dimensions, got {self.shape}"
        if self.turns == "scalar" and self.shape:
            return f"a scalar is one number, got the shape {self.shape}; say turns='invariant', 'vector' or 'tensor'"
        return ""

    def _register(self) -> None:
        known = PROPERTIES.get(self.name) or _registered.get(self.name)
        if known is not None and not known.same_kind(self):
            raise DataError(
                f"property {self.name!r}: expected {known.describe()}, as it is registered, got {self.describe()}; choose "
                "another name"
            )
        if known is None:
            _registered[self.name] = self

    @property
    def inner(self) -> tuple[str, ...]:
        """Names of the dimensions of a row, each of them different. Those without a fixed meaning begin with the name."""
        names: list[str] = []
        for i, size in enumerate(self.shape, 1):
            name = f"{self.name}_dim{i}" if isinstance(size, int) else size
            if name not in INNER_SIZES and not isinstance(size, int):
                name = f"{self.name}_{size}"
            names.append(f"{name}_{i}" if name in names else name)
        return tuple(names)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Sizes of the dimensions of a row; None for a width that each teacher chooses."""
        return tuple(size if isinstance(size, int) else INNER_SIZES.get(size) for size in self.shape)

    def fits(self, shape: Sequence[int]) -> bool:
        """Return whether rows of a shape can be rows of this property."""
        return len(shape) == len(self.sizes) and all(
            n == size if size is not None else 1 <= n <= MAX_WIDTH for n, size in zip(shape, self.sizes, strict=True)
        )

    @property
    def is_open(self) -> bool:
        """Whether a teacher chooses some size."""
        return None in self.sizes

    @property
    def built_in(self) -> bool:
        """Whether every reader knows the property by its name."""
        return self.name in PROPERTIES

    def same_kind(self, other: Property) -> bool:
        """Return whether two descriptions mean the same quantity; dtype and long name may differ."""
        mine, others = ((p.name, p.axis, p.shape, p.unit, p.turns, p.extensive) for p in (self, other))
        return mine == others

    def require_same_kind(self, other: Property) -> None:
        """Raise `DataError` if another property of this name is another quantity."""
        if not self.same_kind(other):
            raise DataError(
                f"property {self.name!r}: expected {self.describe()}, as in the samples before, got {other.describe()}; "
                "convert the values, or choose another name"
            )

    def describe(self) -> str:
        """Return axis, shape, unit and behaviour in one line."""
        extensive = ", extensive" if self.extensive else ""
        dims = " ".join(map(str, (self.axis, *self.shape)))
        return f"a {self.turns} by {dims} in {self.unit!r}{extensive}"


#: Properties that were registered in this process, without those that are built in.
_registered: dict[str, Property] = {}
#: Properties that every reader knows.
PROPERTIES: dict[str, Property] = {}


def is_dimension(name: str) -> bool:
    """Return whether Datasets and files may have a dimension or coordinate of a name, which then no column can have.

    Examples
    --------
    >>> is_dimension("xyz"), is_dimension("velocity_dim1"), is_dimension("embedding_width"), is_dimension("velocity")
    (True, True, True, False)
    """
    return _DIMENSION.fullmatch(name) is not None or any(
        name in spec.inner for spec in (PROPERTIES | _registered).values()
    )


def _built_in(
    name: str,
    dims: str,
    dtype: str,
    unit: str,
    turns: Turns,
    long_name: str,
    *,
    extensive: bool = False,
    half: bool = False,
) -> None:
    axis, *shape = dims.split()
    PROPERTIES[name] = Property(
        name, "sample" if axis == "sample" else "atom", tuple(shape), unit, turns, dtype, extensive, long_name, half,
        register=False,
    )  # fmt: skip


_built_in("energy", "sample", "float64", "eV", "scalar", "total energy", extensive=True)
_built_in("forces", "atom xyz", "float32", "eV/angstrom", "vector", "force on the atom")
_built_in(
    "stress", "sample voigt", "float32", "eV/angstrom^3", "tensor", "Cauchy stress xx yy zz yz xz xy, tension positive"
)
_built_in("atomic_energies", "atom", "float64", "eV", "scalar", "share of the atom in the total energy")
_built_in("charges", "atom", "float32", "e", "scalar", "partial charge of the atom")
_built_in("magmoms", "atom", "float32", "Bohr magneton", "scalar", "magnetic moment of the atom")
_built_in("dipole", "sample xyz", "float64", "e*angstrom", "vector", "electric dipole moment", extensive=True)
_built_in("hessian_product", "atom xyz", "float32", "eV/angstrom^2", "vector", "Hessian times hessian_probe")
_built_in("hessian_probe", "atom xyz", "float32", "1", "vector", "direction of hessian_product")
_built_in("embedding", "atom width", "float32", "1", "invariant", "features of the atom in the model", half=True)
_built_in("energy_std", "sample", "float64", "eV", "scalar", "standard deviation of a committee's energies")
_built_in(
    "forces_std", "atom principal", "float32", "eV/angstrom", "invariant",
    "standard deviations of a committee's forces along the principal axes of their scatter",
)  # fmt: skip


def described_by(name: str, axis: str, attributes: Mapping[str, Any], dtype: str) -> Property:
    """Return the property that the attributes of a variable or dataset describe.

    Raises
    ------
    DataError
        If they do not.
    """
    try:
        inner = tuple(json.loads(attributes.get("inner", "[]")))
        turns, unit, extensive = str(attributes["turns"]), str(attributes["units"]), bool(attributes["extensive"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            f"{name}: expected the attributes turns, units, extensive and inner of a property, got other ones ({error})"
        ) from error
    return Property(
        name, "sample" if axis == "sample" else "atom", inner, unit, turns, dtype, extensive,  # type: ignore[arg-type]
        str(attributes.get("long_name", name)), half=dtype == "float16", register=False,
    )  # fmt: skip


def attributes_of(spec: Property) -> dict[str, str | int]:
    """Return the attributes that describe a property in files and Datasets; see `described_by`."""
    out: dict[str, str | int] = {
        "units": spec.unit, "long_name": spec.long_name, "property": spec.name, "turns": spec.turns
    }  # fmt: skip
    return out if spec.built_in else out | {"extensive": int(spec.extensive), "inner": json.dumps(list(spec.shape))}


def known_properties() -> dict[str, Property]:
    """Return the built-in properties and those that were registered in this process, by name."""
    return PROPERTIES | _registered


def find_property(name: str, described: Mapping[str, Property] | None = None) -> Property | None:
    """Return a property by its name, or None.

    Parameters
    ----------
    name : str
    described : mapping of str to Property, optional
        Descriptions that came with the data; they count before those that were registered in this process.
    """
    return PROPERTIES.get(name) or (described or {}).get(name) or _registered.get(name)


def property_of(name: str, described: Mapping[str, Property] | None = None) -> Property:
    """Return a property by its name; see `find_property`.

    Raises
    ------
    DataError
        If there is none.
    """
    found = find_property(name, described)
    if found is None:
        raise DataError(
            f"labels: expected properties among {', '.join(known_properties() | dict(described or {}))}, got {name!r}; "
            f"register it first: mlffstore.Property({name!r}, axis=..., shape=..., unit=..., turns=...)"
        )
    return found


def ordered(names: Iterable[str]) -> list[str]:
    """Return names of properties in one order: the built-in ones as in their table, then the others by name."""
    place = {name: i for i, name in enumerate(PROPERTIES)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def merge_properties(descriptions: Iterable[Mapping[str, Property]]) -> dict[str, Property]:
    """Return the properties of several batches together.

    Raises
    ------
    DataError
        If one name stands for two quantities.
    """
    merged: dict[str, Property] = {}
    for described in descriptions:
        for name, one in described.items():
            merged.setdefault(name, one).require_same_kind(one)
    return merged
