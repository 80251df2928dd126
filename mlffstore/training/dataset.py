"""`TorchDataset`: a store or a release as a map-style torch Dataset that reads at the speed of memory.

What is read is the column cache (`mlffstore.training.cache`): mapped from a folder that all processes share, or in memory.
Workers touch NumPy arrays and compiled copies only, so that fork, forkserver and spawn are all safe; pickling leaves the
columns behind.
"""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlffstore.data.ragged import normalise_indices
from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError, missing_dependency

try:
    import torch
    from torch.utils.data import Dataset
except ImportError as _error:
    raise missing_dependency("torch", "torch", "TorchDataset") from _error

from mlffstore.training.batch import REAL, Batch, check_names, join, joinable
from mlffstore.training.cache import decoded, mapped
from mlffstore.training.edges import edges
from mlffstore.training.loader import Loader
from mlffstore.training.sources import WantedLabels, pinned, source
from mlffstore.training.stream import Stream
from mlffstore.training.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlffstore.data.schema import Array
    from mlffstore.training.columns import Columns


class TorchDataset(Dataset):  # type: ignore[type-arg]
    """The samples of a split that a teacher labelled, as torch tensors.

    Parameters
    ----------
    source : path, URL, Store or Snapshot
        A store, or a release (``.h5``).
    split : {"train", "val", "test"} or None
        None for all samples.
    teacher : str, optional
        Teacher whose labels are read. It is required if there are several.
    properties : sequence of str, optional
        Labels that batches get, such as ``("energy", "forces", "charges")``; by default energy, forces and stress. The
        energy is always there.
    dtype : {torch.float32, torch.float64}, optional
        Dtype of positions, cell, forces and stress. Energies stay float64: float32 resolves 8 meV at 1e5 eV.
    transform : callable, optional
        It takes and returns a batch, see `mlffstore.training.transforms`. It runs where the batch is made.
    neighbours : float, optional
        Cutoff in angstrom: batches get ``edge_index`` (2, E) int64, from centre to neighbour, and ``shift`` (E, 3), the
        vector of the cell to add to the neighbour's position. Full lists, over all periodic images.
    require : sequence of str, optional
        Leave out the samples that lack one of these labels. By default all samples are there that have any label of the
        teacher, and masks say what they lack.
    columns : sequence of str, optional
        Numeric user columns that batches get, under their names; all of them by default, ``()`` for none.
    cache : {"mapped", "memory"}, optional
        Decode once into a folder that all processes map (`mlffstore cache` lists them), or into this process's memory.
    progress : callable, optional
        It is called with the number of samples decoded so far and the number of all samples, while the cache is built.

    Examples
    --------
    >>> import mlffstore as ml
    >>> data = ml.TorchDataset("release.h5", split="train")  # doctest: +SKIP
    >>> for batch in data.loader(batch_size=32, shuffle=True):  # doctest: +SKIP
    ...     batch["positions"], batch["ptr"], batch["energy"], batch["forces"]

    With torch's own loader: ``DataLoader(data, batch_size=32, shuffle=True)``; its batches are joined, not stacked.

    Raises
    ------
    DataError
        If an option is wrong, no sample has a required label, or a user column has the name of something else in batches.
    TeacherError
        If there are several teachers and none was named.
    CorruptionError
        If the cache is damaged; also later, when a sample is read for the first time.
    """

    def __init__(
        self,
        source: Any,
        split: str | None = "train",
        teacher: str | None = None,
        properties: Sequence[str] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        transform: Callable[[Batch], Batch] | None = None,
        neighbours: float | None = None,
        require: Sequence[str] = (),
        columns: Sequence[str] | None = None,
        cache: Literal["mapped", "memory"] = "mapped",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if dtype not in REAL:
            raise DataError(f"dtype: expected a floating dtype, torch.float32 or torch.float64, got {dtype}")
        if cache not in ("mapped", "memory"):
            raise DataError(f"cache: expected 'mapped' or 'memory', got {cache!r}")
        if split is not None and split not in SPLITS:
            raise DataError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        self._wanted = WantedLabels.of(properties, require)
        self.require, self.properties = self._wanted.require, self._wanted.more
        self.source, self.split, self.teacher, self.dtype = pinned(source), split, teacher, dtype
        self.transform, self.neighbours, self.cache = transform, _cutoff(neighbours), cache
        self.columns = columns if columns is None or isinstance(columns, str) else tuple(columns)
        self._columns: Columns | None = None
        self._key: str | None = None
        self._digest: str | None = None
        self.title = ""
        self._index: Array = np.zeros(0, np.int64)
        self._load(progress)  # errors belong here, not in a worker

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_columns": None, "_index": np.zeros(0, np.int64)}

    def load(self) -> tuple[Columns, Array]:
        """Return the decoded samples of all splits, and the indices of this dataset's samples, shape (S,), int64."""
        columns = self._load()
        return columns, self._index

    def _load(self, progress: Callable[[int, int], None] | None = None) -> Columns:
        if self._columns is None:
            where = source(self.source, self.teacher, self.properties)
            key = where.key()
            if self._key not in (None, key):
                raise DataError(
                    f"{where.title()}: expected the samples that the dataset was made of, got others: what lies there was "
                    "replaced meanwhile; make a new dataset"
                )
            if self.cache == "mapped":
                columns = mapped(where, progress)
                columns = replace(columns, extra=self._wanted.choose(columns.extra, self.columns))
            else:
                columns = decoded(where, self._wanted.choose(where.user(), self.columns), progress)
            self.teacher = columns.teacher
            self.title = where.title()
            self._choose(columns)
            self._units = {name: column.unit for name, column in where.user().items() if name in columns.extra}
            self._key = key
        assert self._columns is not None
        return self._columns

    def _choose(self, columns: Columns) -> None:
        """Choose the samples, and the labels that need masks, which are the same in all splits."""
        wanted = np.ones(len(columns), bool)
        for name in self.require:
            there = columns.masks.get(name)
            if name not in columns.labels or (there is not None and len(there) and not there.any()):
                raise DataError(f"require: expected a label that {columns.teacher} gave, got {name!r} ({self.title})")
            if there is not None:
                wanted &= there
        masks = {
            name: mask
            for name, mask in columns.masks.items()
            if not mask[wanted].all() and name not in self._wanted.hidden
        }
        check_names(columns.extra)
        self._atom_masks = frozenset(
            f"{name}_mask" for name, column in columns.extra.items() if column.axis == "atom" and column.mask >= 0
        )
        describe = getattr(self.transform, "describe", None)
        if describe is not None:
            describe({name: column.turns for name, column in columns.extra.items() if column.turns is not None})
        self._columns = replace(columns, masks=masks, hidden=self._wanted.hidden)
        if self.split is not None:
            wanted &= columns.split == SPLITS.index(self.split)
        self._index = np.flatnonzero(wanted)

    def __len__(self) -> int:
        self._load()
        return len(self._index)

    @property
    def digest(self) -> str:
        """Digest of the samples of this dataset, with their structures and labels, in this order."""
        columns = self._load()
        if self._digest is None:
            self._digest = columns.digest(self._index)
        return self._digest

    @property
    def content_hash(self) -> Array:
        """Content hash of every sample, shape (S,), uint64. It identifies the samples."""
        return np.asarray(self._load().content_hash[self._index])

    @property
    def n_atoms(self) -> Array:
        """Number of atoms of every sample, shape (S,), int32, for samplers that bound the size of a batch."""
        return np.asarray(self._load().n_atoms[self._index])

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

            ``energy_mask``, ``forces_mask``, ``stress_mask`` (B,) bool, True where the sample has the label, if some sample
            of the source lacks it, in whatever split; the label is 0 where it is missing. Labels of other properties are
            under their names, (B, ...) or (A, ...) in their dtypes, with masks (B,) likewise. So are user columns: floats
            and bools as they are stored, integers as int64 (uint64 stays); if some row of a column is missing, there is
            ``NAME_mask``, (B,) or (A,) bool, and missing numbers are 0.
        """
        batch = self.joined(self.gathered(indices))
        return batch if self.transform is None else self.transform(batch)

    def gathered(self, indices: Sequence[int] | Array) -> Batch:
        """Return samples as one batch, as they are in the cache: without neighbours and transform."""
        columns = self._load()
        index = self._index[normalise_indices(np.asarray(indices), len(self._index))]
        if not len(index):
            raise IndexError("indices: expected at least one sample, got none")
        atoms = int(columns.n_atoms[index].sum(dtype=np.int64))
        window = Window.empty(len(index), len(index), atoms, columns, REAL[self.dtype])
        window.fill(index, columns)
        out = {name: torch.from_numpy(array) for name, array in window.columns.items()
               if name not in columns.hidden}  # fmt: skip
        out["ptr"] = out["ptr"][0]
        return out

    def joined(self, batch: Batch) -> Batch:
        """Return a gathered batch with its neighbours, if they are wanted."""
        if self.neighbours is not None:
            batch["edge_index"], batch["shift"] = edges(batch, self.neighbours)
        return batch

    def __getitem__(self, index: int) -> Batch:
        """Return one sample as a batch of one."""
        batch: Batch = joinable(self.batch(np.asarray(index)[None]), self._atom_masks, self._units)
        return batch

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Return a list with one collated batch: torch's loader calls this with all indices of a batch."""
        return [joinable(self.batch(indices), self._atom_masks, self._units)]

    @staticmethod
    def collate(items: Sequence[Batch]) -> Batch:
        """Join batches into one. Torch's DataLoader does it by itself; other loaders may need it as `collate_fn`."""
        return join(items)

    def loader(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        threads: int = 2,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool | None = None,
        device: torch.device | str | None = None,
    ) -> Loader:
        """Return an iterable over batches, in another order in each epoch; see `mlffstore.training.loader.Loader`."""
        return Loader(
            self, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, threads=threads, rank=rank,
            world_size=world_size, pin_memory=pin_memory, device=device,
        )  # fmt: skip

    @staticmethod
    def stream(
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
    ) -> Stream:
        """Return an iterable over batches in bounded memory, without a cache; see `mlffstore.training.stream.Stream`."""
        return Stream(
            source, split, teacher, properties, batch_size=batch_size, block_samples=block_samples, blocks=blocks,
            shuffle=shuffle, seed=seed, drop_last=drop_last, rank=rank, world_size=world_size, dtype=dtype,
            transform=transform, require=require, columns=columns,
        )  # fmt: skip


def _cutoff(neighbours: Any) -> float | None:
    """Return the cutoff of neighbours; raise `DataError` unless it is a length."""
    if neighbours is None:
        return None
    if isinstance(neighbours, bool) or not isinstance(neighbours, Real) or not 0 < float(neighbours) < math.inf:
        raise DataError(f"neighbours: expected a cutoff in angstrom, positive and finite, got {neighbours!r}")
    return float(neighbours)
