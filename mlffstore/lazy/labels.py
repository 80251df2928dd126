"""Which variables of a Dataset are labels, and of which property and teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mlffstore.data.properties import PROPERTIES, Property, described_by
from mlffstore.data.schema import LABELS

if TYPE_CHECKING:
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
            spec = PROPERTIES.get(label) or described_by(
                label, str(ds[name].dims[0]), ds[name].attrs, ds[name].dtype.name
            )
            out[name] = LabelVariable(spec, teacher or None)
    return out
