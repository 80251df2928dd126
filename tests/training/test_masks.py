"""What a sample lacks is 0 with a mask, on every road to a model, and never a number that looks like a label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.training.pyg import ToPyG, to_data
from mlffstore.training.resident import Resident
from mlffstore.training.transforms import Compose, Normalise, RandomRotation, ReferenceEnergy

N = 24


def samples():
    """Return samples of 1 to 3 atoms: every third lacks forces, every fourth the energy, two thirds the stress, one all."""
    n_atoms = np.resize([1, 2, 3, 3], N)
    rng = np.random.default_rng(0)
    energy, forces, stress = np.arange(1.0, N + 1), rng.normal(size=(n_atoms.sum(), 3)), rng.normal(size=(N, 6))
    where = np.arange(N)
    energy[where % 4 == 0] = np.nan
    forces[np.repeat(where % 3 == 0, n_atoms)] = np.nan
    stress[where % 3 != 1] = np.nan
    return ml.SampleBatch(
        n_atoms=n_atoms, numbers=np.resize([1, 6, 8], n_atoms.sum()), positions=rng.normal(size=(n_atoms.sum(), 3)),
        energy=energy, forces=forces, stress=stress,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("masks") / "d.zarr")
    store.append(samples(), require=())
    return store


#: Samples 0 and 12 have no label at all.
LABELLED = [k for k in range(N) if k % 12]


def check(batch, which):
    """Compare a batch with the samples of these numbers."""
    one = samples().take(np.array(which))
    labels = one.labels["reference"]
    for name in ("energy", "forces", "stress"):
        assert torch.equal(batch[name], torch.from_numpy(np.nan_to_num(labels[name])).to(batch[name].dtype)), name
    assert batch["energy_mask"].tolist() == [k % 4 != 0 for k in which]
    assert batch["forces_mask"].tolist() == [k % 3 != 0 for k in which]
    assert batch["stress_mask"].tolist() == [k % 3 == 1 for k in which]


@pytest.mark.parametrize("where", ["mapped", "memory"])
def test_every_road_carries_masks(store, where):
    data = ml.TorchDataset(store, split=None, cache=where)
    assert len(data) == len(LABELLED)
    check(data.batch([5, 2, 2]), [LABELLED[k] for k in (5, 2, 2)])
    check(data.collate([data[k] for k in (7, 0)]), [LABELLED[7], LABELLED[0]])
    loader = data.loader(5, seed=1)
    order = loader.order()
    for k, batch in enumerate(loader):
        check(batch, [LABELLED[i] for i in order[5 * k : 5 * k + 5]])
    check(Resident(data, "cpu").batch(torch.tensor([3, 9])), [LABELLED[3], LABELLED[9]])
    stream = next(iter(ml.TorchDataset.stream(store, split=None, batch_size=99, shuffle=False)))
    check(stream, LABELLED)


def test_a_release_keeps_and_masks_what_a_store_does(store, tmp_path):
    release = ml.export_release(store.snapshot(), tmp_path, name="r", allow_failing=True)
    one, other = ml.TorchDataset(store, split=None), ml.TorchDataset(release, split=None)
    order = np.argsort(one.content_hash), np.argsort(other.content_hash)
    assert one.content_hash[order[0]].tolist() == other.content_hash[order[1]].tolist()
    check(other.batch(order[1]), [LABELLED[k] for k in order[0]])


def test_keys_are_those_of_all_splits_and_batches(store):
    keys = {
        tuple(sorted(batch))
        for split in ("train", "val", "test", None)
        for batch in ml.TorchDataset(store, split=split).loader(1)
    }
    assert len(keys) == 1
    whole = ml.create(store.url + ".whole")
    whole.append(samples().take(np.array([1, 7])))
    assert not [name for name in ml.TorchDataset(whole, split=None)[0] if name.endswith("_mask")]


def test_required_labels_leave_samples_out(store):
    data = ml.TorchDataset(store, split=None, require=("forces",))
    kept = [k for k in LABELLED if k % 3]
    assert len(data) == len(kept)
    batch = data.batch(range(len(data)))
    assert "forces_mask" not in batch
    assert batch["energy_mask"].tolist() == [k % 4 != 0 for k in kept]
    every = ml.TorchDataset(store, split=None, require=("energy", "forces", "stress"))
    assert not [name for name in every[0] if name.endswith("_mask")]
    assert len(every) == sum(k % 4 != 0 and k % 3 == 1 for k in LABELLED)
    stream = ml.TorchDataset.stream(store, split=None, require=("forces",), batch_size=99)
    assert sum(len(batch["energy"]) for batch in stream) == len(kept)
    with pytest.raises(DataError, match="require: expected labels among energy, forces, stress"):
        ml.TorchDataset(store, require=("charges",))


def test_labels_that_a_teacher_never_gave(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    batch = samples().structures()
    energy = np.where(np.arange(N) < 2, 1.0, np.nan)
    store.append(batch.with_labels("a", energy=energy, forces=np.ones((batch.n_atoms_total, 3))), require=("forces",))
    data = ml.TorchDataset(store, split=None)
    assert len(data) == N
    assert data.batch([1, 2])["energy"].tolist() == [1.0, 0.0]
    assert data.batch([1, 2])["energy_mask"].tolist() == [True, False]
    assert set(data[0]) & {"stress", "stress_mask", "forces_mask"} == set()
    with pytest.raises(DataError, match="a label that a gave, got 'stress'"):
        ml.TorchDataset(store, require=("stress",))


def test_a_release_has_the_masks_of_the_store(store, tmp_path):
    path = ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "r.h5")
    for split in ("train", "val"):
        one, two = (ml.TorchDataset(data, split=split, require=("energy",)) for data in (store, path))
        assert one.content_hash.tolist() == two.content_hash.tolist()
        a, b = one.batch(range(len(one))), two.batch(range(len(two)))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert one.digest == two.digest


def test_transforms_leave_what_is_missing_at_0(store):
    energies = {"H": -1.0, "C": -2.0, "O": -3.0}
    transform = Compose(ReferenceEnergy(energies), Normalise(0.5, 2.0), RandomRotation())
    plain = ml.TorchDataset(store, split=None).batch(range(len(LABELLED)))
    batch = ml.TorchDataset(store, split=None, transform=transform).batch(range(len(LABELLED)))
    for name in ("energy", "stress"):
        assert not batch[name][~batch[f"{name}_mask"]].any()
    assert not batch["forces"][~batch["forces_mask"][batch["batch"]]].any()
    reference = torch.zeros(len(LABELLED), dtype=torch.float64).index_add(
        0, plain["batch"], torch.tensor([0, -1.0, 0, 0, 0, 0, -2.0, 0, -3.0], dtype=torch.float64)[plain["numbers"]]
    )
    expected = (plain["energy"] - reference - 0.5 * plain["n_atoms"]) / 2
    assert torch.allclose(batch["energy"][batch["energy_mask"]], expected[batch["energy_mask"]])


def test_pyg_carries_masks(store):
    geometric = pytest.importorskip("torch_geometric")
    plain = ml.TorchDataset(store, split=None).batch([0, 5, 9])
    graphs = ml.TorchDataset(store, split=None, transform=ToPyG()).batch([0, 5, 9])
    collated = geometric.data.Batch.from_data_list(to_data(plain))
    for name in ("energy_mask", "forces_mask", "stress_mask", "energy", "forces"):
        assert torch.equal(graphs[name], plain[name]), name
        assert torch.equal(collated[name], plain[name]), name


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_stock_loader_joins_samples(store, n_workers):
    """With torch's own collation, of items and of whole batches, through wrappers that know nothing of ours."""
    data = ml.TorchDataset(store, split=None)
    n = len(data)
    expected = data.batch(range(n))
    parts = torch.utils.data.ConcatDataset([torch.utils.data.Subset(data, range(n))])
    for dataset in (data, torch.utils.data.Subset(data, range(n)), parts):
        batches = list(DataLoader(dataset, batch_size=8, num_workers=n_workers))
        assert [len(batch["energy"]) for batch in batches] == [8, 8, n - 16]
        for name in ("positions", "energy", "forces_mask", "cell"):
            assert torch.equal(torch.cat([batch[name] for batch in batches]), expected[name]), name
        assert batches[0]["ptr"].tolist() == expected["ptr"][:9].tolist()
    single = list(DataLoader(data, batch_size=None))
    assert [batch["energy"].item() for batch in single] == expected["energy"].tolist()
