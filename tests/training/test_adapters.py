"""Batches on a device as a whole, in PyTorch Geometric, and in a Lightning training."""

from __future__ import annotations

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
    next(iter(resident))
    assert len(list(resident)) == len(resident)
    resident.set_epoch(0)
    assert torch.equal(seen, torch.cat([batch["energy"].cpu() for batch in resident]))
    turned = Resident(ml.TorchDataset(store, split="train", transform=RandomRotation()), device).batch(
        torch.tensor(index, device=device)
    )
    assert torch.allclose(turned["forces"].norm(dim=1).cpu(), 2.0 * data.batch(index)["forces"].norm(dim=1), atol=1e-4)
    with pytest.raises(DataError, match="without neighbours"):
        Resident(ml.TorchDataset(store, neighbours=4.0), device)


def test_batches_for_a_cuda_device_come_out_of_pinned_memory_unless_told_otherwise(store):
    data = ml.TorchDataset(store, split="train")
    asked = [{}, {"device": "cpu"}, {"device": "cuda"}, {"device": torch.device("cuda", 0)}, {"pin_memory": True}]
    assert [data.loader(**options).pin_memory for options in asked] == [False, False, True, True, True]
    assert not data.loader(device="cuda", pin_memory=False).pin_memory


@pytest.mark.gpu
@pytest.mark.parametrize("neighbours", [None, 4.0])
def test_a_loader_for_the_gpu_gives_the_batches_of_the_dataset(store, neighbours):
    data = ml.TorchDataset(store, split="train", neighbours=neighbours)
    loader = data.loader(batch_size=8, seed=1, device="cuda")
    order = loader.order()
    for k, batch in enumerate(loader):
        assert all(tensor.is_cuda for tensor in batch.values())
        assert same({name: tensor.cpu() for name, tensor in batch.items()}, data.batch(order[8 * k : 8 * k + 8]))
    assert k == len(loader) - 1


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
