"""The columns of a file that holds everything: which there are, what describes them, and their values for a batch."""

from __future__ import annotations

import json
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import TRUTH, user_rows
from mlffstore.data.properties import INNER_SIZES, attributes_of, ordered
from mlffstore.data.schema import (
    CODED,
    CONVENTIONS,
    LABELS,
    STANDARD,
    Column,
    is_mask,
    label_key,
    mask_column,
    mask_key,
    split_key,
)
from mlffstore.data.vocabulary import flag_word
from mlffstore.errors import DataError
from mlffstore.runtime.documents import json_text
from mlffstore.runtime.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.store.samples import Samples


class FileColumns:
    """All columns of a file: the standard ones, the labels of some teachers, user columns and their masks.

    Parameters
    ----------
    snapshot : Samples
    teachers : sequence of str
        With one teacher its labels have the names of the properties, with several ``energy.NAME`` and so on.
    steps : mapping of str to float, optional
        Power of two to whose multiples a label is rounded, see `steps_of`.

    Attributes
    ----------
    columns : dict of str to (Column, str)
        By the name in the file: the column, and the name of what it holds.
    """

    def __init__(self, snapshot: Samples, teachers: Sequence[str], steps: Mapping[str, float] | None = None) -> None:
        self.columns = stored_columns(snapshot, teachers)
        self._teachers, self._steps = tuple(teachers), dict(steps or {})
        #: Steps to which values had been rounded before.
        self._before = snapshot.rounding()
        self._words: dict[str, dict[str, int]] = {name: {} for name in CODED}
        self._words |= {name: {} for name, (column, _) in self.columns.items() if column.coded}

    def values(self, batch: SampleBatch, name: str) -> Array:
        """Return a column of a batch; what it lacks is NaN, or 0 beside a mask."""
        column, key = self.columns[name]
        values = self._of_batch(batch, name, column, key)
        if values is None:
            dtype = np.dtype(column.dtype)
            rows = batch.n_atoms_total if column.axis == "atom" else len(batch)
            values = np.full((rows, *column.shape), np.nan if dtype.kind == "f" else 0, dtype)
        return values

    def attributes(self, name: str) -> dict[str, Any]:
        """Return what describes a column, but for its vocabulary: CF attributes, and those of its property."""
        column, key = self.columns[name]
        out: dict[str, Any] = {"units": column.unit, "long_name": column.long_name, "axis": column.axis}
        # Energy, forces and stress are known by name, and more than eight attributes take kilobytes in HDF5.
        if column.quantity is not None and column.quantity.name not in LABELS:
            out |= attributes_of(column.quantity)
        if column.name == "n_atoms":
            out["sample_dimension"] = "atom"
        if column.dtype == "bool":
            out |= {"flag_values": np.array([0, 1], np.uint8), "flag_meanings": TRUTH}
        if column.quantity is not None:
            out["teacher"] = name.partition(".")[2] or self._teachers[0]
        before = self._before.get(label_key(key, out["teacher"]), 0.0) if column.quantity is not None else 0.0
        if step := max(before, self._steps.get(key, 0.0)):
            out["rounding_step"] = step
        for mask, (_, held) in self.columns.items():
            if is_mask(held) and held.partition(".")[2] == name:
                out["ancillary_variables"] = mask
        return out

    def vocabularies(self) -> dict[str, dict[str, Any]]:
        """Return the attributes of the coded columns that are known when all batches were seen."""
        out = {}
        for name, codes in self._words.items():
            words = list(codes) or ([] if name in CODED else [""])
            out[name] = {
                "flag_values": np.arange(max(len(words), 1), dtype=np.uint32),
                "flag_meanings": " ".join(flag_word(word) for word in words) or "unknown",
                "meanings": json.dumps(words),
            }
        return out

    def _of_batch(self, batch: SampleBatch, name: str, column: Column, key: str) -> Array | None:
        if column.quantity is not None:
            teacher = name.partition(".")[2] or self._teachers[0]
            values = batch.labels.get(teacher, {}).get(key)
            if values is not None and key in self._steps:
                step = values.dtype.type(self._steps[key])
                values = np.rint(values / step) * step
            return values
        if name in self._words:
            return recoded(batch, name, self._words[name]) if name in batch.columns else None
        if is_mask(key):
            return user_rows(batch, self.columns[key.partition(".")[2]][0])[1]
        return batch.columns.get(name)


#: Smallest and largest step of lossy rounding, in the unit of the label.
_STEPS = (1e-12, 1e3)


