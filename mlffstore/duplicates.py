"""Which structures a store holds already: an index of content hashes that grows with the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.errors import DataError, MlffstoreError
from mlffstore.segment import ChunkCache, ColumnReader, read_column

if TYPE_CHECKING:
    import numpy.typing as npt

    from mlffstore.batch import SampleBatch
    from mlffstore.hashing import U64
    from mlffstore.state import State
    from mlffstore.storage import Storage

POLICIES = ("keep", "skip", "error")


class Clash(MlffstoreError):
    """Somebody committed some of the same structures while ours were being written; never leaves `Store.commit`."""


class HashIndex:
    """The content hashes of all accepted samples, 8 bytes each.

    Kept as sorted blocks, of which two neighbours are merged when the newer is no longer much smaller (a log-structured
    merge tree: O'Neil et al., Acta Informatica 33, 351, 1996), so that adding a small commit is cheap and looking up is a
    few binary searches.

    Parameters
    ----------
    storage : Storage
    """

    def __init__(self, storage: Storage) -> None:
        self._reader = ColumnReader(storage, ChunkCache(0))
        self._seen: set[str] = set()
        self._blocks: list[U64] = []

    def update(self, state: State) -> None:
        """Read the hashes of segments that are new since the last call."""
        for i, path in enumerate(state.segments.paths):
            if path not in self._seen:
                self._add(np.unique(read_column(self._reader, state.segments[i].columns["content_hash"])))
                self._seen.add(path)

    def _add(self, block: U64) -> None:
        self._blocks.append(block)
        while len(self._blocks) > 1 and 2 * len(self._blocks[-1]) >= len(self._blocks[-2]):
            newer, older = self._blocks.pop(), self._blocks.pop()
            self._blocks.append(np.union1d(older, newer))

    def holds(self, hashes: U64) -> npt.NDArray[np.bool_]:
        """Return which of some hashes are in the index, shape (S,)."""
        found = np.zeros(len(hashes), bool)
        for block in self._blocks:
            place = np.searchsorted(block, hashes).clip(max=len(block) - 1)
            found |= block[place] == hashes
        return found


def first_of_each(hashes: U64) -> npt.NDArray[np.bool_]:
    """Return which samples are the first with their hash, shape (S,)."""
    out = np.zeros(len(hashes), bool)
    out[np.unique(hashes, return_index=True)[1]] = True
    return out


def resolve(batch: SampleBatch, index: HashIndex, policy: str) -> tuple[SampleBatch, int]:
    """Return the samples that are new to the store and to the batch, and how many are not.

    Raises
    ------
    DataError
        If there are duplicates and the policy is "error".
    """
    held, first = index.holds(batch.content_hash), first_of_each(batch.content_hash)
    new = first & ~held
    n = int(np.count_nonzero(~new))
    if n and policy == "error":
        where = int(np.flatnonzero(~new)[0])
        raise DataError(
            f"{n} of {len(batch)} samples are in the {'store' if held[where] else 'batch'} already (same content_hash), the "
            f"first is sample {where}; nothing was written. Remove them, or append with on_duplicate='skip' or 'keep'"
        )
    return (batch.take(np.flatnonzero(new)) if n else batch), n


def check_policy(policy: str) -> None:
    """Raise `DataError` unless this is a policy for duplicates."""
    if policy not in POLICIES:
        raise DataError(f"on_duplicate: expected one of {', '.join(POLICIES)}, got {policy!r}")
