"""`TorchDataset`: a store or a release as a map-style torch Dataset.

The columns of a split are decoded once, into memory, when the first sample is asked for; batches are then gathered from
them with numpy. Nothing is opened before a DataLoader forks or pickles, and pickling leaves the columns behind.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.batch import SampleBatch, choose_teacher, normalise_indices
from mlffstore.errors import DataError, missing_dependency
from mlffstore.ragged import offsets, row_indices
from mlffstore.release import Release, is_release

try:
    import torch
    from torch.utils.data import Dataset
except ImportError as _error:
    raise missing_dependency("torch", "torch", "TorchDataset") from _error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlffstore.schema import Array

Source = "str | os.PathLike[str] | Store | Snapshot"
Batch = dict[str, torch.Tensor]
#: Batches that a loader gathers in one call.
_WINDOW = 16


def columns(source: Any, split: str | None, teacher: str | None) -> tuple[SampleBatch, str]:
    """Decode a split of a store, snapshot or release; return it and the name of the teacher."""
    if isinstance(source, (str, os.PathLike)) and is_release(source):
        release = Release(source)
        who = choose_teacher((release.teacher,), teacher)
        return release.read(split), who
    if isinstance(source, (str, os.PathLike)):
        from mlffstore.store import open as open_store

        source = open_store(source)
    snapshot = source.snapshot() if hasattr(source, "snapshot") else source
    who = choose_teacher(snapshot.teachers, teacher)
    return snapshot.read(snapshot.split_indices(split, who), teacher=who), who


class TorchDataset(Dataset):  # type: ignore[type-arg]
    """The samples of a split that a teacher labelled, as torch tensors.

    Parameters
    ----------
    source : path, URL, Store or Snapshot
        A store, or a release (``.h5``).
    split : {"train", "val", "test"} or None
        None for all samples.
    teacher : str, optional
        Whose labels; needed when a store has several.
    dtype : torch.dtype, optional
        Of positions, cell, forces and stress. Energies stay float64: float32 resolves 8 meV at 1e5 eV.

    Examples
    --------
    >>> import mlffstore as ml
    >>> data = ml.TorchDataset("release.h5", split="train")  # doctest: +SKIP
    >>> for batch in data.loader(batch_size=32, shuffle=True):  # doctest: +SKIP
    ...     batch["positions"], batch["ptr"], batch["energy"], batch["forces"]

    With torch's own loader: ``DataLoader(data, batch_size=32, shuffle=True, collate_fn=data.collate)``.
    """

    def __init__(
        self,
        source: Any,
        split: str | None = "train",
        teacher: str | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not dtype.is_floating_point:
            raise DataError(f"dtype: expected a floating dtype such as torch.float32, got {dtype}")
        self.source, self.split, self.teacher, self.dtype = source, split, teacher, dtype
        self._data: SampleBatch | None = None
        self._arrays: dict[str, tuple[str, Array]] = {}
        self._load()  # errors belong here, not in a worker

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None, "_arrays": {}}

    def _load(self) -> SampleBatch:
        if self._data is None:
            data, self.teacher = columns(self.source, self.split, self.teacher)
            floating = np.dtype(str(self.dtype).removeprefix("torch."))
            labels = data.labels[self.teacher]
            wanted: dict[str, tuple[str, Array]] = {
                "numbers": ("atom", data.numbers.astype(np.int64)),
                "positions": ("atom", data.positions.astype(floating, copy=False)),
                "cell": ("sample", data.cell.astype(floating)),
                "pbc": ("sample", data.pbc),
                "charge": ("sample", data.charge.astype(np.int64)),
                "multiplicity": ("sample", data.multiplicity.astype(np.int64)),
                "energy": ("sample", labels["energy"]),
            }
            if "forces" in labels:
                wanted["forces"] = ("atom", labels["forces"].astype(floating, copy=False))
            if "stress" in labels:
                wanted["stress"] = ("sample", labels["stress"].astype(floating, copy=False))
            self._arrays, self._data = wanted, data
        return self._data

    def __len__(self) -> int:
        return len(self._load())

    @property
    def content_hash(self) -> Array:
        """Content hash of every sample, shape (S,), uint64: tells which samples these are."""
        return self._load().columns["content_hash"]

    @property
    def n_atoms(self) -> Array:
        """Atoms of every sample, shape (S,), int32: for samplers that bound the size of a batch."""
        return self._load().n_atoms

    def batch(self, indices: Sequence[int] | Array) -> Batch:
        """Return samples as one batch, in request order, duplicates allowed.

        Parameters
        ----------
        indices : sequence of int
            B of them.

        Returns
        -------
        dict of torch.Tensor
            ``numbers`` (A,) int64; ``positions``, ``forces`` (A, 3); ``cell`` (B, 3, 3); ``pbc`` (B, 3) bool; ``charge``,
            ``multiplicity``, ``n_atoms`` (B,) int64; ``energy`` (B,) float64, eV; ``stress`` (B, 6) if the teacher has it;
            ``batch`` (A,) int64, the sample of each atom; ``ptr`` (B+1,) int64, where each sample starts.
        """
        data = self._load()
        index = normalise_indices(np.asarray(indices), len(data))
        counts = data.n_atoms[index].astype(np.int64)
        atoms = row_indices(data.offsets[index], counts)
        out = {
            name: torch.from_numpy(array[index if axis == "sample" else atoms])
            for name, (axis, array) in self._arrays.items()
        }
        out["n_atoms"] = torch.from_numpy(counts)
        out["batch"] = torch.from_numpy(np.repeat(np.arange(len(index)), counts))
        out["ptr"] = torch.from_numpy(offsets(counts))
        return out

    def __getitem__(self, index: int) -> Batch:
        """Return one sample as a batch of one."""
        return self.batch([int(index)])

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Return a list with one collated batch: torch's loader calls this with all indices of a batch."""
        return [self.batch(indices)]

    @staticmethod
    def collate(items: Sequence[Batch]) -> Batch:
        """Join batches into one; give it to torch's DataLoader as `collate_fn`."""
        if len(items) == 1:
            return items[0]
        out = {name: torch.cat([item[name] for item in items]) for name in items[0] if name not in ("batch", "ptr")}
        counts = out["n_atoms"]
        out["batch"] = torch.repeat_interleave(torch.arange(len(counts)), counts)
        out["ptr"] = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(counts, 0)])
        return out

    def loader(self, batch_size: int = 32, *, shuffle: bool = True, seed: int = 0, drop_last: bool = False) -> Loader:
        """Return an iterable over batches, in another order in each epoch."""
        return Loader(self, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)


