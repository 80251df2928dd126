"""Lightning trains on our DataModule: sanity checks, reloaded loaders and checkpoints change no epoch."""

from __future__ import annotations

import warnings

import pytest
import torch

import mlffstore as ml
from tests.samples import mixed_frames

lightning = pytest.importorskip("lightning")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("lightning") / "d.zarr", splits={"train": 0.7, "val": 0.3, "test": 0})
    store.append(mixed_frames(60), teacher="emt")
    return store


class Model(lightning.LightningModule):
    """Energies of the elements; writes down which energies it saw."""

    def __init__(self):
        super().__init__()
        self.energy = torch.nn.Embedding(119, 1, dtype=torch.float64)
        self.seen, self.validated = [], []

    def training_step(self, batch, _):
        self.seen.append(batch["energy"].tolist())
        atoms = self.energy(batch["numbers"])[:, 0]
        total = torch.zeros(len(batch["energy"]), dtype=torch.float64).index_add(0, batch["batch"], atoms)
        return ((total - batch["energy"]) / batch["n_atoms"]).square().mean()

    def on_validation_epoch_start(self):
        self.validated.append([])

    def validation_step(self, batch, _):
        self.validated[-1] += batch["energy"].tolist()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)


def fit(store, folder, steps, model=None, checkpoint=None, **options):
    """Train from a new module and return trainer and model."""
    from mlffstore.training.lightning import DataModule

    model = Model() if model is None else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints of Lightning about workers and logging
        trainer = lightning.Trainer(
            max_steps=steps, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
            default_root_dir=folder, enable_checkpointing=False, **options,
        )  # fmt: skip
        trainer.fit(model, datamodule=DataModule(store, batch_size=4, seed=5), ckpt_path=checkpoint)
    return trainer, model


def expected(store, steps):
    batches = ml.TorchDataset(store, split="train").loader(batch_size=4, seed=5).endless()
    return [next(batches)["energy"].tolist() for _ in range(steps)]


def n_train(store):
    return len(ml.TorchDataset(store, split="train").loader(batch_size=4))


@pytest.mark.parametrize("done", [2, 0, -1])
def test_a_training_goes_on_from_a_checkpoint(store, tmp_path, done):
    """Stopped in the second epoch, between two epochs, and with one batch to go."""
    first = n_train(store) + done
    trainer, model = fit(store, tmp_path, first, num_sanity_val_steps=0)
    assert model.seen == expected(store, first)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    _, rest = fit(store, tmp_path, first + 9, checkpoint=tmp_path / "stopped.ckpt", num_sanity_val_steps=0)
    assert rest.seen == expected(store, first + 9)[first:]


def test_the_validation_after_the_sanity_check_is_whole(store, tmp_path):
    _, model = fit(store, tmp_path, 2 * n_train(store), num_sanity_val_steps=2)
    val = ml.TorchDataset(store, split="val")
    whole = val.batch(range(len(val)))["energy"].tolist()
    assert len(whole) > 8
    assert model.validated == [whole[:8], whole, whole]


def test_loaders_that_are_reloaded_go_on(store, tmp_path):
    _, model = fit(store, tmp_path, 3 * n_train(store), num_sanity_val_steps=0, reload_dataloaders_every_n_epochs=1)
    assert model.seen == expected(store, 3 * n_train(store))
    _, model = fit(store, tmp_path, 9, num_sanity_val_steps=0, limit_train_batches=3)
    order = ml.TorchDataset(store, split="train").loader(batch_size=4, seed=5)
    whole = [[batch["energy"].tolist() for batch in order] for _ in range(3)]
    assert model.seen == [batch for batches in whole for batch in batches[:3]]
