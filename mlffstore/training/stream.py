"""`Stream`: shuffled batches in bounded memory, for what exceeds the disk or is read once."""

from __future__ import annotations

import contextlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from mlffstore.data.casting import integer
from mlffstore.data.ragged import offsets
from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError
from mlffstore.release.samples import ReleaseSamples
from mlffstore.training.batch import REAL, check_names
from mlffstore.training.columns import TRAINED, Columns
from mlffstore.training.layout import in_memory
from mlffstore.training.shares import batch_sizes, check_rank, n_batches
from mlffstore.training.sources import STRUCTURE, StoreSource, WantedLabels, pinned, source
from mlffstore.training.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.training.batch import Batch


#: Passes of which worker 0 can have told at a time, and how long the others wait for it, in seconds.
_SAID, _PATIENCE = 256, 600.0


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Batches of a split, blocks of samples read in random order and shuffled several blocks at a time.

    Parameters
    ----------
    source, split, teacher, properties
        As for `TorchDataset`, but the source must be a store or a snapshot.
    batch_size : int, optional
        Number of samples in a batch, 32 by default.
    block_samples : int, optional
        Number of consecutive samples that are read at once, 2,048 by default.
    blocks : int, optional
        Number of blocks that are mixed, 4 by default. Together with ``block_samples`` it bounds the memory and decides how
        well the samples are shuffled.
    shuffle : bool, optional
        Whether blocks and samples are shuffled (default), or come in the order of the store.
    seed : int, optional
        Seed of the order, 0 by default.
    drop_last : bool, optional
        Whether the samples at the end that do not fill a batch of every rank are left out. By default they are not.
    rank, world_size : int, optional
        This process's share of the samples, for distributed training and validation. As with
        `mlffstore.training.loader.Loader`, all ranks get the same number of batches, and each sample is in one batch of one
        rank; therefore the last batches are smaller.
    dtype, transform, require, columns
        As for `TorchDataset`.

    Notes
    -----
    In a DataLoader with several workers each worker takes its share of the batches. The DataLoader needs
    ``batch_size=None``.

    Each pass has another order. Without workers the order depends only on the seed and the epoch. In workers it also depends
    on the seed of torch, as torch's own shuffling does, since a worker cannot know how many passes the other workers made.
    Blocks are divided among the ranks by `seed` and by the epoch of the last `set_epoch`, which reaches all workers. Either
    all ranks call `set_epoch` with the same epochs, or none does.

    When the stream is made, it reads which samples exist (about 8 bytes per sample) and the labels that are required. Since
    it does not read the other labels before the first batch, batches always have masks: one for each label that is not
    required, and one for each user column.
    """

    def __init__(
        self,
        source: Any,
        split: str | None = "train",
        teacher: str | None = None,
        properties: Sequence[str] | None = None,
        *,
        batch_size: int = 32,
        block_samples: int = 2048,
        blocks: int = 4,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        dtype: torch.dtype = torch.float32,
        transform: Callable[[Batch], Batch] | None = None,
        require: Sequence[str] = (),
        columns: Sequence[str] | None = None,
    ) -> None:
        if split is not None and split not in SPLITS:
            raise DataError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        if dtype not in REAL:
            raise DataError(f"dtype: expected a floating dtype, torch.float32 or torch.float64, got {dtype}")
        self._wanted = WantedLabels.of(properties, require)
        self.require = self._wanted.require
        self.source, self.split = pinned(source), split
        if isinstance(self.source, (str, ReleaseSamples)):
            path = self.source if isinstance(self.source, str) else self.source.release.path
            raise DataError(f"stream: expected a store, got the release {path}; a release is read through TorchDataset")
        self.batch_size, self.shuffle, self.drop_last = integer("batch_size", batch_size, least=1), shuffle, drop_last
        self.block_samples = integer("block_samples", block_samples, least=1)
        self.blocks = integer("blocks", blocks, least=1)
        self.seed, (self.rank, self.world_size) = integer("seed", seed, least=0), check_rank(rank, world_size)
        self.dtype, self.transform = dtype, transform
        where = self._where(teacher)
        self.teacher, self._key = where.teacher, where.key()
        self._extra = self._wanted.choose(where.user(), columns)
        check_names(self._extra)
        describe = getattr(transform, "describe", None)
        if describe is not None:
            describe({name: one.quantity.turns for name, one in self._extra.items() if one.quantity is not None})
        wanted = np.zeros(len(where.snapshot), bool)
        wanted[where.index()] = True
        if split is not None:
            wanted &= where.snapshot.split_codes() == SPLITS.index(split)
        for name in self.require:
            if name not in where.labels():
                raise DataError(f"require: expected a label that {self.teacher} gave, got {name!r} ({where.title()})")
            index = np.flatnonzero(wanted)
            wanted[index] = where.having(name, index)
        self._n, self._total, self._bits = int(wanted.sum()), len(wanted), np.packbits(wanted)
        # The epoch of the last call of set_epoch, and the number of calls: in shared memory, for persistent workers.
        self._set = torch.zeros(2, dtype=torch.int64)
        # What worker 0 says of the passes that it begins.
        self._said = torch.full((_SAID, 5), -1, dtype=torch.int64)
        with contextlib.suppress(RuntimeError):  # no shared memory: then there are no workers either
            self._set.share_memory_()  # type: ignore[no-untyped-call]
            self._said.share_memory_()  # type: ignore[no-untyped-call]
        self._seen = self._passes = self._begun = 0

    def __len__(self) -> int:
        return n_batches(self._n, self.batch_size, self.world_size, drop_last=self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next pass runs; the passes after it count on from there."""
        self._set[0] = integer("epoch", epoch, least=0)
        self._set[1] += 1

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        if worker is None:
            base, number = self._next_pass()
            return self._run(base, np.random.default_rng([self.seed, base + number]), 0, 1)
        # What the workers of one DataLoader have in common, and no other one's; they all begin the same passes in turn.
        loader, self._begun = worker.seed - worker.id, self._begun + 1
        if worker.id == 0:
            base, number = self._next_pass()
            self._say(loader, self._begun, base, number)
        else:
            base, number = self._hear(loader, self._begun)
        common = np.random.default_rng([self.seed, base + number, loader])
        return self._run(base, common, worker.id, worker.num_workers)

    def _next_pass(self) -> tuple[int, int]:
        """Return the epoch of the last `set_epoch`, and how many passes began since then in this process."""
        base, calls = self._set.tolist()
        if calls != self._seen:
            self._seen, self._passes = calls, 0
        self._passes += 1
        return base, self._passes - 1

    def _say(self, loader: int, begun: int, base: int, number: int) -> None:
        """Tell the other workers which pass begins: one that is late would see a `set_epoch` that came meanwhile."""
        values = [loader, begun, base, number]
        self._said[_row(loader, begun)] = torch.tensor([*values, _checksum(values)])

    def _hear(self, loader: int, begun: int) -> tuple[int, int]:
        """Wait until worker 0 has told which pass begins."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            *values, checksum = self._said[_row(loader, begun)].tolist()
            if values[:2] == [loader, begun] and checksum == _checksum(values):  # all of it has come
                return values[2], values[3]
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"stream: worker 0 of this DataLoader did not begin its pass within {_PATIENCE:.0f} s"
                )
            time.sleep(0.001)

    def _run(self, base: int, rng: np.random.Generator, worker: int, n_workers: int) -> Iterator[Batch]:
        where = self._where(self.teacher)
        if where.key() != self._key:
            raise DataError(
                f"{where.title()}: expected the samples that the stream was made of, got others: what lies there was "
                "replaced meanwhile; make a new stream"
            )
        sizes = self._sizes(self.rank)
        parts = self._mixed(self._of_rank(base), rng)
        chosen = np.array_split(np.arange(len(sizes)), n_workers)[worker]
        rng_of_worker = np.random.default_rng([*rng.integers(0, 1 << 32, 4).tolist(), worker])
        step, ends = max(1, self.blocks * self.block_samples // self.batch_size), offsets(sizes)
        groups = [sizes[some] for some in np.split(chosen, range(step, len(chosen), step)) if len(some)]
        at = int(ends[chosen[0]]) if len(chosen) else 0
        pool = ThreadPoolExecutor(1, thread_name_prefix="mlffstore-stream")
        exiting = sys.is_finalizing  # as in `Loader`: an iterator may be left to the end of the interpreter
        try:
            coming = None
            for k in range(len(groups) + 1):
                job = coming
                if k < len(groups):
                    n = int(groups[k].sum())
                    coming = pool.submit(self._read, where, _slice(parts, at, at + n))
                    at += n
                if job is None:
                    continue
                columns, index = job.result()
                order = index[rng_of_worker.permutation(len(index))] if self.shuffle else index
                start = 0
                for size in groups[k - 1].tolist():
                    yield self._batch(columns, order[start : start + size])
                    start += size
        finally:
            if not exiting():
                pool.shutdown(cancel_futures=True)

    def _where(self, teacher: str | None) -> StoreSource:
        where = source(self.source, teacher, self._wanted.more)
        assert isinstance(where, StoreSource)
        return where

    def _sizes(self, rank: int) -> Ints:
        return batch_sizes(self._n, self.batch_size, rank, self.world_size, drop_last=self.drop_last)

    def _of_rank(self, epoch: int) -> list[Ints]:
        """Return the samples of this rank, in parts of a block."""
        index = np.flatnonzero(np.unpackbits(self._bits, count=self._total))
        cuts = np.flatnonzero(np.diff(index // self.block_samples)) + 1
        parts = np.split(index, cuts) if len(index) else []
        if self.world_size == 1:
            return parts
        parts = self._mixed(parts, np.random.default_rng([self.seed, epoch]))
        counts = [int(self._sizes(rank).sum()) for rank in range(self.world_size)]
        start = sum(counts[: self.rank])
        if sum(counts) > self._n:  # fewer samples than ranks: some come twice
            parts *= -(-sum(counts) // self._n)
        return _slice(parts, start, start + counts[self.rank])

    def _mixed(self, parts: list[Ints], rng: np.random.Generator) -> list[Ints]:
        return [parts[k] for k in rng.permutation(len(parts))] if self.shuffle else parts

    def _read(self, where: StoreSource, parts: list[Ints]) -> tuple[Columns, Array]:
        """Decode whole spans, as the cache does; return them and which of their samples are wanted."""
        labels = where.labels() - self._wanted.hidden
        names = [name for name in (*STRUCTURE, *TRAINED, *self._extra)
                 if name not in ("content_hash", *self._wanted.hidden)]  # fmt: skip
        spans = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
        batches = [where.snapshot.read(span, teacher=where.teacher, columns=names) for span in spans]
        n_atoms = np.concatenate([batch.n_atoms for batch in batches])
        columns = Columns.empty(
            where.teacher, labels, n_atoms, np.zeros(0, np.uint8), where.precision, self._extra, in_memory
        )
        end, index = 0, []
        for batch, part in zip(batches, parts, strict=True):
            index.append(part - part[0] + end)
            end = columns.put(batch, end)
        masks = {name: mask for name, mask in columns.masks.items() if name not in self.require}
        return replace(columns, masks=masks), np.concatenate(index)

    def _batch(self, columns: Columns, index: Array) -> Batch:
        atoms = int(columns.n_atoms[index].sum(dtype=np.int64))
        window = Window.empty(len(index), len(index), atoms, columns, REAL[self.dtype])
        window.fill(index, columns)
        out = {name: torch.from_numpy(array) for name, array in window.columns.items()}
        out["ptr"] = out["ptr"][0]
        return out if self.transform is None else self.transform(out)


def _slice(parts: list[Ints], start: int, stop: int) -> list[Ints]:
    """Return items `start` to `stop` of the parts one after another, in parts."""
    ends = offsets([len(part) for part in parts])
    pairs = [(max(start - a, 0), stop - a, part) for a, part in zip(ends[:-1].tolist(), parts, strict=True)]
    return [part[low:high] for low, high, part in pairs if low < len(part) and high > 0]


def _row(loader: int, begun: int) -> int:
    """Return where worker 0 of a DataLoader tells of a pass."""
    return (loader + begun) % _SAID


def _checksum(values: Sequence[int]) -> int:
    """Return a number that shows whether all of some others have come: another process may see them one by one."""
    return hash(tuple(values)) % (1 << 61)
