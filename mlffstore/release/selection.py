"""Which samples an export of a teacher's labels holds, and which labels each of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.labels import choose_teacher, has_label
from mlffstore.data.properties import ordered
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import Array, is_label, label_key, split_key
from mlffstore.data.splits import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.store.snapshot import Snapshot

#: Samples whose labels are looked at in one step.
_BLOCK = 4096


def present(batch: SampleBatch, teacher: str, name: str) -> Array:
    """Return which samples have a label of a teacher, shape (S,), bool. A label with a NaN in it is missing."""
    values = batch.labels.get(teacher, {}).get(name)
    return np.zeros(len(batch), bool) if values is None else has_label(name, values, batch.n_atoms, batch.properties)


def labelled(snapshot: Snapshot, teacher: str) -> Array:
    """Return which samples have any label of a teacher, shape (S,), bool.

    Nearly every sample has an energy; other labels are read only of those that have none.
    """
    choose_teacher(snapshot.teachers, teacher)
    out = np.zeros(len(snapshot), bool)
    starts = offsets([segment.n_samples for segment in snapshot.segments])
    keys = dict.fromkeys(key for segment in snapshot.segments for key in segment.columns if is_label(key))
    for name in ordered(split_key(key)[0] for key in keys if split_key(key)[1] == teacher):
        holds = [label_key(name, teacher) in segment.columns for segment in snapshot.segments]
        rest = np.flatnonzero(~out & np.repeat(np.array(holds, bool), np.diff(starts)))
        for low in range(0, len(rest), _BLOCK):
            index = rest[low : low + _BLOCK]
            out[index] = present(snapshot.read(index, teacher=teacher, columns=[name]), teacher, name)
    return out


def select(snapshot: Snapshot, teachers: Sequence[str]) -> dict[str, Ints]:
    """Return the samples of each split that at least one of the teachers gave a label, in store order."""
    codes = snapshot.split_codes()
    chosen = np.zeros(len(snapshot), bool)
    for teacher in teachers:
        chosen |= labelled(snapshot, teacher)
    return {split: np.flatnonzero(chosen & (codes == k)) for k, split in enumerate(SPLITS)}
