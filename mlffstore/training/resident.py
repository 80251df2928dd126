"""A dataset that lies on a device as a whole: batches are gathered there, and nothing is copied while training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from mlffstore.data.casting import integer
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.training.batch import Batch
    from mlffstore.training.dataset import TorchDataset

#: Samples that are copied to the device at a time.
_BLOCK = 4096


class Resident:
    """Shuffled batches of a `TorchDataset` that was copied to a device.

    Parameters
    ----------
    dataset : TorchDataset
        Its transform runs on the device; neighbours are not supported: find them there.
    device : torch.device or str
    batch_size : int, optional
    shuffle : bool, optional
    seed : int, optional
        The order depends on (seed, epoch) alone, and is that of a `Loader`.
    drop_last : bool, optional
        Leave out the last batch if it is smaller.

    Raises
    ------
    DataError
        If the dataset has neighbours, or the device has too little memory.

    Notes
    -----
    The columns take 32 bytes per atom with forces, and about 100 per sample: 120,000 samples of 120 atoms are 0.5 GB.
    Batches have the same keys and values as those of `TorchDataset.batch`.
    """

    def __init__(
        self,
        dataset: TorchDataset,
        device: torch.device | str,
        batch_size: int = 32,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if dataset.neighbours is not None:
            raise DataError("Resident: expected a dataset without neighbours; make it with neighbours=None")
        self.device, self.shuffle = torch.device(device), shuffle
        self.batch_size, self.seed = integer("batch_size", batch_size, least=1), integer("seed", seed, least=0)
        self.drop_last, self.epoch = drop_last, 0
        if not len(dataset):
            raise DataError(f"Resident: expected samples, got none of the split {dataset.split!r}")
        self._transform = dataset.transform
        parts: list[Batch] = []
        try:
            for low in range(0, len(dataset), _BLOCK):
                batch = dataset.gathered(range(low, min(low + _BLOCK, len(dataset))))
                parts.append({k: v.to(self.device) for k, v in batch.items() if k not in ("batch", "ptr")})
            self._columns: Batch = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        except torch.OutOfMemoryError as error:
            raise DataError(
                f"Resident: {len(dataset):,} samples with {int(dataset.n_atoms.sum()):,} atoms do not fit into the memory "
                f"of {self.device}; use TorchDataset.loader(device=...)"
            ) from error
        counts = self._columns["n_atoms"]
        self._begin = torch.cumsum(counts, 0) - counts
        # With one atom per sample, a row per atom is a row per sample too.
        self._atom = {name for name, column in self._columns.items() if len(column) == int(counts.sum())}

    def __len__(self) -> int:
        n = len(self._begin)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def batch(self, index: torch.Tensor) -> Batch:
        """Return the samples at `index`, shape (B,), int64, on the device."""
        counts = self._columns["n_atoms"][index]
        ptr = torch.zeros(len(index) + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(counts, 0, out=ptr[1:])
        owner = torch.repeat_interleave(torch.arange(len(index), device=self.device), counts)
        rows = torch.arange(len(owner), device=self.device) + (self._begin[index] - ptr[:-1])[owner]
        out = {name: column[rows if name in self._atom else index] for name, column in self._columns.items()}
        out |= {"batch": owner, "ptr": ptr}
        return out if self._transform is None else self._transform(out)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs."""
        self.epoch = integer("epoch", epoch, least=0)

    def __iter__(self) -> Iterator[Batch]:
        n = len(self._begin)
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(n) if self.shuffle else np.arange(n)
        order = torch.from_numpy(shuffled).to(self.device)
        self.epoch += 1
        for k in range(len(self)):
            yield self.batch(order[k * self.batch_size : (k + 1) * self.batch_size])
