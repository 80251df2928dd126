"""Labels of several teachers: the choice of a teacher, and the column that stands for a label that is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.schema import LABELS, Array
from mlffstore.errors import TeacherError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
