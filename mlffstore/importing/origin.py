"""`Origin` and `OwnSource`: what a store, release or export of ours says of itself, and how samples are read from it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlffstore.data.blanks import without_values
from mlffstore.data.labels import has_label
from mlffstore.data.masks import user_rows
from mlffstore.data.ragged import reduce_rows
from mlffstore.data.schema import label_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.importing.account import Use
    from mlffstore.importing.samples import ReadSamples

#: Kinds of sources that this library made, each as messages call it.
OWN = {"store": "a store", "release": "a release", "export": "an export of mlffstore"}


@dataclass(frozen=True, slots=True)
class Origin:
    """What a source of ours says of itself.

    Attributes
    ----------
    key : str
        What names its content.
    settings : mapping
        Split fractions and seed.
    precision : str
        dtype of the positions.
    teachers : mapping of str to mapping
        What is known of each teacher.
    note : mapping
        JSON for the log of the target: where the samples come from, and the provenance of the source.
    """

    key: str
    settings: Mapping[str, Any]
    precision: str
    teachers: Mapping[str, Mapping[str, Any]]
    note: Mapping[str, Any] = field(default_factory=dict)


class OwnSource(Protocol):
    """A store or release that samples are read from."""

    @property
    def origin(self) -> Origin:
        """What the source says of itself."""
        ...

    def blocks(self, n_samples: int) -> Iterator[ReadSamples]:
        """Yield its samples, some at a time."""
        ...


def teachers_of(attributes: Mapping[str, Any], teachers: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return what the attributes of a file say of its teachers."""
    info = json.loads(attributes.get("teacher_info", "{}"))
    return {name: info if len(teachers) == 1 else info.get(name, {}) for name in teachers}


def trimmed(batch: SampleBatch) -> SampleBatch:
    """Return a batch without the label columns in which none of its samples has a value."""
    keys = [
        label_key(name, teacher)
        for teacher, named in batch.labels.items()
        for name, values in named.items()
        if np.isnan(values).all()
    ]
    return without_values(batch, keys, np.arange(len(batch))) if keys else batch


def uses_of(batch: SampleBatch) -> dict[str, Any]:
    """Return what became of the columns: all are kept, of the samples that have them."""
    counts: dict[Use, int] = {}
    for teacher, named in batch.labels.items():
        for name, values in named.items():
            counts[teacher, name, "kept", name, ""] = int(
                has_label(name, values, batch.n_atoms, batch.properties).sum()
            )
    for name, column in batch.user.items():
        there = user_rows(batch, column)[1]
        there = reduce_rows(np.logical_or, there, batch.offsets) if column.axis == "atom" else there
        counts["columns", name, "kept", name, f"in {column.unit}, per {column.axis}"] = int(there.sum())
    uses: list[Use] = [use for use, n in counts.items() if n == len(batch)]
    uses += [("columns", name, "kept", name, "") for name in ("source", "sampler", "root", "charge", "multiplicity")]
    return {"uses": tuple(uses), "partial_uses": {use: n for use, n in counts.items() if 0 < n < len(batch)}}
