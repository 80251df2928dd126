"""User columns in PyTorch Geometric: none replaces what the package keeps under its name, and none is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.training.pyg import ToPyG, to_data

geometric = pytest.importorskip("torch_geometric")


def dataset(path, names, axis="atom", **options):
    """Return a dataset of three samples with two atoms each, and user columns of integers."""
    rows = 6 if axis == "atom" else 3
    store = ml.create(path)
    batch = ml.SampleBatch(
        n_atoms=[2] * 3, numbers=[2] * 6, positions=np.arange(18.0).reshape(6, 3), energy=[-1.0, -2, -3],
        extra={name: (np.arange(rows) + 40, "1", axis) for name in names},
    )  # fmt: skip
    store.append(batch, require=())
    return ml.TorchDataset(store, split=None, **options)


@pytest.mark.parametrize("axis", ["atom", "sample"])
@pytest.mark.parametrize("name", ["pos", "z", "num_nodes", "num_graphs", "edge_attr", "keys", "face"])
def test_names_that_the_package_uses_are_refused(caches, tmp_path, name, axis):
    data = dataset(tmp_path / "d", (name, "weight"), axis)
    for convert in (ToPyG(), to_data):
        with pytest.raises(DataError, match=f"got {name}, which PyTorch Geometric uses"):
            convert(data.batch([0, 2]))
    without = dataset(tmp_path / "e", (name, "weight"), axis, columns=("weight",), transform=ToPyG()).batch([0, 2])
    assert without.weight.tolist() == ([40, 41, 44, 45] if axis == "atom" else [40, 42])
    assert without.z.tolist() == [2] * 4


def test_columns_that_the_collation_would_change_are_refused_before_it(caches, tmp_path):
    for k, name in enumerate(("site_index", "batch_number")):
        batch = dataset(tmp_path / f"{k}", (name,), "sample").batch([0, 1, 2])
        assert ToPyG()(batch)[name].tolist() == [40, 41, 42]  # it is collated already
        with pytest.raises(DataError, match=f"got {name}, "):
            to_data(batch)


def test_features_of_nodes_have_a_row_per_atom(caches, tmp_path):
    batch = dataset(tmp_path / "a", ("x", "y", "time")).batch([0, 1])
    graphs, collated = ToPyG()(batch), geometric.data.Batch.from_data_list(to_data(batch))
    for one in (graphs, collated):
        assert one.num_nodes == 4
        assert all(torch.equal(one[name], batch[name]) for name in ("x", "y", "time"))
    batch = dataset(tmp_path / "b", ("x",), "sample").batch([0, 1])
    for convert in (ToPyG(), to_data):
        with pytest.raises(DataError, match="no row per atom"):
            convert(batch)


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_stock_loader_joins_graphs(caches, tmp_path, n_workers):
    """Of whole batches, and of single samples through wrappers; with edges, whose numbers of atoms move."""
    options = {"neighbours": 6.0, "transform": ToPyG()}
    data = dataset(tmp_path / "d", ("weight",), **options)
    expected = data.batch([0, 1, 2])
    for source in (data, ConcatDataset([Subset(data, [0]), Subset(data, [1, 2])])):
        (graphs,) = DataLoader(source, batch_size=3, num_workers=n_workers)
        assert isinstance(graphs, geometric.data.Batch)
        assert graphs.num_graphs == 3
        assert graphs.edge_index.shape[1] > 0
        names = set(expected.keys())
        assert set(graphs.keys()) == names
        assert all(torch.equal(graphs[name], expected[name]) for name in names)


def test_graphs_of_others_are_not_joined(caches, tmp_path):
    ToPyG()(dataset(tmp_path / "d", ()).batch([0]))
    other = geometric.data.Batch.from_data_list([geometric.data.Data(x=torch.ones(2, 1))])
    with pytest.raises(TypeError, match=r"torch_geometric\.loader\.DataLoader"):
        next(iter(DataLoader([other, other], batch_size=2)))


def test_a_loader_moves_graphs_to_a_device(caches, tmp_path):
    data = dataset(tmp_path / "d", ("weight",), transform=ToPyG())
    graphs = next(iter(data.loader(2, shuffle=False, device="cpu")))
    assert isinstance(graphs, geometric.data.Batch)
    assert graphs.num_graphs == 2
    assert graphs.weight.tolist() == [40, 41, 42, 43]
