"""Which samples have a label. A label with a NaN in it, for any component or any atom of the sample, is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlffstore.data.ragged import offsets, reduce_rows
from mlffstore.data.schema import LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.data.schema import Array


def has_label(name: str, values: Array, n_atoms: Array) -> npt.NDArray[np.bool_]:
    """Return which samples have a label, shape (S,), bool.

    Parameters
    ----------
    name : str
        The label, such as ``"forces"``.
    values : ndarray, shape (S, ...) or (A, ...)
        Its values, NaN where they are missing.
    n_atoms : ndarray, shape (S,), int32
        Atoms per sample.
    """
    if not len(values):
        return np.zeros(len(n_atoms), bool)
    present = np.asarray(~np.isnan(values.reshape(len(values), -1)).any(axis=1))
    return reduce_rows(np.logical_and, present, offsets(n_atoms)) if LABELS[name].axis == "atom" else present


def has_any_label(labels: Mapping[str, Array], n_atoms: Array) -> npt.NDArray[np.bool_]:
    """Return which samples have any label of one teacher, shape (S,), bool.

    Parameters
    ----------
    labels : mapping of str to ndarray, shape (S, ...) or (A, ...)
        The teacher's labels by name.
    n_atoms : ndarray, shape (S,), int32
        Atoms per sample.
    """
    labelled = np.zeros(len(n_atoms), bool)
    for name in sorted(labels, key=lambda name: (LABELS[name].axis == "atom", name)):  # small columns first
        if not labelled.all():
            labelled |= has_label(name, labels[name], n_atoms)
    return labelled
