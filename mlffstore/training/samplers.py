"""Batch samplers for torch's DataLoader: batches of bounded size, and shares of them for distributed training."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from mlffstore.data.casting import integer
from mlffstore.data.ragged import offsets
from mlffstore.errors import DataError
from mlffstore.training.shares import check_rank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.data.ragged import Ints
    from mlffstore.training.dataset import TorchDataset


class AtomBudget(Sampler[list[int]]):
    """Batches of at most so many atoms: ``DataLoader(data, batch_sampler=AtomBudget(data, 4096))``.

    Parameters
    ----------
    dataset : TorchDataset
    max_atoms : int
        Atoms of a batch; a sample that is larger is an error, since leaving it out in silence would be worse.
    shuffle : bool, optional
    seed : int, optional
        The order depends on (seed, epoch) alone.
    rank, world_size : int, optional
        This process's share: batch ``rank``, ``rank + world_size``, ... All ranks get equally many batches, and every sample
        is in one batch of one rank; to that end some batches are divided. Where they cannot be, with batches of one sample
        or fewer samples than ranks, some samples are given twice.
    drop_last : bool, optional
        Leave out the last batches instead.

    Notes
    -----
    Every epoch has the same number of batches, `len`, as trainers that ask for it once need it, and every sample once.
    Samples are shuffled, then sorted by size within runs of about 50 batches, so that the batches are full and alike, and
    the order of the batches is shuffled again. The number is that of epoch 0 and 0.2 % more, at least one: an epoch that
    needs fewer has some of its batches divided; the rare epoch that needs more has the batches of epoch 0 with each sample
    exchanged for one of the same size. Without `shuffle` the number is what the samples need in their order.

    An epoch begins when its first batch is requested.
    """

    def __init__(
        self,
        dataset: TorchDataset,
        max_atoms: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.sizes = dataset.n_atoms.astype(np.int64)
        self.max_atoms, self.seed = integer("max_atoms", max_atoms, least=1), integer("seed", seed, least=0)
        if len(self.sizes) and int(self.sizes.max()) > max_atoms:
            raise DataError(f"max_atoms: expected at least {self.sizes.max()}, the largest sample, got {max_atoms}")
        self.rank, self.world_size = check_rank(rank, world_size)
        self.shuffle, self.drop_last = shuffle, drop_last
        self.epoch = 0
        n = len(self._packed(self._drawn(np.random.default_rng([seed, 0]))))
        if shuffle:
            n = min(len(self.sizes), n + 1 + n // 500)
        #: Batches of every epoch, of all ranks together.
        self._n_batches = n - n % world_size if drop_last else n + -n % world_size

    @property
    def sampler(self) -> AtomBudget:
        """The sampler itself: Lightning calls `set_epoch` of the attribute of this name."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs."""
        self.epoch = integer("epoch", epoch, least=0)

    def _drawn(self, rng: np.random.Generator) -> Ints:
        """Return all samples in a random order, sorted by size within runs."""
        n = len(self.sizes)
        if not self.shuffle or not n:
            return np.arange(n)
        order, run = rng.permutation(n), max(1, int(50 * self.max_atoms / self.sizes.mean()))
        return np.concatenate(
            [part[np.argsort(self.sizes[part], kind="stable")] for part in np.split(order, range(run, n, run))]
        )

    def _packed(self, order: Ints) -> list[Ints]:
        """Return samples in batches, each of as many as fit, one after another."""
        ends, cuts = offsets(self.sizes[order]), [0]
        while cuts[-1] < len(order):
            cuts.append(int(np.searchsorted(ends, ends[cuts[-1]] + self.max_atoms, side="right")) - 1)
        return np.split(order, cuts[1:-1]) if len(order) else []

    def _exchanged(self, rng: np.random.Generator) -> list[Ints]:
        """Return the batches of epoch 0 with each sample exchanged for a random one of the same size."""
        batches = self._packed(self._drawn(np.random.default_rng([self.seed, 0])))
        order, drawn = np.concatenate(batches), rng.permutation(len(self.sizes))
        order[np.argsort(self.sizes[order], kind="stable")] = drawn[np.argsort(self.sizes[drawn], kind="stable")]
        return np.split(order, np.cumsum([len(batch) for batch in batches[:-1]]))

    def _batches(self, epoch: int) -> list[Ints]:
        """Return the batches of an epoch, of all ranks."""
        rng = np.random.default_rng([self.seed, epoch])
        batches = self._packed(self._drawn(rng))
        if self.shuffle and len(batches) > self._n_batches + self.drop_last * (self.world_size - 1):
            batches = self._exchanged(rng)
        batches = _divided(batches, self._n_batches)
        if self.shuffle:
            batches = [batches[k] for k in rng.permutation(len(batches))]
        lacking = max(0, self._n_batches - len(batches))
        return batches[: self._n_batches] + [batches[k % len(batches)] for k in range(lacking)]

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches(self.epoch)
        self.epoch += 1
        for batch in batches[self.rank :: self.world_size]:
            yield batch.tolist()

    def __len__(self) -> int:
        return self._n_batches // self.world_size


def _divided(batches: list[Ints], n: int) -> list[Ints]:
    """Return `n` batches if there are fewer: those of most samples are divided, as far as there are samples."""
    parts = [1] * len(batches)
    heap = [(-len(batch), k) for k, batch in enumerate(batches)]
    heapq.heapify(heap)
    for _ in range(n - len(batches)):
        if heap[0][0] == -1:
            break
        k = heap[0][1]
        parts[k] += 1
        heapq.heapreplace(heap, (len(batches[k]) // -parts[k], k))
    return [part for batch, p in zip(batches, parts, strict=True) for part in np.array_split(batch, p)]
