"""A Lightning DataModule over the splits of a store or a release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.errors import missing_dependency
from mlffstore.training.dataset import TorchDataset

try:
    from lightning import LightningDataModule
except ImportError as _error:
    raise missing_dependency("lightning", "lightning", "DataModule") from _error


if TYPE_CHECKING:
    from mlffstore.training.loader import Loader


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
    `mlffstore.training.loader.Loader`. Where the training was interrupted is part of Lightning's checkpoints.
    """

    def __init__(
        self, source: Any, batch_size: int = 32, teacher: str | None = None, *, seed: int = 0, **options: Any
    ) -> None:
        super().__init__()
        self.source, self.batch_size, self.teacher, self.seed, self.options = source, batch_size, teacher, seed, options
        self._loaders: dict[tuple[str, int, int], Loader] = {}

    def _loader(self, split: str, shuffle: bool) -> Loader:
        """Return the loader of a split, the same one each time: a new one would begin with the order of the first epoch."""
        trainer = getattr(self, "trainer", None)
        rank, size = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        key = split, rank, size
        if key not in self._loaders:
            data = TorchDataset(self.source, split=split, teacher=self.teacher, **self.options)
            self._loaders[key] = data.loader(
                self.batch_size, shuffle=shuffle, seed=self.seed, rank=rank, world_size=size
            )
        return self._loaders[key]

    def train_dataloader(self) -> Any:
        """Return the loader of the split train; Lightning keeps its place, as it has a `state_dict`."""
        return self._loader("train", True)

    def val_dataloader(self) -> Any:
        """Return the loader of the split val."""
        return self._loader("val", False)

    def test_dataloader(self) -> Any:
        """Return the loader of the split test."""
        return self._loader("test", False)

    def predict_dataloader(self) -> Any:
        """Return the loader of the split test."""
        return self._loader("test", False)
