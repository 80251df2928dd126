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


def fit(store, folder, steps=-1, model=None, checkpoint=None, epochs=None, batch_size=4, **options):
    """Train from a new module and return trainer and model."""
    from mlffstore.training.lightning import DataModule

    model = Model() if model is None else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints of Lightning about workers and logging
        trainer = lightning.Trainer(
            max_steps=steps, max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
            accelerator="cpu", default_root_dir=folder, enable_checkpointing="callbacks" in options, **options,
        )  # fmt: skip
        trainer.fit(model, datamodule=DataModule(store, batch_size, seed=5), ckpt_path=checkpoint, weights_only=False)
    return trainer, model


def expected(store, steps):
    batches = ml.TorchDataset(store, split="train").loader(batch_size=4, seed=5).endless()
    return [next(batches)["energy"].tolist() for _ in range(steps)]


def n_train(store):
    return len(ml.TorchDataset(store, split="train").loader(batch_size=4))


@pytest.mark.parametrize("steps", [3, 4, 6, 8])
def test_a_training_of_short_epochs_goes_on_by_steps(store, tmp_path, steps):
    """Stopped at the end of an epoch and in the middle of one, where each takes three batches."""
    _, whole = fit(store, tmp_path, 12, num_sanity_val_steps=0, limit_train_batches=3)
    trainer, _ = fit(store, tmp_path, steps, num_sanity_val_steps=0, limit_train_batches=3)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    _, rest = fit(
        store, tmp_path, 12, checkpoint=tmp_path / "stopped.ckpt", num_sanity_val_steps=0, limit_train_batches=3
    )
    assert rest.seen == whole.seen[steps:]


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


@pytest.mark.parametrize(
    "options", [{}, {"limit_train_batches": 3}, {"limit_val_batches": 0}, {"val_check_interval": 2}]
)
@pytest.mark.parametrize("every", ["epoch", "validation", "step"])
def test_a_training_goes_on_from_every_checkpoint_of_a_callback(store, tmp_path, every, options):
    """Saved at the ends of epochs, after validations and after each step, and once more when the training has ended."""
    which = {"epoch": {"save_on_train_epoch_end": True}, "validation": {"save_on_train_epoch_end": False},
             "step": {"every_n_train_steps": 1}}[every]  # fmt: skip
    _, whole = fit(store, tmp_path, epochs=4, num_sanity_val_steps=0, **options)
    saves = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path / "all", "{epoch}-{step}", save_top_k=-1, **which)
    trainer, half = fit(store, tmp_path, epochs=2, num_sanity_val_steps=0, callbacks=[saves], **options)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    assert half.seen == whole.seen[: len(half.seen)]
    files = [*sorted((tmp_path / "all").glob("*.ckpt"))[:: 3 if every == "step" else 1], tmp_path / "after.ckpt"]
    assert len(files) > (1 if "limit_val_batches" not in options or every != "validation" else 0)
    for file in files:
        steps = torch.load(file, weights_only=False)["global_step"]
        _, rest = fit(store, tmp_path, epochs=4, checkpoint=file, num_sanity_val_steps=0, **options)
        assert rest.seen == whole.seen[steps:], file.name


def test_an_epoch_begins_with_another_batch_size_too_and_is_not_left_in_the_middle(store, tmp_path):
    trainer, _ = fit(store, tmp_path, epochs=2)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    _, rest = fit(store, tmp_path, epochs=3, checkpoint=tmp_path / "end.ckpt", batch_size=6)
    order = ml.TorchDataset(store, split="train").loader(batch_size=6, seed=5)
    order.set_epoch(2)
    assert rest.seen == [batch["energy"].tolist() for batch in order]
    trainer, _ = fit(store, tmp_path, 2)
    trainer.save_checkpoint(tmp_path / "middle.ckpt")
    with pytest.raises(ml.errors.DataError, match="expected batch_size 6, got 4"):
        fit(store, tmp_path, epochs=3, checkpoint=tmp_path / "middle.ckpt", batch_size=6)


def test_a_checkpoint_that_is_loaded_for_a_validation_moves_no_training(store, tmp_path):
    from mlffstore.training.lightning import DataModule

    trainer, model = fit(store, tmp_path, epochs=3, num_sanity_val_steps=0)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    module, seen = DataModule(store, 4, seed=5), model.seen
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(max_epochs=1, logger=False, accelerator="cpu", enable_checkpointing=False)
        trainer.validate(model, module, ckpt_path=tmp_path / "a.ckpt", weights_only=False)
        model.seen = []
        trainer.fit(model, module)
    assert model.seen == seen[: n_train(store)]
