"""Which variables of a Dataset are labels, and of which property and teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from mlffstore.data.properties import PROPERTIES, Property, described_by
from mlffstore.data.schema import LABELS
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


class LabelVariable(NamedTuple):
    """What a variable of labels holds."""

    spec: Property
    #: The teacher of a variable such as ``embedding.orb``; None for one with the dimension `teacher`, or of one teacher.
    teacher: str | None


def label_variables(ds: xr.Dataset) -> dict[str, LabelVariable]:
    """Return the variables of a Dataset that are labels, energy, forces and stress first.

    Energy, forces and stress are labels by their names; ``energy.a``, of one teacher, if its attribute `teacher` agrees.
    Others have the attribute `property`, which the engine and releases write, with their own name (arithmetic keeps
    attributes), or the name of a built-in property and the dimension `teacher`.
    """
    out = {name: LabelVariable(PROPERTIES[name], None) for name in LABELS if name in ds}
    for name in map(str, ds.data_vars):
        label, _, teacher = name.partition(".")
        by_name = (label in PROPERTIES and "teacher" in ds[name].dims) or (
            label in LABELS and teacher != "" and ds[name].attrs.get("teacher") == teacher
        )
        if name not in out and (ds[name].attrs.get("property") == label or by_name):
            axis = "atom" if "atom" in ds[name].dims else "sample"
            spec = PROPERTIES.get(label) or described_by(label, axis, ds[name].attrs, ds[name].dtype.name)
            out[name] = LabelVariable(spec, teacher or None)
    return out


def side_by_side(ds: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with energies, forces and stresses of one teacher each along the dimension `teacher`, lazily.

    A release of several teachers has such variables, ``energy.a`` and ``energy.b``.
    """
    found = {name: label for name, label in label_variables(ds).items() if label.teacher is not None}
    parts: dict[str, dict[str, str]] = {}
    for name, label in found.items():
        if label.spec.name in LABELS:
            parts.setdefault(label.spec.name, {})[str(label.teacher)] = name
    if not parts:
        return ds
    both = [name for name in LABELS if name in ds and "teacher" in ds[name].dims]
    if both:
        apart = ", ".join(name for names in parts.values() for name in names.values())
        raise DataError(
            f"{apart}: expected the dimension teacher, as {', '.join(both)} has; put them along it, or drop them"
        )
    teachers = list(dict.fromkeys(str(label.teacher) for label in found.values()))
    joined = {label: _joined(ds, names, teachers) for label, names in parts.items()}
    ds = ds.drop_vars([*(name for names in parts.values() for name in names.values()), "teacher"], errors="ignore")
    return ds.assign(joined).assign_coords(teacher=teachers)


def _joined(ds: xr.Dataset, names: dict[str, str], teachers: Sequence[str]) -> xr.Variable:
    """Return variables along `teacher`; NaN for a teacher without one."""
    variables = {teacher: ds.variables[name] for teacher, name in names.items()}
    first = next(iter(variables.values()))
    if any(variable.chunks is None for variable in variables.values()):
        # In dask chunks, since lazy arrays of files would otherwise be read here; without the names that dask finds, which
        # would be those of the file, whatever is in it.
        variables = {t: v if v.chunks else v.chunk("auto", name=False) for t, v in variables.items()}  # type: ignore[arg-type]
        first = next(iter(variables.values()))
    missing = xr.full_like(first, np.nan)
    several = [variables.get(teacher, missing).transpose(*first.dims) for teacher in teachers]
    out: xr.Variable = xr.Variable.concat(several, "teacher")  # type: ignore[no-untyped-call]
    out.attrs = {key: first.attrs[key] for key in ("units", "long_name") if key in first.attrs}
    return out
