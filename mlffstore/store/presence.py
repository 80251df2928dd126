"""Which samples have labels of a teacher, and which of them have one label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlffstore.data.labels import choose_teacher, has_label
from mlffstore.data.properties import ordered
from mlffstore.data.schema import Array, label_key, split_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints

#: Samples whose labels are looked at in one step.
_BLOCK = 4096


class LabelledSamples(Protocol):
    """What is needed of samples here."""

    @property
    def teachers(self) -> Sequence[str]:
        """Names of the teachers."""
        ...

    def __len__(self) -> int: ...

    def label_columns(self) -> Mapping[str, Any]:
        """Return the columns of labels by their on-disk names."""
        ...

    def holds(self, key: str) -> Array:
        """Return which samples may have a column."""
        ...

    def read(self, indices: Ints, *, teacher: str, columns: Iterable[str]) -> SampleBatch:
        """Return some columns of some samples."""
        ...


def present(batch: SampleBatch, teacher: str, name: str) -> Array:
    """Return which samples have a label of a teacher, shape (S,), bool. A label with a NaN in it is missing."""
    values = batch.labels.get(teacher, {}).get(name)
    return np.zeros(len(batch), bool) if values is None else has_label(name, values, batch.n_atoms, batch.properties)


def labelled(samples: LabelledSamples, teacher: str, among: Ints | None = None) -> Array:
    """Return which samples have any label of a teacher, shape (S,), bool.

    Nearly every sample has an energy; other labels are read only of those that have none.

    Parameters
    ----------
    samples : LabelledSamples
    teacher : str
    among : ndarray of int64, optional
        Samples to look at; others count as not labelled. By default all.
    """
    choose_teacher(samples.teachers, teacher)
    out = np.zeros(len(samples), bool)
    asked = np.ones(len(samples), bool)
    if among is not None:
        asked[:] = False
        asked[among] = True
    for name in ordered(split_key(key)[0] for key in samples.label_columns() if split_key(key)[1] == teacher):
        rest = np.flatnonzero(asked & ~out & samples.holds(label_key(name, teacher)))
        for low in range(0, len(rest), _BLOCK):
            index = rest[low : low + _BLOCK]
            out[index] = present(samples.read(index, teacher=teacher, columns=[name]), teacher, name)
    return out
