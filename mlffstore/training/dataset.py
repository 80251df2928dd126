"""`TorchDataset`: a store or a release as a map-style torch Dataset that reads at the speed of memory.

What is read is the column cache (`mlffstore.training.cache`): mapped from a folder that all processes share, or in memory.
Workers touch NumPy arrays and compiled copies only, so that fork, forkserver and spawn are all safe; pickling leaves the
columns behind.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlffstore.batch import normalise_indices
from mlffstore.errors import DataError, missing_dependency
from mlffstore.splits import SPLITS
from mlffstore.training.cache import Columns, in_memory, mapped, source

try:
    import torch
    from torch.utils.data import Dataset
except ImportError as _error:
    raise missing_dependency("torch", "torch", "TorchDataset") from _error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlffstore.schema import Array
    from mlffstore.training.loader import Loader
    from mlffstore.training.stream import Stream

Batch = dict[str, torch.Tensor]
Transform = "Callable[[Batch], Batch]"
#: Names of the columns with a row for each atom.
ATOM = frozenset({"numbers", "positions", "forces", "batch"})
_REAL = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}


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
    dtype : {torch.float32, torch.float64}, optional
        Of positions, cell, forces and stress. Energies stay float64: float32 resolves 8 meV at 1e5 eV.
    transform : callable, optional
        Takes and returns a batch, see `mlffstore.training.transforms`. It runs where the batch is made.
    neighbours : float, optional
        Cutoff in angstrom: batches get ``edge_index`` (2, E) int64, from centre to neighbour, and ``shift`` (E, 3), the
        vector of the cell to add to the neighbour's position. Full lists, over all periodic images.
    cache : {"mapped", "memory"}, optional
        Decode once into a folder that all processes map (`mlffstore cache` lists them), or into this process's memory.
    progress : callable, optional
        Called with the samples decoded so far and their number, when the cache is built.

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
        transform: Callable[[Batch], Batch] | None = None,
        neighbours: float | None = None,
        cache: Literal["mapped", "memory"] = "mapped",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if dtype not in _REAL:
            raise DataError(f"dtype: expected a floating dtype, torch.float32 or torch.float64, got {dtype}")
        if cache not in ("mapped", "memory"):
            raise DataError(f"cache: expected 'mapped' or 'memory', got {cache!r}")
        if split is not None and split not in SPLITS:
            raise DataError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        if neighbours is not None and not neighbours > 0:
            raise DataError(f"neighbours: expected a cutoff in angstrom, got {neighbours!r}")
        self.source, self.split, self.teacher, self.dtype = _pinned(source), split, teacher, dtype
        self.transform, self.neighbours, self.cache = transform, neighbours, cache
        self._columns: Columns | None = None
        self._index: Array = np.zeros(0, np.int64)
        self._load(progress)  # errors belong here, not in a worker

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_columns": None, "_index": np.zeros(0, np.int64)}

    def _load(self, progress: Callable[[int, int], None] | None = None) -> Columns:
        if self._columns is None:
            where = source(self.source, self.teacher)
            columns = (mapped if self.cache == "mapped" else in_memory)(where, progress)
            self.teacher = columns.teacher
            chosen = np.ones(len(columns), bool) if self.split is None else columns.split == SPLITS.index(self.split)
            self._index, self._columns = np.flatnonzero(chosen), columns
        return self._columns

    def __len__(self) -> int:
        self._load()
        return len(self._index)

    @property
    def content_hash(self) -> Array:
        """Content hash of every sample, shape (S,), uint64: tells which samples these are."""
        return np.asarray(self._load().content_hash[self._index])

    @property
    def n_atoms(self) -> Array:
        """Atoms of every sample, shape (S,), int32: for samplers that bound the size of a batch."""
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
        """
        batch = self.joined(self.gathered(indices))
        return batch if self.transform is None else self.transform(batch)

    def gathered(self, indices: Sequence[int] | Array) -> Batch:
        """Return samples as one batch, as they are in the cache: without neighbours and transform."""
        columns = self._load()
        index = self._index[normalise_indices(np.asarray(indices), len(self._index))]
        atoms = int(columns.n_atoms[index].sum(dtype=np.int64))
        window = Window.empty(len(index), max(len(index), 1), atoms, columns, _REAL[self.dtype])
        window.fill(index, columns)
        out = {name: torch.from_numpy(array) for name, array in window.columns.items()}
        out["ptr"] = out["ptr"][0]
        return out

    def joined(self, batch: Batch) -> Batch:
        """Return a gathered batch with its neighbours, if they are wanted."""
        if self.neighbours is not None:
            from mlffstore.training.edges import edges

            batch["edge_index"], batch["shift"] = edges(batch, self.neighbours)
        return batch

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
        counts = torch.cat([item["n_atoms"] for item in items])
        special = {"batch", "ptr", "edge_index"}
        out = {name: torch.cat([item[name] for item in items]) for name in items[0] if name not in special}
        out["batch"] = torch.repeat_interleave(torch.arange(len(counts)), counts)
        out["ptr"] = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(counts, 0)])
        if "edge_index" in items[0]:
            sizes = torch.tensor([0, *(len(item["numbers"]) for item in items[:-1])]).cumsum(0)
            out["edge_index"] = torch.cat([item["edge_index"] + n for item, n in zip(items, sizes, strict=True)], dim=1)
        return out

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
        pin_memory: bool = False,
        device: torch.device | str | None = None,
    ) -> Loader:
        """Return an iterable over batches, in another order in each epoch; see `mlffstore.training.loader.Loader`."""
        from mlffstore.training.loader import Loader

        return Loader(
            self, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, threads=threads, rank=rank,
            world_size=world_size, pin_memory=pin_memory, device=device,
        )  # fmt: skip

    @staticmethod
    def stream(source: Any, split: str | None = "train", teacher: str | None = None, **options: Any) -> Stream:
        """Return an iterable over batches in bounded memory, without a cache; see `mlffstore.training.stream.Stream`."""
        from mlffstore.training.stream import Stream

        return Stream(source, split, teacher, **options)


