"""A Lightning DataModule over the splits of a store or a release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.errors import missing_dependency
from mlffstore.training.dataset import TorchDataset
from mlffstore.training.loader import Loader

try:
    from lightning import LightningDataModule
except ImportError as _error:
    raise missing_dependency("lightning", "lightning", "DataModule") from _error
if TYPE_CHECKING:
    from collections.abc import Callable


class TrainLoader(Loader):
    """The loader of the split train, whose state knows when Lightning has had all batches that it takes of an epoch."""

    #: Returns the number of batches that Lightning takes of an epoch, infinite where it is not known.
    per_epoch: Callable[[], float]

    def state_dict(self) -> dict[str, Any]:
        """Return the place at which the training goes on: with `limit_train_batches`, epochs end before the loader's do."""
        state = super().state_dict()
        if 0 < state["batches"] >= self.per_epoch():
            state |= {"epoch": state["epoch"] + 1, "batches": 0}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a place; at the start of an epoch also with other samples, batch sizes and processes."""
        own = super().state_dict()
        super().load_state_dict(own | {"epoch": state["epoch"], "batches": 0} if state.get("batches") == 0 else state)


class DataModule(LightningDataModule):  # type: ignore[misc]
    """Loaders of the splits train, val and test for a Lightning Trainer.

    Parameters
    ----------
    source : path, URL, Store or Snapshot
        A store, or a release.
    batch_size : int, optional
    teacher : str, optional
        Teacher whose labels are used. It is required if there are several.
    seed : int, optional
        Seed of the order of the split train.
    **options
        Options of `TorchDataset`: ``dtype``, ``transform``, ``neighbours``, ``require``, ``columns``, ``cache``.

    Notes
    -----
    In distributed training each process takes its share of the batches by itself: make the Trainer with
    ``use_distributed_sampler=False``. All processes get equally many batches, and every sample comes in one of them, see
    `mlffstore.training.loader.Loader`. The place of the training is part of Lightning's checkpoints, also of those at the
    end of an epoch, where Lightning does not keep the states of loaders: a resumed training has the batches of one that was
    not interrupted.
    """

    def __init__(
        self, source: Any, batch_size: int = 32, teacher: str | None = None, *, seed: int = 0, **options: Any
    ) -> None:
        super().__init__()
        self.source, self.batch_size, self.teacher, self.seed, self.options = source, batch_size, teacher, seed, options
        self._loaders: dict[tuple[str, int, int], Loader] = {}
        self._train: Loader | None = None
        #: The place of a checkpoint, until the loader is asked for.
        self._place: dict[str, Any] = {}

    def _loader(self, split: str, shuffle: bool) -> Loader:
        """Return the loader of a split, the same one each time: a new one would begin with the order of the first epoch."""
        rank, size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        key = split, rank, size
        if key not in self._loaders:
            data = TorchDataset(self.source, split=split, teacher=self.teacher, **self.options)
            kind = TrainLoader if split == "train" else Loader
            loader = kind(data, self.batch_size, shuffle=shuffle, seed=self.seed, rank=rank, world_size=size)
            if isinstance(loader, TrainLoader):
                loader.per_epoch = self._batches_per_epoch
            self._loaders[key] = loader
        return self._loaders[key]

    def _batches_per_epoch(self) -> float:
        return float(self.trainer.num_training_batches) if self.trainer is not None else float("inf")

    def state_dict(self) -> dict[str, Any]:
        """Return the place of the training for Lightning's checkpoint; nothing before there is one."""
        return self._place if self._train is None else self._train.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training go on at the place of a checkpoint; one that is loaded for a validation changes nothing."""
        if self.trainer is None or self.trainer.state.fn == "fit":
            self._place = dict(state_dict)

    def train_dataloader(self) -> Any:
        """Return the loader of the split train, at the place of the checkpoint that was loaded."""
        self._train = self._loader("train", True)
        place, self._place = self._place, {}
        if place:
            self._train.load_state_dict(place)
        return self._train

    def val_dataloader(self) -> Any:
        """Return the loader of the split val."""
        return self._loader("val", False)

    def test_dataloader(self) -> Any:
        """Return the loader of the split test."""
        return self._loader("test", False)

    def predict_dataloader(self) -> Any:
        """Return the loader of the split test."""
        return self._loader("test", False)
