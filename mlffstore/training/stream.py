"""`Stream`: shuffled batches in bounded memory, for what exceeds the disk or is read once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from mlffstore.errors import DataError
from mlffstore.splits import SPLITS
from mlffstore.training.columns import Columns, in_memory
from mlffstore.training.dataset import _REAL, Window, _pinned
from mlffstore.training.sources import StoreSource as _StoreSource
from mlffstore.training.sources import source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlffstore.schema import Array
    from mlffstore.training.dataset import Batch


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Batches of a split, blocks of samples read in random order and shuffled several blocks at a time.

    Parameters
    ----------
    source, split, teacher
        As for `TorchDataset`; a store or a snapshot.
    batch_size : int, optional
    block_samples : int, optional
        Samples that lie one after another and are read at once.
    blocks : int, optional
        Blocks that are mixed: with ``block_samples`` this bounds the memory and says how well it is shuffled.
    seed : int, optional
        The order depends on (seed, epoch) alone.
    dtype : torch.dtype, optional
    transform : callable, optional

    Notes
    -----
    In a DataLoader with several workers each takes its share of the blocks; give it ``batch_size=None``.
    """

    def __init__(
        self,
        source: Any,
        split: str | None = "train",
        teacher: str | None = None,
        *,
        batch_size: int = 32,
        block_samples: int = 2048,
        blocks: int = 4,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        transform: Callable[[Batch], Batch] | None = None,
    ) -> None:
        if min(batch_size, block_samples, blocks) < 1:
            raise DataError(
                f"batch_size, block_samples, blocks: expected at least 1, got {batch_size}, {block_samples}, {blocks}"
            )
        if split is not None and split not in SPLITS:
            raise DataError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        self.source, self.split, self.teacher = _pinned(source), split, teacher
        if isinstance(self.source, str):
            raise DataError(
                f"stream: expected a store, got the release {self.source}; a release is read through TorchDataset"
            )
        self.batch_size, self.block_samples, self.blocks, self.seed = batch_size, block_samples, blocks, seed
        self.dtype, self.transform, self.epoch = dtype, transform, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        found = source(self.source, self.teacher)
        assert isinstance(found, _StoreSource)
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        n = len(found.snapshot)
        blocks = [slice(a, min(a + self.block_samples, n)) for a in range(0, n, self.block_samples)]
        blocks = [blocks[k] for k in rng.permutation(len(blocks))]
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            blocks = blocks[worker.id :: worker.num_workers]
        groups = [blocks[a : a + self.blocks] for a in range(0, len(blocks), self.blocks)]
        with ThreadPoolExecutor(1, thread_name_prefix="mlffstore-stream") as pool:
            coming = pool.submit(self._read, found, groups[0]) if groups else None
            for k in range(len(groups)):
                assert coming is not None
                columns, chosen = coming.result()
                coming = pool.submit(self._read, found, groups[k + 1]) if k + 1 < len(groups) else None
                order = chosen[rng.permutation(len(chosen))]
                for a in range(0, len(order), self.batch_size):
                    yield self._batch(columns, order[a : a + self.batch_size])

    def _read(self, found: _StoreSource, blocks: list[slice]) -> tuple[Columns, Array]:
        """Decode whole blocks, as the cache does; return them and which of their samples are wanted."""
        names = ("numbers", "positions", "cell", "pbc", "charge", "multiplicity", "energy", "forces", "stress")
        who, codes = found.teacher, found.snapshot.split_codes()
        parts = [found.snapshot.read(block, teacher=who, columns=names) for block in blocks]
        split = np.concatenate([codes[block] for block in blocks])
        labels = {name for part in parts for name in part.labels.get(who, ())}
        n_atoms = np.concatenate([part.n_atoms for part in parts])
        out = Columns.empty(who, labels, n_atoms, split, found.precision, {}, in_memory)
        end = 0
        for part in parts:
            end = out.put(part, end)
        wanted = out.masks["energy"].copy()
        if self.split is not None:
            wanted &= split == SPLITS.index(self.split)
        return out, np.flatnonzero(wanted)

    def _batch(self, columns: Columns, index: Array) -> Batch:
        atoms = int(columns.n_atoms[index].sum(dtype=np.int64))
        window = Window.empty(len(index), len(index), atoms, columns, _REAL[self.dtype])
        window.fill(index, columns)
        out = {name: torch.from_numpy(array) for name, array in window.columns.items()}
        out["ptr"] = out["ptr"][0]
        return out if self.transform is None else self.transform(out)
