"""Batches on a device as a whole, in PyTorch Geometric, and in a Lightning training."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.training.pyg import ToPyG, to_data
from mlffstore.training.resident import Resident
from mlffstore.training.transforms import Compose, Normalise, RandomRotation, ReferenceEnergy
from tests.samples import mixed_frames


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("adapters") / "d.zarr")
    store.append(mixed_frames(60), teacher="emt")
    return store


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(torch.nan_to_num(a[k]), torch.nan_to_num(b[k])) for k in a)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_resident_batches_are_the_dataset_s(store, device):
    energies = dict.fromkeys(range(1, 100), -1.5)
    data = ml.TorchDataset(store, split="train", transform=Compose(ReferenceEnergy(energies), Normalise(0.5, 2.0)))
    resident = Resident(data, device, batch_size=7)
    index = [5, 0, 0, 11]
    found = {k: v.cpu() for k, v in resident.batch(torch.tensor(index, device=device)).items()}
    assert same(found, data.batch(index))
    seen = torch.cat([batch["energy"].cpu() for batch in resident])
    again = torch.cat([batch["energy"].cpu() for batch in resident])
    assert len(resident) == -(-len(data) // 7)
    assert not torch.equal(seen, again)
    assert torch.equal(seen.sort().values, data.batch(range(len(data)))["energy"].sort().values)
    resident.set_epoch(0)
    assert torch.equal(seen, torch.cat([batch["energy"].cpu() for batch in resident]))
    turned = Resident(ml.TorchDataset(store, split="train", transform=RandomRotation()), device).batch(
        torch.tensor(index, device=device)
    )
    assert torch.allclose(turned["forces"].norm(dim=1).cpu(), 2.0 * data.batch(index)["forces"].norm(dim=1), atol=1e-4)
    with pytest.raises(DataError, match="without neighbours"):
        Resident(ml.TorchDataset(store, neighbours=4.0), device)


def test_neighbours_found_ahead_are_those_of_the_batch(store):
    data = ml.TorchDataset(store, split="train", neighbours=4.0)
    loader = data.loader(batch_size=8, seed=1)
    order = loader.order()
    for k, batch in enumerate(loader):
        assert same(batch, data.batch(order[8 * k : 8 * k + 8]))
    assert k == len(loader) - 1


def test_pyg(store):
    geometric = pytest.importorskip("torch_geometric")
    data = ml.TorchDataset(store, split="train", neighbours=4.0, transform=Compose(Normalise(0.0, 2.0), ToPyG()))
    plain = ml.TorchDataset(store, split="train", neighbours=4.0, transform=Normalise(0.0, 2.0)).batch([3, 0, 8])
    batch = data.batch([3, 0, 8])
    assert isinstance(batch, geometric.data.Batch)
    assert batch.num_graphs == 3
    assert batch.num_nodes == len(plain["numbers"])
    assert torch.equal(batch.z, plain["numbers"])
    assert torch.equal(batch.pos, plain["positions"])
    # The package's own pooling and collating agree with ours.
    pooled = geometric.nn.global_add_pool(batch.forces, batch.batch)
    assert pooled.shape == (3, 3)
    collated = geometric.data.Batch.from_data_list(to_data(plain))
    order = np.lexsort(batch.edge_index.numpy())
    other = np.lexsort(collated.edge_index.numpy())
    assert torch.equal(collated.edge_index[:, other], batch.edge_index[:, order])
    for name in ("z", "pos", "forces", "energy", "cell", "batch", "ptr"):
        assert torch.equal(collated[name], batch[name]), name


def test_lightning_trains_and_goes_on(store, tmp_path):
    lightning = pytest.importorskip("lightning")
    from mlffstore.training.lightning import DataModule

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.energy = torch.nn.Embedding(119, 1, dtype=torch.float64)
            self.seen = []

        def training_step(self, batch, _):
            self.seen.append(batch["energy"].tolist())
            atoms = self.energy(batch["numbers"])[:, 0]
            total = torch.zeros(len(batch["energy"]), dtype=torch.float64).index_add(0, batch["batch"], atoms)
            return ((total - batch["energy"]) / batch["n_atoms"]).square().mean()

        def validation_step(self, batch, _):
            self.log("val", batch["energy"].mean(), batch_size=len(batch["energy"]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.1)

    def trainer(steps):
        return lightning.Trainer(
            max_steps=steps, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
            default_root_dir=tmp_path, enable_checkpointing=False, num_sanity_val_steps=0,
        )  # fmt: skip

    model, module = Model(), DataModule(store, batch_size=8, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints of Lightning about workers and logging
        trainer(12).fit(model, datamodule=module)
    loader = ml.TorchDataset(store, split="train").loader(batch_size=8, seed=5)
    expected = [batch["energy"].tolist() for _ in range(3) for batch in loader][:12]
    assert model.seen == expected
    # Stopped in the second epoch, and gone on from the checkpoint: the batches after those.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stopped = trainer(len(loader) + 2)
        stopped.fit(Model(), datamodule=DataModule(store, batch_size=8, seed=5))
        stopped.save_checkpoint(tmp_path / "stopped.ckpt")
        rest = Model()
        trainer(12).fit(rest, datamodule=DataModule(store, batch_size=8, seed=5), ckpt_path=tmp_path / "stopped.ckpt")
    assert rest.seen == expected[len(loader) + 2 :]


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 0, 1), (0, 0, 1), (0, 0, 0)])
@pytest.mark.parametrize("cutoff", [2.9, 6.5])
def test_edges_are_those_of_vesin(pbc, cutoff):
    """Small skewed cells with atoms outside of them: several images of a pair, and shifts that undo the wrapping."""
    import vesin

    from mlffstore.training.edges import edges

    rng = np.random.default_rng(7)
    cell = np.array([[3.1, 0.4, 0.0], [-0.8, 3.6, 0.3], [0.2, 0.9, 4.4]])
    positions = rng.uniform(-2, 3, (6, 3)) @ cell
    batch = {
        "positions": torch.from_numpy(np.concatenate([positions, positions + 0.3])),
        "cell": torch.from_numpy(np.stack([cell, cell])),
        "pbc": torch.tensor([pbc, pbc], dtype=torch.bool),
        "ptr": torch.tensor([0, 6, 12]),
    }
    index, shift = edges(batch, cutoff)
    search = vesin.NeighborList(cutoff=cutoff, full_list=True)
    i, j, s = search.compute(points=positions, box=cell, periodic=np.array(pbc, bool), quantities="ijS")
    expected = {(int(a), int(b), *map(int, n)) for a, b, n in zip(i, j, s, strict=True)}
    cells = np.rint(shift.numpy() @ np.linalg.inv(cell)).astype(int)
    for first in (0, 6):
        mine = (index[0] >= first) & (index[0] < first + 6)
        rows = np.concatenate([index[:, mine].numpy() - first, cells[mine.numpy()].T]).T
        assert {tuple(map(int, row)) for row in rows} == expected
        assert len(rows) == len(expected)
    step = batch["positions"][index[1]] + shift - batch["positions"][index[0]]
    assert float(step.norm(dim=1).max() if len(step) else 0) < cutoff


@pytest.mark.parametrize("neighbours", [None, 4.0])
def test_endless_is_epoch_after_epoch_and_resumes(store, neighbours):
    data = ml.TorchDataset(store, split="train", neighbours=neighbours)

    def loader():
        return data.loader(batch_size=9, seed=2)

    epochs = loader()
    expected = [batch["energy"].tolist() for _ in range(4) for batch in epochs]
    run = loader()
    stream = run.endless()
    first = [next(stream)["energy"].tolist() for _ in range(len(run) + 3)]
    assert first == expected[: len(first)]
    state = run.state_dict()
    assert (state["epoch"], state["batches"]) == (1, 3)
    stream.close()
    other = loader()
    other.load_state_dict(state)
    rest = other.endless()
    assert [next(rest)["energy"].tolist() for _ in range(len(run))] == expected[len(first) : len(first) + len(run)]


def test_ranks_share_an_epoch(store):
    data = ml.TorchDataset(store, split="train")
    whole = [batch["energy"].tolist() for batch in data.loader(batch_size=8, seed=4)]
    shares = [[b["energy"].tolist() for b in data.loader(8, seed=4, rank=rank, world_size=2)] for rank in (0, 1)]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == whole[: 2 * (len(whole) // 2)]
