"""Stored labels beside energy, forces and stress against those that the teacher gives again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.contracts.probes import number_of
from mlffstore.contracts.request import label_with, on_request
from mlffstore.data.labels import has_label
from mlffstore.data.properties import property_of
from mlffstore.data.schema import LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from mlffstore.contracts.protocols import Teacher, TeacherLabels
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

#: Deviations below this, in the unit of the property, are rounding.
_ROUNDING = 1e-4


def further_labels(ds: xr.Dataset, teacher: Teacher) -> dict[str, Array]:
    """Return the labels of a teacher in a Dataset beside energy, forces and stress, in float64.

    Only those are returned that the teacher gives, anyway or on request. Directions of Hessian-vector products and estimates
    of their error are not among them.
    """
    info = teacher.info
    gives = {*info.properties, *on_request(info)}
    out: dict[str, Array] = {}
    for variable in ds.data_vars:
        name, dot, owner = str(variable).partition(".")
        if dot:
            values = ds[variable].values if owner == info.name else None
        else:
            has_teachers = "teacher" in ds[variable].dims
            values = ds[variable].sel(teacher=info.name).values if has_teachers else None
        product = info.conservative and number_of(name) is not None and name.startswith("hessian_product")
        known = product or (name in gives and number_of(name) is None and name not in LABELS)
        if values is not None and known and np.isfinite(values).any():
            out[name] = values.astype(np.float64)
    return out


def label_again(teacher: Teacher, batch: SampleBatch, names: Mapping[str, Array]) -> TeacherLabels:
    """Return the labels of a teacher, with all properties that are named."""
    return label_with(teacher, batch, tuple(names) or None)


def deviating(stored: Mapping[str, Array], again: TeacherLabels, batch: SampleBatch, share: float) -> Array:
    """Return which samples have labels that are not those that the teacher gives again, shape (S,), bool.

    Parameters
    ----------
    stored : mapping of str to ndarray
        As `further_labels` returns them.
    again : TeacherLabels
        What the teacher gives.
    batch : SampleBatch
        The structures.
    share : float
        Root mean square deviation that passes, divided by the root mean square of the values of the sample, or of a typical
        sample if that is larger. The mean over all samples is taken off the values first, so that an offset that all of them
        share hides nothing.
    """
    bad = np.zeros(len(batch), bool)
    for name, values in stored.items():
        new = again.more.get(name)
        if new is None:
            continue
        there = has_label(name, values, batch.n_atoms) & again.ok
        if new.shape != values.shape:
            bad |= there
            continue
        deviation = _sizes(name, new - values, batch)
        size = _sizes(name, values - np.nanmean(values, axis=0), batch)
        typical = float(np.median(size[there])) if there.any() else 0.0
        bad |= there & ~(deviation <= share * np.maximum(size, typical) + _ROUNDING)
    return bad


def _sizes(name: str, values: Array, batch: SampleBatch) -> Array:
    """Return the root mean square of the values of each sample, shape (S,)."""
    squares = np.square(values).reshape(len(values), -1).mean(axis=1)
    if property_of(name).axis == "atom":
        squares = np.add.reduceat(squares, batch.offsets[:-1]) / batch.n_atoms
    return np.asarray(np.sqrt(squares))
