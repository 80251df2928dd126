"""`Content`: a digest of the samples that a commit was given, so that one key cannot stand for two contents unnoticed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.schema import label_key, mask_key
from mlffstore.format.codec import digest, extend_crc32c

if TYPE_CHECKING:
    from mlffstore.data.batch import SampleBatch


class Content:
    """A running digest of structures, labels and user columns.

    It depends on the samples and their order, and not on how they are cut into batches. CRC-32C detects mistakes
    at the speed of memory; it does not protect against forgery.
    """

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}

    def add(self, batch: SampleBatch, role: str = "segments") -> None:
        """Add samples in the dtypes in which they are stored.

        Parameters
        ----------
        batch : SampleBatch
        role : {"segments", "quarantine"}, optional
            Where the samples are stored.
        """
        columns = {"content_hash": batch.content_hash}
        for teacher, labels in batch.labels.items():
            columns |= {label_key(name, teacher): array for name, array in labels.items()}
        for name in batch.user:
            columns[name] = batch.columns[name]
            if name in batch.masks:
                columns[mask_key(name)] = batch.masks[name]
        for name, array in columns.items():
            key = f"{role}/{name}"
            self._sums[key] = extend_crc32c(self._sums.get(key, 0), np.ascontiguousarray(array))

    def digest(self) -> str:
        """Return the digest, 32 hexadecimal digits."""
        return digest(json.dumps(self._sums, sort_keys=True).encode())
