"""Batch samplers for torch's DataLoader: batches of bounded size, and shares of them for distributed training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from mlffstore.errors import DataError
from mlffstore.training.shares import check_rank

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        is in one batch of one rank; to that end some batches are divided. With fewer samples than ranks some samples are
        given twice.
    drop_last : bool, optional
        Leave out the last batches instead.

    Notes
    -----
    Samples are shuffled, then sorted by size within runs of about 50 batches, so that the batches are full and alike, and
    the order of the batches is shuffled again. Their number can differ a little between epochs.
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
        if len(self.sizes) and int(self.sizes.max()) > max_atoms:
            raise DataError(f"max_atoms: expected at least {self.sizes.max()}, the largest sample, got {max_atoms}")
        check_rank(rank, world_size)
        self.drop_last = drop_last
        self.max_atoms, self.shuffle, self.seed, self.rank, self.world_size = max_atoms, shuffle, seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs."""
        self.epoch = epoch

    def _batches(self) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        n = len(self.sizes)
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        if self.shuffle and n:
            run = max(1, int(50 * self.max_atoms / self.sizes.mean()))
            order = np.concatenate(
                [part[np.argsort(self.sizes[part], kind="stable")] for part in np.split(order, range(run, n, run))]
            )
        out: list[list[int]] = []
        used = self.max_atoms
        for i in order.tolist():
            size = int(self.sizes[i])
            if used + size > self.max_atoms:
                out.append([])
                used = 0
            out[-1].append(i)
            used += size
        out = [out[k] for k in rng.permutation(len(out))] if self.shuffle else out
        lacking = -len(out) % self.world_size
        if self.drop_last:
            return out[: len(out) - len(out) % self.world_size]
        while lacking and (most := max(map(len, out))) > 1:
            k = next(k for k, batch in enumerate(out) if len(batch) == most)
            out[k : k + 1] = [out[k][: most // 2], out[k][most // 2 :]]
            lacking -= 1
        return out + [out[k % len(out)] for k in range(lacking)]

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        self.epoch += 1
        return iter(batches[self.rank :: self.world_size])

    def __len__(self) -> int:
        return len(self._batches()) // self.world_size
