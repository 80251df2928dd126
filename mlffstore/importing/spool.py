"""`Spool`: checked blocks that wait until every file of an import is checked, in memory and then in a temporary file."""

from __future__ import annotations

import pickle
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.hashing import U64

#: Bytes kept in memory; what comes after goes to the temporary file.
MEMORY_NBYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of one file that were read and checked together.

    Attributes
    ----------
    accepted : SampleBatch or None
    rejected : SampleBatch or None
        What goes to the quarantine.
    reasons : tuple of str
        One for each rejected sample.
    """

    accepted: SampleBatch | None
    rejected: SampleBatch | None = None
    reasons: tuple[str, ...] = ()


class Spool:
    """A queue of blocks, a context manager. Memory stays flat: large imports wait on disk.

    The temporary file has no name and is gone with the process; pickle is safe there because nothing else can write it.
    """

    def __init__(self, memory_nbytes: int = MEMORY_NBYTES) -> None:
        self._limit, self._used = memory_nbytes, 0
        self._blocks: list[Block | None] = []
        self._file: IO[bytes] | None = None
        self._hashes: list[U64] = []

    def add(self, block: Block) -> None:
        """Put a block, whose accepted samples have their hashes as a column, at the end."""
        if block.accepted is not None:
            self._hashes.append(block.accepted.content_hash)
        nbytes = sum(batch.nbytes for batch in (block.accepted, block.rejected) if batch is not None)
        if self._file is None and self._used + nbytes <= self._limit:
            self._used += nbytes
            self._blocks.append(block)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="mlffstore-import-")  # noqa: SIM115 - closed by __exit__
        pickle.dump(block, self._file, protocol=pickle.HIGHEST_PROTOCOL)
        self._blocks.append(None)

    def hashes(self) -> list[U64]:
        """Return the content hashes of the accepted samples of each block."""
        return self._hashes

    def take(self) -> Iterator[Block]:
        """Yield the blocks in order, each once."""
        if self._file is not None:
            self._file.seek(0)
        while self._blocks:
            block: Any = self._blocks.pop(0)
            yield pickle.load(self._file) if block is None and self._file is not None else block

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *details: object) -> None:
        self._blocks = []
        if self._file is not None:
            self._file.close()
