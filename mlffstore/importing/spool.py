"""`Spool`: checked blocks that wait until every file of an import is checked, in memory and then in a temporary file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

from mlffstore.data.batch import SampleBatch, assemble

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlffstore.data.hashing import U64
    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Column

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


@dataclass(frozen=True, slots=True)
class _Outline:
    """A batch whose arrays lie in the temporary file, in this order: columns, labels, masks."""

    columns: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    masks: tuple[str, ...]
    user: dict[str, Column]
    vocabulary: dict[str, tuple[str, ...]]
    properties: dict[str, Property]

    @classmethod
    def write(cls, file: IO[bytes], batch: SampleBatch) -> _Outline:
        """Write the arrays of a batch at the end of the file."""
        labels = [array for named in batch.labels.values() for array in named.values()]
        for array in (*batch.columns.values(), *labels, *batch.masks.values()):
            np.lib.format.write_array(file, array, allow_pickle=False)
        names = {teacher: tuple(named) for teacher, named in batch.labels.items()}
        return cls(tuple(batch.columns), names, tuple(batch.masks), batch.user, batch.vocabulary, batch.properties)

    def read(self, file: IO[bytes]) -> SampleBatch:
        """Read the arrays of the batch from where the file stands."""

        def arrays(names: tuple[str, ...]) -> dict[str, np.ndarray]:
            return {name: np.lib.format.read_array(file, allow_pickle=False) for name in names}

        columns = arrays(self.columns)
        labels = {teacher: arrays(names) for teacher, names in self.labels.items()}
        masks = arrays(self.masks)
        return assemble(columns, labels, self.user, self.vocabulary, masks=masks, properties=self.properties)


class Spool:
    """A queue of blocks, a context manager. Memory stays flat: large imports wait in a temporary file without a name."""

    def __init__(self, memory_nbytes: int = MEMORY_NBYTES) -> None:
        self._limit, self._used = memory_nbytes, 0
        self._blocks: list[Block | tuple[_Outline | None, _Outline | None, tuple[str, ...]]] = []
        self._file: IO[bytes] | None = None
        self._hashes: list[U64] = []

    def add(self, block: Block) -> None:
        """Put a block, whose accepted samples have their hashes as a column, at the end."""
        if block.accepted is not None:
            self._hashes.append(block.accepted.content_hash)
        batches = (block.accepted, block.rejected)
        nbytes = sum(batch.nbytes for batch in batches if batch is not None)
        if self._file is None and self._used + nbytes <= self._limit:
            self._used += nbytes
            self._blocks.append(block)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="mlffstore-import-")  # noqa: SIM115 - closed by __exit__
        accepted, rejected = (None if batch is None else _Outline.write(self._file, batch) for batch in batches)
        self._blocks.append((accepted, rejected, block.reasons))

    def hashes(self) -> list[U64]:
        """Return the content hashes of the accepted samples of each block."""
        return self._hashes

    def take(self) -> Iterator[Block]:
        """Yield the blocks in order, each once."""
        if self._file is not None:
            self._file.seek(0)
        while self._blocks:
            block = self._blocks.pop(0)
            if isinstance(block, Block):
                yield block
                continue
            assert self._file is not None
            accepted, rejected = (None if outline is None else outline.read(self._file) for outline in block[:2])
            yield Block(accepted, rejected, block[2])

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *details: object) -> None:
        self._blocks = []
        if self._file is not None:
            self._file.close()