def _pinned(source: Any) -> Any:
    """Return a snapshot where a store was given, so that all processes read one version, however it grows."""
    if isinstance(source, (str, os.PathLike)):
        from mlffstore.release import is_release

        if is_release(source):
            return os.fspath(source)
        from mlffstore.store import open as open_store

        source = open_store(source)
    return source.snapshot() if hasattr(source, "snapshot") else source


class Window:
    """Columns of one or several batches, filled in one call of a kernel.

    Its arrays can be larger than what is used, so that they serve again.
    """

    __slots__ = ("atoms", "batch_size", "columns", "n", "room")

    def __init__(self, columns: dict[str, Array], batch_size: int, n: int, atoms: int, room: int) -> None:
        self.columns, self.batch_size, self.n, self.atoms, self.room = columns, batch_size, n, atoms, room

    @classmethod
    def empty(cls, n: int, batch_size: int, atoms: int, like: Columns, real: Any, room: int | None = None) -> Window:
        """Return a window for `n` samples with room for so many atoms."""
        room = atoms if room is None else room
        columns = {
            "numbers": np.empty(room, np.int64),
            "positions": np.empty((room, 3), real),
            "batch": np.empty(room, np.int64),
            "ptr": np.empty((-(-n // batch_size), batch_size + 1), np.int64),
            "n_atoms": np.empty(n, np.int64),
            "energy": np.empty(n, np.float64),
            "cell": np.empty((n, 3, 3), real),
            "pbc": np.empty((n, 3), np.bool_),
            "charge": np.empty(n, np.int64),
            "multiplicity": np.empty(n, np.int64),
        }
        if like.has_forces:
            columns["forces"] = np.empty((room, 3), real)
        if like.has_stress:
            columns["stress"] = np.empty((n, 6), real)
        return cls(columns, batch_size, n, atoms, room)

    def fill(self, index: Array, source: Columns) -> None:
        """Copy the samples at `index`. The interpreter's lock is not held meanwhile."""
        from mlffstore.kernels import gather

        c, real = self.columns, self.columns["positions"].dtype
        nothing = np.zeros(0, real)
        gather(
            index, self.batch_size, source.begin, source.n_atoms, source.records, source.octets, source.rows,
            c["numbers"], c["positions"].reshape(-1), c["forces"].reshape(-1) if "forces" in c else nothing, c["batch"],
            c["ptr"], c["n_atoms"], c["energy"], c["cell"].reshape(-1, 9), c.get("stress", nothing.reshape(0, 6)),
            c["pbc"], c["charge"], c["multiplicity"],
        )  # fmt: skip
