"""Which samples an export of a teacher's labels holds, and which labels each of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.labels import choose_teacher, has_label
from mlffstore.data.properties import ordered
from mlffstore.data.schema import Array, label_key, split_key
from mlffstore.data.splits import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.store.samples import Samples

#: Samples whose labels are looked at in one step.
_BLOCK = 4096


def present(batch: SampleBatch, teacher: str, name: str) -> Array:
    """Return which samples have a label of a teacher, shape (S,), bool. A label with a NaN in it is missing."""
    values = batch.labels.get(teacher, {}).get(name)
    return np.zeros(len(batch), bool) if values is None else has_label(name, values, batch.n_atoms, batch.properties)


def labelled(snapshot: Samples, teacher: str) -> Array:
    """Return which samples have any label of a teacher, shape (S,), bool.

    Nearly every sample has an energy; other labels are read only of those that have none.
    """
    choose_teacher(snapshot.teachers, teacher)
    out = np.zeros(len(snapshot), bool)
    for name in ordered(split_key(key)[0] for key in snapshot.label_columns() if split_key(key)[1] == teacher):
        rest = np.flatnonzero(~out & snapshot.holds(label_key(name, teacher)))
        for low in range(0, len(rest), _BLOCK):
            index = rest[low : low + _BLOCK]
            out[index] = present(snapshot.read(index, teacher=teacher, columns=[name]), teacher, name)
    return out


def select(snapshot: Samples, teachers: Sequence[str]) -> dict[str, Ints]:
    """Return the samples of each split that at least one of the teachers gave a label, in store order."""
    codes = snapshot.split_codes()
    chosen = np.zeros(len(snapshot), bool)
    for teacher in teachers:
        chosen |= labelled(snapshot, teacher)
    return {split: np.flatnonzero(chosen & (codes == k)) for k, split in enumerate(SPLITS)}
