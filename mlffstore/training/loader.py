"""`Loader`: batches of a `TorchDataset` in the order of an epoch, gathered many at a time by threads, given out as views."""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from mlffstore.data.casting import integer
from mlffstore.data.ragged import offsets
from mlffstore.errors import DataError
from mlffstore.training.batch import REAL
from mlffstore.training.shares import check_rank, n_batches, share
from mlffstore.training.window import Window, WindowPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.training.batch import Batch
    from mlffstore.training.columns import Columns

#: Samples gathered in one call, about: enough to hide the cost of a call, few enough for the processor's cache.
_WINDOW = 1024
#: Windows gathered beyond those that the threads work on.
_AHEAD = 2
#: Windows that are kept for reuse while their batches are in use.
_SPARE = 6
#: Entries of a state that must equal those of the loader that continues from it. The rank is not one of them: all ranks are
#: at the same place, and often only one of them saves it.
_SAME = ("batch_size", "seed", "shuffle", "drop_last", "world_size", "samples", "digest")


class LoadableDataset(Protocol):
    """What a `Loader` needs of a dataset. `TorchDataset` has it; see there for what the members mean."""

    dtype: torch.dtype
    transform: Callable[[Batch], Batch] | None
    neighbours: float | None
    title: str

    def __len__(self) -> int: ...

    @property
    def digest(self) -> str:
        """Digest of the samples, in order."""

    def load(self) -> tuple[Columns, Array]:
        """Return the decoded samples of all splits, and which of them are the dataset's."""

    def joined(self, batch: Batch) -> Batch:
        """Return a gathered batch with its neighbours."""


@dataclass(slots=True)
class _Place:
    """The place of an iteration: the epoch, and the number of its batches that were given out."""

    epoch: int = 0
    batches: int = 0


