"""`Loader`: batches of a `TorchDataset` in the order of an epoch, gathered many at a time by threads, given out as views."""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlffstore.errors import DataError
from mlffstore.training.dataset import _REAL, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.schema import Array
    from mlffstore.training.dataset import Batch, TorchDataset

#: Samples gathered in one call, about: enough to hide the cost of a call, few enough for the processor's cache.
_WINDOW = 1024
#: Windows gathered beyond those that the threads work on.
_AHEAD = 2
#: Windows kept for reuse: fresh memory costs a page fault for every 4 KiB.
_SPARE = 6


class Loader:
    """Batches of a `TorchDataset`. Each iteration is one epoch; its order depends on (seed, epoch) alone.

    Parameters
    ----------
    dataset : TorchDataset
    batch_size : int
        Samples.
    shuffle : bool
    seed : int
    drop_last : bool
        Leave out the last batch if it is smaller.
    threads : int, optional
        Threads that gather ahead. The tensors of a batch are views of a window of several batches; its memory serves again
        when no view of it is held.
    rank, world_size : int, optional
        This process's share of every epoch, for distributed training: batch ``rank``, ``rank + world_size``, ... All ranks
        get equally many batches, so that up to ``world_size - 1`` batches at the end are left out.
    pin_memory : bool, optional
        Copy batches to pinned memory.
    device : torch.device or str, optional
        Copy batches to this device.

    Examples
    --------
    >>> state = loader.state_dict()  # doctest: +SKIP
    >>> loader.load_state_dict(state)  # the next iteration goes on with the next batch  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: TorchDataset,
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
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size: expected at least 1, got {batch_size}")
        if threads < 1:
            raise DataError(f"threads: expected at least 1, got {threads}")
        if not 0 <= rank < world_size:
            raise DataError(f"rank: expected 0 to {world_size - 1}, got {rank}")
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.drop_last, self.threads, self.rank, self.world_size = drop_last, threads, rank, world_size
        self.pin_memory, self.device = pin_memory, device
        self.epoch, self._done = 0, 0
        self._spare: list[Window] = []

    def __len__(self) -> int:
        n = len(self.dataset)
        batches = n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        return batches // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs, from its start."""
        self.epoch, self._done = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Return where the iteration is: epoch, and batches of it that were given out."""
        return {"epoch": self.epoch, "batches": self._done, "seed": self.seed, "batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another loader of the same data, seed and batch size was."""
        for name in ("seed", "batch_size"):
            if state[name] != getattr(self, name):
                raise DataError(f"load_state_dict: expected {name} {getattr(self, name)}, got {state[name]}")
        self.epoch, self._done = state["epoch"], state["batches"]

    def order(self, epoch: int | None = None) -> Array:
        """Return the samples of an epoch (of this one by default) and rank in order, shape (n,), int64."""
        n, seed = len(self.dataset), [self.seed, self.epoch if epoch is None else epoch]
        order = np.random.default_rng(seed).permutation(n) if self.shuffle else np.arange(n)
        if self.world_size > 1:
            size = self.batch_size
            mine = [
                order[k * size : (k + 1) * size] for k in range(self.rank, len(self) * self.world_size, self.world_size)
            ]
            return np.concatenate(mine) if mine else order[:0]
        return order[: len(self) * self.batch_size]

    def __iter__(self) -> Iterator[Batch]:
        return self._run(endless=False)

    def endless(self) -> Iterator[Batch]:
        """Return an iterator over epoch after epoch, for trainings that count iterations.

        The first batches of an epoch are gathered while the last ones of the epoch before it are used.
        """
        return self._run(endless=True)

    def _plan(self, endless: bool) -> Iterator[tuple[Array, bool]]:
        """Yield the samples of each window, and whether it is the last of its epoch."""
        epoch, done, step = self.epoch, self._done, self._step
        while True:
            order = self.order(epoch)
            for start in range(done * self.batch_size, len(order), step):
                yield order[start : start + step], start + step >= len(order)
            if not endless or not len(order):
                return
            epoch, done = epoch + 1, 0

    @property
    def _step(self) -> int:
        """Samples of a window: whole batches, and one alone where there are edges, which take much more room than atoms."""
        return self.batch_size * (1 if self.dataset.neighbours is not None else max(1, _WINDOW // self.batch_size))

    def _run(self, endless: bool) -> Iterator[Batch]:
        joined = self.dataset.neighbours is not None
        plan = self._plan(endless)
        waiting: deque[Any] = deque()
        transform = self.dataset.transform
        plain = transform is None and not self.pin_memory and self.device is None
        last = False
        with ThreadPoolExecutor(self.threads, thread_name_prefix="mlffstore-loader") as pool:

            def ahead() -> None:
                chosen, last = next(plan, (None, False))
                if chosen is not None:
                    waiting.append((pool.submit(self._join if joined else self._gather, chosen), last))

            for _ in range(self.threads + _AHEAD):
                ahead()
            while waiting:
                job, last = waiting.popleft()
                window, batches = job.result()
                ahead()
                for batch in batches or self._views(window):
                    self._done += 1
                    # Transforms run here, one after another, so that their random numbers come in one order.
                    yield batch if plain else self._ready(batch if transform is None else transform(batch))
                self._spare.append(window)
                del window
                if last:
                    self.epoch, self._done = self.epoch + 1, 0
        if not last:  # there was nothing left of this epoch
            self.epoch, self._done = self.epoch + 1, 0

    def _ready(self, batch: Batch) -> Batch:
        if self.pin_memory:
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        if self.device is not None:
            batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        return batch

    def _join(self, chosen: Array) -> tuple[Window, list[Batch]]:
        """Gather and find the neighbours, which takes longer than most models take for a step on a GPU."""
        window, _ = self._gather(chosen)
        return window, [self.dataset.joined(batch) for batch in self._views(window)]

    def _gather(self, chosen: Array) -> tuple[Window, list[Batch]]:
        columns = self.dataset._load()
        index = self.dataset._index[chosen]
        atoms = int(columns.n_atoms[index].sum(dtype=np.int64))
        window = self._take(len(index), atoms)
        window.fill(index, columns)
        return window, []

    def _take(self, n: int, atoms: int) -> Window:
        """Return a window that nobody looks at any more, or a new one."""
        for _ in range(len(self._spare)):
            try:
                window = self._spare.pop(0)
            except IndexError:  # another thread took it
                break
            # The dictionary and getrefcount's argument; a tensor that is a view would be one more.
            free = all(sys.getrefcount(array) <= 3 for array in window.columns.values())
            if (
                free
                and window.room >= atoms
                and len(window.columns["n_atoms"]) >= n
                and window.batch_size == self.batch_size
            ):
                window.n, window.atoms = n, atoms
                return window
            if not free and len(self._spare) < _SPARE:
                self._spare.append(window)
        columns, real = self.dataset._load(), _REAL[self.dataset.dtype]
        window = Window.empty(max(n, self._step), self.batch_size, atoms, columns, real, atoms + atoms // 4)
        window.n = n
        return window

    def _views(self, window: Window) -> Iterator[Batch]:
        """Cut a window into batches without copying, each column in one call."""
        size, n, atoms = self.batch_size, window.n, window.atoms
        full, rest = divmod(n, size)
        ends = window.columns["ptr"]
        sizes = ends[:full, size].tolist() + ([int(ends[full, rest])] if rest else [])
        columns = {}
        for name, array in window.columns.items():
            tensor = torch.from_numpy(array)
            if name == "ptr":
                rows = list(tensor[: len(sizes)].unbind(0))
                if rest:
                    rows[-1] = rows[-1][: rest + 1]
                columns[name] = rows
            else:
                cut = torch.split(tensor[:atoms], sizes) if name in window.atom else torch.split(tensor[:n], size)
                columns[name] = list(cut)
        for parts in zip(*columns.values(), strict=True):
            yield dict(zip(columns, parts, strict=True))