class Loader:
    """Batches of a `TorchDataset`. Each iteration is one epoch; its order depends on (seed, epoch) alone."""

    def __init__(self, dataset: TorchDataset, batch_size: int, *, shuffle: bool, seed: int, drop_last: bool) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size: expected at least 1, got {batch_size}")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.seed, self.drop_last, self.epoch = seed, drop_last, 0

    def __len__(self) -> int:
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        n = len(self.dataset)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(n) if self.shuffle else np.arange(n)
        self.epoch += 1
        window = self.batch_size * _WINDOW
        for start in range(0, len(self) * self.batch_size, window):
            many = self.dataset.batch(order[start : start + window])
            yield from self._views(many, min(len(order) - start, window))

    def _views(self, many: Batch, n: int) -> Iterator[Batch]:
        """Cut a window into batches without copying."""
        ptr = many["ptr"]
        for low in range(0, n, self.batch_size):
            high = min(low + self.batch_size, n)
            if self.drop_last and high - low < self.batch_size:
                return
            a, b = int(ptr[low]), int(ptr[high])
            out = {
                name: many[name][a:b] if self.dataset._arrays[name][0] == "atom" else many[name][low:high]
                for name in self.dataset._arrays
            }
            out["n_atoms"] = many["n_atoms"][low:high]
            out["batch"] = many["batch"][a:b] - low
            out["ptr"] = ptr[low : high + 1] - a
            yield out