class Loader:
    """Batches of a `TorchDataset`. Each iteration is one whole epoch; its order depends on (seed, epoch) alone.

    Parameters
    ----------
    dataset : TorchDataset
        The samples.
    batch_size : int, optional
        Number of samples in a batch, 32 by default.
    shuffle : bool, optional
        Whether each epoch has another random order (default), or all have the order of the dataset.
    seed : int, optional
        Seed of the order, 0 by default.
    drop_last : bool, optional
        Whether the samples at the end that do not fill a batch of every rank are left out. By default they are not.
    threads : int, optional
        Number of threads that gather batches ahead, 2 by default. The tensors of a batch are views of a window of several
        batches, whose memory is used again when no view of it is held.
    rank, world_size : int, optional
        This process's share of every epoch, for distributed training and validation: the batches ``rank``,
        ``rank + world_size``, and so on. All ranks get the same number of batches, and each sample is in one batch of one
        rank; therefore the last one or two batches are smaller. With fewer samples than ranks, or with ``batch_size=1``,
        some samples occur twice in an epoch, as with `torch.utils.data.DistributedSampler`.
    pin_memory : bool, optional
        Whether batches are copied to pinned memory. By default those for a CUDA device are: a copy from other memory waits
        until the device has done all that it was given before.
    device : torch.device or str, optional
        Device to which batches are copied. By default they stay in the memory of the CPU.

    Notes
    -----
    Each iteration runs the next epoch from its start, also if the iteration before it was left early. An iteration begins
    when its first batch is requested. Several iterations can run at the same time; the state is that of the one that began
    last. After `load_state_dict` only the next iteration continues at the place of the state.

    Examples
    --------
    >>> state = loader.state_dict()  # doctest: +SKIP
    >>> loader.load_state_dict(state)  # the next iteration goes on with the next batch  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: LoadableDataset,
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
    ) -> None:
        self.dataset, self.batch_size, self.shuffle = dataset, integer("batch_size", batch_size, least=1), shuffle
        self.seed, self.threads = integer("seed", seed, least=0), integer("threads", threads, least=1)
        self.drop_last = drop_last
        self.rank, self.world_size = check_rank(rank, world_size)
        #: Samples for which a batch has room: no more than there are.
        self._room = max(1, min(self.batch_size, len(dataset)))
        on_cuda = device is not None and torch.device(device).type == "cuda"
        self.pin_memory, self.device = on_cuda if pin_memory is None else pin_memory, device
        self._next = self._place = _Place()
        self._pool = WindowPool(_SPARE)

    def __len__(self) -> int:
        return n_batches(len(self.dataset), self.batch_size, self.world_size, drop_last=self.drop_last)

    # -- the place -----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration runs; that of the one under way is in `state_dict`."""
        return self._next.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, which runs from its start or from the place of a state just loaded."""
        if epoch != self._next.epoch:
            self._next = _Place(integer("epoch", epoch, least=0))
        self._place = self._next

    def state_dict(self) -> dict[str, Any]:
        """Return the place of the iteration that began last, and the settings that a loader must have to continue there.

        Returns
        -------
        dict
            Integers, booleans and strings: ``epoch`` and the number of its ``batches`` that were given out; ``batch_size``,
            ``seed``, ``shuffle``, ``drop_last``, ``world_size``; ``samples`` and their ``digest``; ``source`` for
            messages.
        """
        place = {"epoch": self._place.epoch, "batches": self._place.batches}
        return {**place, **self._identity(), "source": self.dataset.title}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration continue where another loader stopped, on this rank or another.

        Raises
        ------
        DataError
            If the samples, their number, `batch_size`, `seed`, `shuffle`, `drop_last` or `world_size` differ from those of
            the state; the place does not change.
        """
        lacking = [name for name in ("epoch", "batches", *_SAME) if name not in state]
        if lacking:
            raise DataError(f"load_state_dict: expected the state of a Loader, got one without {', '.join(lacking)}")
        identity = self._identity()
        wrong = [
            f"expected {name} {identity[name]}, got {state[name]}" for name in _SAME if identity[name] != state[name]
        ]
        if wrong:
            raise DataError(
                f"load_state_dict: {'; '.join(wrong)}. The state is of {state.get('source', 'another dataset')}, and this "
                f"loader reads {self.dataset.title}: make the dataset and the loader as they were, of a store with "
                "TorchDataset(ml.open(...).snapshot(version=...)), or start from the beginning"
            )
        epoch, batches = int(state["epoch"]), int(state["batches"])
        if epoch < 0 or not 0 <= batches <= len(self):
            raise DataError(f"load_state_dict: expected 0 to {len(self)} batches of an epoch, got {batches} of {epoch}")
        self._next = self._place = _Place(epoch, batches) if batches < len(self) else _Place(epoch + 1)

    def _identity(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size, "seed": self.seed, "shuffle": self.shuffle, "drop_last": self.drop_last,
            "world_size": self.world_size, "samples": len(self.dataset), "digest": self.dataset.digest,
        }  # fmt: skip

    def _begin(self) -> _Place:
        """Return the place of a new iteration."""
        place = self._place = self._next
        self._next = _Place(place.epoch + 1)
        return place

    def _ended(self, place: _Place, *, endless: bool) -> None:
        """Move the place of an iteration to the start of the next epoch, which an endless one begins."""
        place.epoch, place.batches = place.epoch + 1, 0
        if endless and self._place is place:
            self._next = _Place(place.epoch + 1)

    # -- batches -------------------------------------------------------------------------------------------------

    def order(self, epoch: int | None = None) -> Array:
        """Return the samples of an epoch (of the next one by default) and this rank in order, shape (n,), int64."""
        return self._share(self.epoch if epoch is None else epoch)[0]

    def _share(self, epoch: int) -> tuple[Array, Ints]:
        n = len(self.dataset)
        order = np.random.default_rng([self.seed, epoch]).permutation(n) if self.shuffle else np.arange(n)
        return share(order, self.batch_size, rank=self.rank, world_size=self.world_size, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        return self._run(endless=False)

    def endless(self) -> Iterator[Batch]:
        """Return an iterator over epoch after epoch, for trainings that count iterations.

        The first batches of an epoch are gathered while the last ones of the epoch before it are used.
        """
        return self._run(endless=True)

    def _plan(self, epoch: int, done: int, endless: bool) -> Iterator[tuple[Array, bool]]:
        """Yield the samples of each window, and whether it is the last of its epoch.

        A window has batches of one size, but for the last one.
        """
        while True:
            order, sizes = self._share(epoch)
            ends = offsets(sizes).tolist()
            full = int(np.count_nonzero(sizes == self.batch_size))
            while done < len(sizes):
                stop = min(done + self._batches_per_window, full) if done < full else done + 1
                yield order[ends[done] : ends[stop]], stop == len(sizes)
                done = stop
            if not endless or not len(sizes):
                return
            epoch, done = epoch + 1, 0

    @property
    def _batches_per_window(self) -> int:
        """Batches of a window: one alone where there are edges, which take much more room than atoms."""
        return 1 if self.dataset.neighbours is not None else max(1, _WINDOW // self.batch_size)

    def _run(self, *, endless: bool) -> Iterator[Batch]:
        place = self._begin()  # at the first batch: an iterator that is made and not used is no iteration
        joined = self.dataset.neighbours is not None
        plan = self._plan(place.epoch, place.batches, endless)
        waiting: deque[Any] = deque()
        plain = self.dataset.transform is None and not self.pin_memory and self.device is None
        last = False
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="mlffstore-loader")
        exiting = sys.is_finalizing  # a local name: modules are cleared before an iterator that a script left behind
        try:

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
                    # Transforms run here, one after another, so that their random numbers come in one order.
                    yield self._counted(batch if plain else self._ready(batch), place)
                self._pool.put(window)
                del window
                if last:
                    self._ended(place, endless=endless)
        finally:
            if not exiting():  # the threads have ended then
                pool.shutdown(cancel_futures=True)
        if not last:  # there is nothing in an epoch
            self._ended(place, endless=False)

    def _pinned(self, batch: Batch) -> Batch:
        if not self.pin_memory:
            return batch
        if not isinstance(batch, dict):  # what a transform made, such as a batch of PyTorch Geometric
            return batch.pin_memory()
        return {name: tensor.pin_memory() for name, tensor in batch.items()}

    @staticmethod
    def _counted(batch: Batch, place: _Place) -> Batch:
        """Count a batch that is given out: one whose transform or copy failed is not."""
        place.batches += 1
        return batch

    def _ready(self, batch: Batch) -> Batch:
        if self.dataset.transform is not None:
            batch = self.dataset.transform(batch)
        batch = self._pinned(batch)  # what is pinned already stays as it is
        if self.device is not None and not isinstance(batch, dict):
            return batch.to(self.device, non_blocking=True)
        if self.device is not None:
            batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        return batch

    def _join(self, chosen: Array) -> tuple[Window, list[Batch]]:
        """Gather and find the neighbours, which takes longer than most models take for a step on a GPU."""
        window, _ = self._gather(chosen)
        batches = [self.dataset.joined(batch) for batch in self._views(window)]
        # Here and not in `_ready`, so that the copy is made beside the training; a transform may still want numpy's memory.
        return window, batches if self.dataset.transform is not None else [self._pinned(batch) for batch in batches]

    def _gather(self, chosen: Array) -> tuple[Window, list[Batch]]:
        columns, which = self.dataset.load()
        index = which[chosen]
        atoms = int(columns.n_atoms[index].sum(dtype=np.int64))
        window = self._take(len(index), atoms)
        window.fill(index, columns)
        return window, []

    def _take(self, n: int, atoms: int) -> Window:
        """Return a window for `n` samples and so many atoms: one that nothing uses any more, or a new one."""
        window = self._pool.take(n, atoms, self._room)
        if window is None:
            columns, real = self.dataset.load()[0], REAL[self.dataset.dtype]
            room = max(n, self._room * self._batches_per_window)
            window = Window.empty(room, self._room, atoms, columns, real, atoms + atoms // 4)
            window.n = n
        return window

    def _views(self, window: Window) -> Iterator[Batch]:
        """Cut a window into batches without copying, each column in one call."""
        size = self._room
        full, rest = divmod(window.n, size)
        ends = window.columns["ptr"]
        sizes = ends[:full, size].tolist() + ([int(ends[full, rest])] if rest else [])
        columns = {}
        for name, array in window.lend().items():
            tensor = torch.from_numpy(array)
            if name == "ptr":
                columns[name] = tensor.unbind(0)
                if rest:
                    columns[name] = (*columns[name][:-1], columns[name][-1][: rest + 1])
            else:
                columns[name] = torch.split(tensor, sizes if name in window.atom else size)
        for parts in zip(*columns.values(), strict=True):
            yield dict(zip(columns, parts, strict=True))
