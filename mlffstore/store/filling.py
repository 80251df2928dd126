"""Filling in labels that samples lack; what is there stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.labels import has_label, missing_label
from mlffstore.data.properties import ordered
from mlffstore.data.ragged import row_indices

if TYPE_CHECKING:
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array


def filled(whole: SampleBatch, rows: Array, new: SampleBatch, teacher: str) -> SampleBatch:
    """Return samples with the labels that some of them lack filled in.

    Parameters
    ----------
    whole : SampleBatch
        All samples.
    rows : ndarray of int
        The samples whose labels are filled in.
    new : SampleBatch
        These samples, in this order, with labels of the teacher.
    teacher : str

    Returns
    -------
    SampleBatch
        A label that a sample has, of whatever origin, is not changed.
    """
    old, fresh = whole.labels.get(teacher, {}), new.labels[teacher]
    out = dict(old)
    for name, gains in gained(whole, rows, new, teacher).items():
        if not gains.any():
            continue
        column = new.label_column(name, teacher)
        values = old[name].copy() if name in old else missing_label(column, len(whole), whole.n_atoms_total)
        if column.axis == "sample":
            values[rows[gains]] = fresh[name][gains]
        else:
            atoms = row_indices(whole.offsets[rows[gains]], whole.n_atoms[rows[gains]])
            values[atoms] = fresh[name][np.repeat(gains, new.n_atoms)]
        out[name] = values
    return whole.with_properties(teacher, {name: out[name] for name in ordered(out)}, new.properties)


def gained(whole: SampleBatch, rows: Array, new: SampleBatch, teacher: str) -> dict[str, Array]:
    """Return for each new label which samples have it there and lack it so far, shape (rows,), bool.

    Parameters
    ----------
    whole, rows, new, teacher
        As for `filled`.
    """
    old = whole.labels.get(teacher, {})
    out = {}
    for name, values in new.labels[teacher].items():
        gains = has_label(name, values, new.n_atoms, new.properties)
        if name in old:
            gains = gains & ~has_label(name, old[name], whole.n_atoms, whole.properties)[rows]
        out[name] = gains
    return out
