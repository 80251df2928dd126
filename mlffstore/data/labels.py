"""Labels of several teachers: the choice of a teacher, and which samples have a label.

A label with a NaN in it, for any component or any atom of the sample, is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlffstore.data.ragged import offsets, reduce_rows
from mlffstore.data.schema import LABELS, Array
from mlffstore.errors import TeacherError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Name of the teacher when none is given.
DEFAULT_TEACHER = "reference"
#: Labels of one teacher by name.
Labels = dict[str, Array]


def choose_teacher(available: Sequence[str], teacher: str | None) -> str:
    """Return the teacher to use: the one asked for, or the only one there is.

    Parameters
    ----------
    available : sequence of str
        Teachers whose labels are there.
    teacher : str or None
        The teacher asked for. None is enough when there is exactly one.

    Raises
    ------
    TeacherError
        If there is none, the one asked for is not there, or there are several and none was asked for.
    """
    if teacher is not None:
        if teacher not in available:
            raise TeacherError(
                f"teacher: expected one of {', '.join(available) or '(no labels here)'}, got {teacher!r}"
            )
        return teacher
    if len(available) == 1:
        return available[0]
    if not available:
        raise TeacherError("there are no labels here: label the samples first")
    raise TeacherError(
        f"there are labels of several teachers ({', '.join(available)}), and their energies have different zeros: "
        "choose one with teacher=..."
    )


def missing_label(name: str, n_samples: int, n_atoms: int) -> Array:
    """Return the column of NaN that stands for a label that a teacher did not give.

    Parameters
    ----------
    name : {"energy", "forces", "stress"}
    n_samples, n_atoms : int
        Samples, and atoms of all samples together.

    Returns
    -------
    ndarray, shape (n_samples, ...) or (n_atoms, ...)
        In the dtype of the label.
    """
    spec = LABELS[name]
    return np.full((n_samples if spec.axis == "sample" else n_atoms, *spec.shape), np.nan, spec.dtype)


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
