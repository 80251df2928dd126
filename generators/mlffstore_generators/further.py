"""Labels beside energy, forces and stress that frames keep of the teacher that made them, so that none is computed twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.properties import property_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.contracts.protocols import TeacherLabels
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array


def further_labels(labels: TeacherLabels, batch: SampleBatch, sample: int) -> dict[str, Array]:
    """Return the labels of one sample beside energy, forces and stress: copies, shape (1, ...) or (N, ...)."""
    atoms = slice(batch.offsets[sample], batch.offsets[sample + 1])
    rows = {"sample": slice(sample, sample + 1), "atom": atoms}
    return {name: np.array(values[rows[property_of(name).axis]]) for name, values in labels.more.items()}


def joined(frames: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the labels that all frames have, one frame after the other.

    What some frames lack is left out of all of them: the teacher is asked for it again.
    """
    names = [name for name in (frames[0] if frames else ()) if all(name in frame for frame in frames)]
    return {name: np.concatenate([frame[name] for frame in frames]) for name in names}


__all__ = ["further_labels", "joined"]
