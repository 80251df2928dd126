"""Which variables of a Dataset are labels, and of which property and teacher."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from mlffstore.data.properties import PROPERTIES, Property
from mlffstore.data.schema import LABELS
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr


class LabelVariable(NamedTuple):
    """What a variable of labels holds."""

    spec: Property
    #: The teacher of a variable such as ``embedding.orb``; None for one with the dimension `teacher`, or of one teacher.
    teacher: str | None


def label_variables(ds: xr.Dataset) -> dict[str, LabelVariable]:
    """Return the variables of a Dataset that are labels, energy, forces and stress first.

    Energy, forces and stress are labels by their names. Others have the attribute `property`, which the engine and releases
    write, with their own name (arithmetic keeps attributes), or the name of a built-in property and the dimension `teacher`.
    """
    out = {name: LabelVariable(PROPERTIES[name], None) for name in LABELS if name in ds}
    for name in map(str, ds.data_vars):
        label, _, teacher = name.partition(".")
        by_name = label in PROPERTIES and "teacher" in ds[name].dims
        if name not in out and (ds[name].attrs.get("property") == label or by_name):
            spec = PROPERTIES.get(label) or described(label, str(ds[name].dims[0]), ds[name].attrs, ds[name].dtype.name)
            out[name] = LabelVariable(spec, teacher or None)
    return out


def described(name: str, axis: str, attributes: Mapping[str, Any], dtype: str) -> Property:
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
