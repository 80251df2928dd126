"""Which samples an export of a teacher's labels holds, and which labels each of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.splits import SPLITS
from mlffstore.store.presence import labelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.store.samples import Samples


def select(snapshot: Samples, teachers: Sequence[str]) -> dict[str, Ints]:
    """Return the samples of each split that at least one of the teachers gave a label, in store order."""
    codes = snapshot.split_codes()
    chosen = np.zeros(len(snapshot), bool)
    for teacher in teachers:
        chosen |= labelled(snapshot, teacher)
    return {split: np.flatnonzero(chosen & (codes == k)) for k, split in enumerate(SPLITS)}
