"""Batches of bounded size: their number is the same in every epoch, and no sample is lost or given twice."""

from __future__ import annotations

import copy
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mlffstore.errors import DataError
from mlffstore.training.samplers import AtomBudget

RNG = np.random.default_rng(11)
#: Atoms of samples, and atoms of a batch: with much waste and little, equal sizes, sizes that all differ, few samples, none.
CASES = {
    "small": (RNG.integers(1, 7, 1421), 11),
    "two": (np.where(RNG.random(900) < 0.5, 5, 6), 11),
    "far": (np.where(RNG.random(900) < 0.5, 3, 90), 128),
    "different": (RNG.permutation(np.arange(50, 450)), 450),
    "equal": (np.full(100, 4), 16),
    "single": (np.full(7, 9), 9),
    "few": (np.array([2, 1]), 3),
    "none": (np.zeros(0, int), 3),
}


def sampler(case, **options):
    sizes, max_atoms = CASES[case]
    return AtomBudget(SimpleNamespace(n_atoms=sizes.astype(np.int32)), max_atoms, **options)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_every_epoch_has_the_same_number_of_batches(case, world_size, shuffle):
    sizes, max_atoms = CASES[case]
    ranks = [sampler(case, seed=5, shuffle=shuffle, rank=r, world_size=world_size) for r in range(world_size)]
    length, seen = {len(rank) for rank in ranks}, set()
    assert len(length) == 1
    for epoch in range(40):
        if epoch == 20:
            for rank in ranks:
                rank.set_epoch(20)
        shares = []
        for rank in ranks:
            shares.append([])
            for batch in rank:
                shares[-1].append(batch)
                assert {len(rank)} == length  # also while an epoch is under way
        assert {len(share) for share in shares} == length
        batches = [batch for share in shares for batch in share]
        assert all(batch and sizes[batch].sum() <= max_atoms for batch in batches)
        samples = [sample for batch in batches for sample in batch]
        assert set(samples) == set(range(len(sizes)))
        assert len(samples) == len(sizes) or len(sizes) < world_size * next(iter(length))
        seen.add(tuple(map(tuple, batches)))
    assert len(seen) == (40 if shuffle and len(sizes) > 10 else len(seen))
    if not shuffle and world_size == 1:
        assert samples == list(range(len(sizes)))


def test_few_batches_are_divided_and_none_is_dropped_without_being_told():
    for case in ("small", "two", "far", "different"):
        sizes, max_atoms = CASES[case]
        counts = [len(AtomBudget(SimpleNamespace(n_atoms=sizes), max_atoms, seed=s)) for s in range(5)]
        waste = np.mean([len(sampler(case, seed=s)._packed(sampler(case, seed=s)._drawn(RNG))) for s in range(5)])
        assert np.mean(counts) < 1.02 * waste + 2
        dropped = sampler(case, drop_last=True, world_size=4)
        lost = [len(sizes) - sum(len(b) for b in dropped._batches(e)) for e in range(30)]
        assert {len(dropped._batches(e)) for e in range(30)} == {4 * len(dropped)}
        assert max(lost) <= 3 * max_atoms / sizes.min()


def test_an_epoch_that_needs_more_batches_gives_every_sample_once():
    """The number is made one that most epochs exceed."""
    for case in ("small", "two", "different"):
        sizes, max_atoms = CASES[case]
        one = sampler(case)
        one._n_batches = len(one._packed(one._drawn(np.random.default_rng([0, 0]))))
        seen = set()
        for epoch in range(10):
            batches = one._batches(epoch)
            assert len(batches) == one._n_batches
            assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(len(sizes)))
            assert max(sizes[batch].sum() for batch in batches) <= max_atoms
            seen.add(tuple(np.concatenate(batches).tolist()))
        assert len(seen) == 10


def test_an_epoch_begins_with_its_first_batch():
    one = sampler("small")
    iter(one), iter(one)
    first = next(iter(one))
    assert first == next(iter(copy.copy(sampler("small"))))
    assert one.epoch == 1
    assert pickle.loads(pickle.dumps(one)).epoch == 1
    one.set_epoch(0)
    assert first == next(iter(one))


class Numbers(Dataset):
    """Samples that are their numbers."""

    n_atoms = CASES["small"][0]

    def __len__(self):
        return len(self.n_atoms)

    def __getitem__(self, k):
        return torch.tensor(k)


def test_lightning_sees_every_sample_of_every_epoch_and_goes_on_with_the_next(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen = []

        def on_train_epoch_start(self):
            self.seen.append([])

        def training_step(self, batch, _):
            self.seen[-1] += batch.tolist()
            return self.weight.square().sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(epochs, checkpoint=None):
        data, model = Numbers(), Model()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints of Lightning about workers and logging
            trainer = lightning.Trainer(
                max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
                default_root_dir=tmp_path, enable_checkpointing=False,
            )  # fmt: skip
            trainer.fit(model, DataLoader(data, batch_sampler=AtomBudget(data, 11)), ckpt_path=checkpoint)
        return trainer, model

    _, whole = fit(4)
    assert [sorted(epoch) for epoch in whole.seen] == [list(range(1421))] * 4
    trainer, first = fit(2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    _, rest = fit(4, tmp_path / "a.ckpt")
    assert first.seen + rest.seen == whole.seen


def test_a_sample_larger_than_a_batch_is_refused():
    with pytest.raises(DataError, match="expected at least 6, the largest sample, got 5"):
        AtomBudget(SimpleNamespace(n_atoms=np.array([1, 6])), 5)
