"""The reason for which each sample of the quarantine is there, as a column of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.data.batch import SampleBatch, assemble
from mlffstore.data.vocabulary import encode
from mlffstore.runtime.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable


def with_reasons(batch: SampleBatch, reasons: Iterable[str]) -> SampleBatch:
    """Return a batch with the column `reason`; characters that no format keeps are written as escapes."""
    codes, meanings = encode([printable(reason, lines=True) for reason in reasons])
    return assemble(
        batch.columns | {"reason": codes},
        batch.labels,
        batch.user,
        batch.vocabulary | {"reason": meanings},
        batch.offsets,
        batch.masks,
        batch.properties,
    )


def without_reasons(batch: SampleBatch) -> SampleBatch:
    """Return a batch without the column `reason`."""
    columns = {name: array for name, array in batch.columns.items() if name != "reason"}
    vocabulary = {name: words for name, words in batch.vocabulary.items() if name != "reason"}
    return assemble(columns, batch.labels, batch.user, vocabulary, batch.offsets, batch.masks, batch.properties)
