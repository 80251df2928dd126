"""Structures that a store holds already: an index of content hashes that grows with the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from mlffstore.errors import ConflictError, DataError, MlffstoreError
from mlffstore.format.reader import ChunkCache, ColumnReader, read_column

if TYPE_CHECKING:
    import numpy.typing as npt

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.hashing import U64
    from mlffstore.format.state import State
    from mlffstore.storage import Storage

OnDuplicate = Literal["keep", "skip", "error"]
#: What can be done with structures that are there already.
POLICIES: tuple[str, ...] = get_args(OnDuplicate)


class Clash(MlffstoreError):
    """Another writer committed some of the same structures meanwhile; never leaves `Transaction.commit`."""


class RemovedMeanwhileError(ConflictError):
    """Structures that were left out, since the store had them, were removed before the commit."""


class DuplicatesError(DataError):
    """Structures are there already, and that was to be an error."""


class HashSet:
    """A set of content hashes, 8 bytes each.

    Kept as sorted blocks, of which two neighbours are merged when the newer is no longer much smaller (a log-structured
    merge tree: O'Neil et al., Acta Informatica 33, 351, 1996), so that adding a small commit is cheap and looking up is a
    few binary searches.
    """

    def __init__(self) -> None:
        self._blocks: tuple[U64, ...] = ()

    def add(self, block: U64) -> None:
        """Add sorted hashes without duplicates. After an interrupt the set has all of them or none."""
        blocks = [*self._blocks, block]
        while len(blocks) > 1 and 2 * len(blocks[-1]) >= len(blocks[-2]):
            blocks[-2:] = [np.union1d(blocks[-2], blocks[-1])]
        self._blocks = tuple(blocks)

    def is_subset(self, other: HashSet) -> bool:
        """Return whether another set has all hashes of this one."""
        return all(other.holds(block).all() for block in self._blocks)

    def holds(self, hashes: U64) -> npt.NDArray[np.bool_]:
        """Return which of some hashes are in the set, shape (S,)."""
        present = np.zeros(len(hashes), bool)
        for block in self._blocks:
            place = np.searchsorted(block, hashes).clip(max=len(block) - 1)
            present |= block[place] == hashes
        return present


class HashIndex(HashSet):
    """The content hashes of all accepted samples of a store.

    Parameters
    ----------
    storage : Storage
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._reader = ColumnReader(storage, ChunkCache(0))
        self._seen: set[str] = set()
        #: The version up to which the log was read.
        self.version = -1

    def update(self, state: State) -> None:
        """Read the hashes of segments that are new since the last call; all of them if samples were removed since."""
        if state.last_removal > self.version:
            self._blocks, self._seen = (), set()
        for i, path in enumerate(state.segments.paths):
            if path not in self._seen:
                self.add(np.unique(read_column(self._reader, state.segments[i].columns["content_hash"])))
                self._seen.add(path)
        self.version = state.version


def first_of_each(hashes: U64) -> npt.NDArray[np.bool_]:
    """Return which samples are the first with their hash, shape (S,)."""
    out = np.zeros(len(hashes), bool)
    out[np.unique(hashes, return_index=True)[1]] = True
    return out


def resolve(batch: SampleBatch, held: npt.NDArray[np.bool_], policy: str) -> SampleBatch:
    """Return the samples that are new.

    Parameters
    ----------
    batch : SampleBatch
    held : ndarray of bool, shape (S,)
        Which structures of the batch the store has already.
    policy : {"skip", "error"}

    Raises
    ------
    DataError
        If there are duplicates and the policy is "error".
    """
    new = first_of_each(batch.content_hash) & ~held
    n = int(np.count_nonzero(~new))
    if n and policy == "error":
        where = int(np.flatnonzero(~new)[0])
        place = "store" if held[where] else "batch"
        raise refuse_duplicates(n, f"the first is sample {where}, which is in the {place}")
    return batch.take(np.flatnonzero(new)) if n else batch


def refuse_duplicates(n: int, detail: str) -> DuplicatesError:
    """Return the error for samples that are there already."""
    return DuplicatesError(
        f"{n} samples are there already (same content_hash): {detail}; nothing was written. Remove them, or append with "
        "on_duplicate='skip' or 'keep'"
    )


def check_policy(policy: str) -> None:
    """Raise `DataError` unless this is a policy for duplicates."""
    if policy not in POLICIES:
        raise DataError(f"on_duplicate: expected one of {', '.join(POLICIES)}, got {policy!r}")
