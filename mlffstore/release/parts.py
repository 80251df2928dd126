"""Columns of the parts of a release: what they are, and rows of one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.schema import STANDARD, label_column, label_key
from mlffstore.release import gate
from mlffstore.release.reading import labels_of, told, user_column_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Column
    from mlffstore.release.reading import Part, Release

#: Rows that are read at a time: scattered rows are taken from spans up to this long.
_SPAN = 8192


def sizes_of(part: Part) -> Array:
    """Return the atoms of each sample of a part, shape (S,), int32."""
    import h5py

    with told(part.path), h5py.File(part.path, "r") as file:
        return gate.atoms_per_sample(file[part.split])


def columns_of(release: Release) -> tuple[dict[str, Column], dict[str, str]]:
    """Return the labels and user columns of a release by their names in a store, and the masks of user columns."""
    import h5py

    columns: dict[str, Column] = {}
    masks: dict[str, str] = {}
    for path in release.paths:
        with told(path), h5py.File(path, "r") as file:
            for group in (file[split] for split in file):
                found = labels_of(group)
                masks |= {name: str(dataset.attrs["ancillary_variables"]) for name, dataset in group.items()
                          if "ancillary_variables" in dataset.attrs}  # fmt: skip
                for name, dataset in group.items():
                    if "axis" not in dataset.attrs or name in STANDARD or name in masks.values():
                        continue
                    if name not in found:
                        columns.setdefault(name, user_column_of(name, dataset))
                        continue
                    for teacher in release.teachers:
                        key = label_key(found[name].name, teacher)
                        if release.stored_name(key) == name:
                            bare = np.empty((0, *dataset.shape[1:]), dataset.dtype)
                            columns.setdefault(key, label_column(found[name], teacher, bare))
    return {name: column for name, column in columns.items() if name not in masks.values()}, masks


def steps_of(release: Release) -> dict[str, float]:
    """Return the largest step to whose multiples each label was rounded, by its name in a store."""
    import h5py

    steps: dict[str, float] = {}
    for path in release.paths:
        with told(path), h5py.File(path, "r") as file:
            for group in (file[split] for split in file):
                for name, spec in labels_of(group).items():
                    step = float(group[name].attrs.get("rounding_step", 0.0))
                    for teacher in release.teachers:
                        key = label_key(spec.name, teacher)
                        if step > 0 and release.stored_name(key) == name:
                            steps[key] = max(step, steps.get(key, 0.0))
    return steps


def strings_of(part: Part, name: str) -> tuple[str, ...]:
    """Return the strings of a coded column of a part; none if it does not have the column."""
    import h5py

    with told(part.path), h5py.File(part.path, "r") as file:
        return gate.strings(file[part.split][name]) if name in file[part.split] else ()


def values_of(part: Part, name: str, rows: Ints) -> Array | None:
    """Return rows of a column by its name in the files, which ascend or not; None if the part does not have it."""
    import h5py

    with told(part.path), h5py.File(part.path, "r") as file:
        if name not in file[part.split]:
            return None
        dataset = file[part.split][name]
        out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
        order = np.argsort(rows, kind="stable")
        for span, some, places in spans(rows[order]):
            out[order[places]] = dataset[span][some - span.start]
        return out


def spans(rows: Ints) -> Iterator[tuple[slice, Ints, slice]]:
    """Cut ascending rows into spans of the file: each with its rows, and their places among all of them."""
    start = 0
    while start < len(rows):
        stop = int(np.searchsorted(rows, rows[start] + _SPAN))
        yield slice(int(rows[start]), int(rows[stop - 1]) + 1), rows[start:stop], slice(start, stop)
        start = stop