def choose_teachers(snapshot: Samples, teacher: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the teachers of a release."""
    if teacher is None or isinstance(teacher, str):
        return (choose_teacher(snapshot.teachers, teacher),)
    if len(set(teacher)) != len(teacher) or not teacher:
        raise DataError(f"teacher: expected different names, at least one, got {list(teacher)}")
    return tuple(choose_teacher(snapshot.teachers, name) for name in teacher)


def steps_of(rounding: Mapping[str, float]) -> dict[str, float]:
    """Return the power of two that each label is rounded to."""
    for name, step in rounding.items():
        if name not in ("forces", "stress"):
            raise DataError(f"rounding: expected 'forces' or 'stress', got {name!r}: other columns are kept exactly")
        # A value of float32 divided by a smaller step, or multiplied by a larger one, may be no number any more.
        if isinstance(step, bool) or not isinstance(step, Real) or not _STEPS[0] <= step <= _STEPS[1]:
            raise DataError(f"rounding: expected a step of {name} from {_STEPS[0]:g} to {_STEPS[1]:g}, got {step!r}")
    return {name: float(2.0 ** np.floor(np.log2(step))) for name, step in rounding.items()}


def recoded(batch: SampleBatch, name: str, words: dict[str, int]) -> Array:
    """Return a coded column of a batch in the codes of a file.

    Parameters
    ----------
    batch : SampleBatch
    name : str
        The column.
    words : dict of str to int
        Code of each string in the file. New strings of the batch are added.
    """
    codes, used = batch.columns[name], batch.vocabulary[name]
    own = np.zeros(max(len(used), 1), np.uint32)
    # In order of first appearance, so that the codes of a file do not depend on how its samples are cut into batches.
    appeared, first = np.unique(codes, return_index=True)
    for code in appeared[np.argsort(first)].tolist():
        own[code] = words.setdefault(used[code], len(words))
    return own[codes]


def stored_columns(snapshot: Samples, teachers: Sequence[str]) -> dict[str, tuple[Column, str]]:
    """Return the columns of the file by name, each with the name of what it holds.

    Standard columns, the labels that the teachers have, user columns with their masks.
    """
    out = {
        name: (column.with_dtype(snapshot.precision) if name == "positions" else column, name)
        for name, column in STANDARD.items()
    }
    for teacher_name in teachers:
        columns = label_columns(snapshot, teacher_name)
        for property_name, column in columns.items():
            name = property_name if len(teachers) == 1 else label_key(property_name, teacher_name)
            assert column.quantity is not None
            inner = column.inner
            if column.quantity.is_open and len(teachers) > 1:  # each teacher has a width of its own
                inner = tuple(dim if dim in INNER_SIZES else f"{dim}.{teacher_name}" for dim in inner)
            out[name] = (
                replace(column, name=name, long_name=column.quantity.long_name, inner=inner), property_name
            )  # fmt: skip
    user = snapshot.user_columns
    masks = snapshot.mask_names()
    for name, column in user.items():
        out[name] = (column, name)
        if name in masks:
            out[masks[name]] = (replace(mask_column(column), name=masks[name]), mask_key(name))
    return out


def label_columns(snapshot: Samples, teacher: str) -> dict[str, Column]:
    """Return the columns of the labels that a teacher gave to some sample, by property."""
    columns: dict[str, Column] = {}
    for key, column in snapshot.label_columns().items():
        if split_key(key)[1] == teacher:
            columns[split_key(key)[0]] = column
    return {name: columns[name] for name in ordered(columns)}


def root_attributes(snapshot: Samples, teachers: Sequence[str]) -> dict[str, Any]:
    """Return what says where the samples of a file come from; values are strings and numbers, since HDF5 has no others."""
    info = {name: snapshot.teacher_info(name) for name in teachers}
    only_teacher = {"teacher": teachers[0]} if len(teachers) == 1 else {}
    return {
        "Conventions": CONVENTIONS,
        **only_teacher,
        "teachers": json.dumps(list(teachers)),
        "teacher_info": json.dumps(info[teachers[0]] if only_teacher else info, sort_keys=True),
        "store_uuid": snapshot.store_uuid,
        "store_version": snapshot.version,
        **({} if (selection := snapshot.selection_record()) is None else {"selection": json_text(selection)}),
        "precision": snapshot.precision,
        "settings": json.dumps(snapshot.settings, sort_keys=True),
        "software": f"mlffstore {VERSION}",
        "units": "eV, angstrom, eV/angstrom; stress eV/angstrom^3, tension positive; cell rows are lattice vectors",
    }
