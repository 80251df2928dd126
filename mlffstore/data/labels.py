"""Labels of several teachers: the choice of a teacher, and which samples have a label.

A label with a NaN in it, for any component or any atom of the sample, is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlffstore.data.casting import cast
from mlffstore.data.properties import find_property, known_properties, ordered, property_of
from mlffstore.data.ragged import offsets, reduce_rows
from mlffstore.data.schema import Array, Column
from mlffstore.data.units import factor
from mlffstore.errors import TeacherError, UnitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.data.properties import Property

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
    if not available:
        asked_for = "" if teacher is None else f", of {teacher!r} or of another teacher"
        raise TeacherError(f"there are no labels here{asked_for}: label the samples first, or choose others")
    if teacher is not None:
        if teacher not in available:
            raise TeacherError(f"teacher: expected one of {', '.join(available)}, got {teacher!r}")
        return teacher
    if len(available) == 1:
        return available[0]
    raise TeacherError(
        f"there are labels of several teachers ({', '.join(available)}), and their energies have different zeros: "
        "choose one with teacher=..."
    )


def in_store_units(
    labels: Mapping[str, Mapping[str, npt.ArrayLike]],
    units: Mapping[str, str],
    properties: Mapping[str, Property],
    problems: list[str],
) -> Mapping[str, Mapping[str, npt.ArrayLike]]:
    """Return labels of several teachers that were given in other units in those of their properties.

    Parameters
    ----------
    labels : mapping of str to mapping
        Teacher -> its labels by property.
    units : mapping of str to str
        Property -> its unit in `labels`; the others are in the unit of the property.
    properties : mapping of str to Property
        Properties that need not be registered in this process.
    problems : list of str
        What is wrong is added here.
    """
    names = dict.fromkeys(name for named in labels.values() for name in named)
    factors = {}
    for name, unit in units.items():
        if name not in names:
            problems.append(
                f"units: expected some of the labels that are given ({', '.join(names) or 'none'}), got {name!r}"
            )
            continue
        try:
            factors[name] = factor(name, unit, properties)
        except UnitError as error:
            problems.append(f"units: {error}")
    factors = {name: scale for name, scale in factors.items() if scale != 1.0}
    if not factors:
        return labels
    return {
        teacher: {
            name: np.asarray(values) * np.float64(factors[name]) if name in factors else values
            for name, values in named.items()
        }
        for teacher, named in labels.items()
    }


def cast_labels(
    teacher: str,
    named: Mapping[str, npt.ArrayLike],
    rows: Mapping[str, int],
    properties: Mapping[str, Property],
    problems: list[str],
) -> Labels:
    """Return the labels of a teacher in the dtypes of their properties, after checking names and shapes.

    Parameters
    ----------
    teacher : str
    named : mapping of str to array_like
        Labels by property.
    rows : mapping of str to int
        Samples ("sample") and atoms ("atom").
    properties : mapping of str to Property
        Properties that need not be registered in this process.
    problems : list of str
        What is wrong is added here.
    """
    unknown = [name for name in named if find_property(name, properties) is None]
    if unknown:
        problems.append(
            f"labels[{teacher!r}]: expected {', '.join(known_properties() | dict(properties))}, got "
            f"{', '.join(sorted(unknown))}; register others with mlffstore.Property"
        )
    out: Labels = {}
    for name in ordered(set(named) - set(unknown)):
        spec = property_of(name, properties)
        dtype = "float16" if spec.half and getattr(named[name], "dtype", None) == np.float16 else spec.dtype
        array = out[name] = cast(name, named[name], dtype, problems)
        if array.shape[:1] != (rows[spec.axis],) or not spec.fits(array.shape[1:]):
            inner = (spec.shape[i] if size is None else size for i, size in enumerate(spec.sizes))
            expected = str((rows[spec.axis], *inner)).replace("'", "")
            problems.append(
                f"{name}: expected shape {expected} ({', '.join((spec.axis, *spec.inner))}; {rows['sample']} samples, "
                f"{rows['atom']} atoms), got {array.shape}"
            )
    return out


def missing_label(column: Column, n_samples: int, n_atoms: int) -> Array:
    """Return the values that stand for a label that a teacher did not give: NaN, shape (n_samples, ...) or (n_atoms, ...).

    Parameters
    ----------
    column : Column
        The column of the label.
    n_samples, n_atoms : int
        Samples, and atoms of all samples together.
    """
    return np.full((n_samples if column.axis == "sample" else n_atoms, *column.shape), np.nan, column.dtype)


def has_label(
    name: str, values: Array, n_atoms: Array, properties: Mapping[str, Property] | None = None
) -> npt.NDArray[np.bool_]:
    """Return which samples have a label, shape (S,), bool.

    Parameters
    ----------
    name : str
        The label, such as ``"forces"``.
    values : ndarray, shape (S, ...) or (A, ...)
        Its values, NaN where they are missing.
    n_atoms : ndarray, shape (S,), int32
        Atoms per sample.
    properties : mapping of str to Property, optional
        Properties that came with the data, see `mlffstore.data.properties.property_of`.
    """
    if not len(values):
        return np.zeros(len(n_atoms), bool)
    present = np.asarray(~np.isnan(values.reshape(len(values), -1)).any(axis=1))
    return (
        reduce_rows(np.logical_and, present, offsets(n_atoms))
        if property_of(name, properties).axis == "atom"
        else present
    )


def has_any_label(
    labels: Mapping[str, Array], n_atoms: Array, properties: Mapping[str, Property] | None = None
) -> npt.NDArray[np.bool_]:
    """Return which samples have any label of one teacher, shape (S,), bool.

    Parameters
    ----------
    labels : mapping of str to ndarray, shape (S, ...) or (A, ...)
        The teacher's labels by name.
    n_atoms : ndarray, shape (S,), int32
        Atoms per sample.
    properties : mapping of str to Property, optional
        Properties that came with the data.
    """
    labelled = np.zeros(len(n_atoms), bool)
    for name in sorted(
        labels, key=lambda name: (property_of(name, properties).axis == "atom", name)
    ):  # small columns first
        if not labelled.all():
            labelled |= has_label(name, labels[name], n_atoms, properties)
    return labelled
