"""Several datasets in one stock DataLoader: a label that one of them lacks is masked, whatever the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader

import mlffstore as ml
from mlffstore.errors import DataError

OPTIONS = {"split": None, "properties": ("energy", "forces", "charges")}


def dataset(path, sizes, gaps=(), extra=None, **options):
    """Return a dataset of some samples; `gaps` are (name, sample) of missing labels."""
    n_atoms, atoms = np.array(sizes), sum(sizes)
    rng = np.random.default_rng(atoms)
    labels = {
        "energy": -1.0 - np.arange(len(sizes)),
        "forces": 1 + rng.random((atoms, 3)),
        "charges": 1 + rng.random(atoms),
    }
    for name, sample in gaps:
        labels[name][sample if name == "energy" else np.repeat(np.arange(len(sizes)) == sample, n_atoms)] = np.nan
    store = ml.create(path)
    batch = ml.SampleBatch(
        n_atoms=n_atoms, numbers=[2] * atoms, positions=rng.random((atoms, 3)), multiplicity=[1] * len(sizes),
        labels={"t": labels}, extra=extra or {},
    )  # fmt: skip
    store.append(batch, require=())
    return ml.TorchDataset(store, **OPTIONS | options)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 2)])
def test_a_mask_that_one_dataset_lacks_is_true_for_its_samples(caches, tmp_path, sizes, reverse):
    """With single atoms too, where a row per atom looks like a row per sample."""
    per_atom, per_sample = np.arange(sum(sizes), dtype=float), np.arange(len(sizes), dtype=float)
    whole = {"q": (per_atom + 5, "1", "atom"), "w": (per_sample + 5, "1", "sample")}
    holes = {"q": (np.where(per_atom == 1, np.nan, per_atom + 5), "1", "atom"),
             "w": (np.where(per_sample == 1, np.nan, per_sample + 5), "1", "sample")}  # fmt: skip
    gaps = [("energy", 1), ("forces", 0), ("charges", 0)]
    parts = [dataset(tmp_path / "a", (3, 2), extra={k: (v[0].repeat(2)[: 5 if v[2] == "atom" else 2], *v[1:])
                                                     for k, v in whole.items()}),
             dataset(tmp_path / "b", sizes, gaps, holes)]  # fmt: skip
    parts = parts[::-1] if reverse else parts
    batch = next(iter(DataLoader(ConcatDataset(parts), batch_size=9)))
    single = [part.batch(range(len(part))) for part in parts]
    for name in ("energy", "forces", "charges", "q", "w"):
        assert torch.equal(batch[name], torch.cat([one[name] for one in single])), name
        per_row = batch["batch"] if name in ("forces", "charges") else slice(None)
        assert torch.equal(
            batch[f"{name}_mask"][per_row].reshape(-1), (batch[name].reshape(len(batch[name]), -1) != 0).all(1)
        )


def test_datasets_with_other_columns_are_refused_in_words(caches, tmp_path):
    one = dataset(tmp_path / "a", (1, 2))
    others = {
        "edge_index, shift": dataset(tmp_path / "b", (1, 2), neighbours=2.0),
        "charges": dataset(tmp_path / "c", (1, 2), properties=("energy", "forces")),
        "flag_mask, weight": dataset(
            tmp_path / "d", (1, 2), extra={"flag_mask": ([1, 0], "1", "sample"), "weight": ([1.0, 2], "1", "sample")}
        ),
    }
    for names, other in others.items():
        for parts in ([one, other], [other, one]):
            with pytest.raises(DataError, match=f"expected batches of the same names, got {names} in some"):
                next(iter(DataLoader(ConcatDataset(parts), batch_size=9)))


@pytest.mark.parametrize("unit", ["eV", "meV"])
def test_columns_in_two_units_are_not_joined(tmp_path, unit):
    def made(name, unit):
        store = ml.create(tmp_path / name)
        gap = {"gap": ([1.0], unit, "sample")}
        store.append(
            ml.SampleBatch(n_atoms=[1], numbers=[1], positions=[[0, 0, 0]], energy=[0.0], forces=[[0, 0, 0]], extra=gap)
        )
        return ml.TorchDataset(store, split=None)

    both = torch.utils.data.ConcatDataset([made("a", "eV"), made("b", unit)])
    loader = torch.utils.data.DataLoader(both, batch_size=2)
    if unit == "eV":
        assert next(iter(loader))["gap"].tolist() == [1.0, 1.0]
    else:
        with pytest.raises(DataError, match="expected gap in 'eV' as in the datasets before, got 'meV'"):
            next(iter(loader))
