"""The column cache: the same numbers as `Snapshot.read`, from every process, whole or not there, and bounded."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mlffstore as ml
from mlffstore.errors import CorruptionError, DataError
from mlffstore.training import cache
from mlffstore.training.samplers import AtomBudget
from mlffstore.training.transforms import (
    Compose,
    Normalise,
    RandomRotation,
    ReferenceEnergy,
    from_statistics,
    rotations,
)
from tests.samples import metal_frames, mixed_frames


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """An empty cache folder of this test's own."""
    monkeypatch.setenv("MLFFSTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    for k in range(4):
        store.append(mixed_frames(40, seed=k), teacher="emt")
    return store


def same(batch, expected, teacher="emt"):
    """Compare a batch of tensors with a `SampleBatch`."""
    assert batch["n_atoms"].tolist() == expected.n_atoms.tolist()
    assert batch["ptr"].tolist() == expected.offsets.tolist()
    assert batch["batch"].tolist() == np.repeat(np.arange(len(expected)), expected.n_atoms).tolist()
    for name in ("numbers", "positions", "cell", "pbc", "charge", "multiplicity"):
        assert np.array_equal(batch[name].numpy(), expected.columns[name].astype(batch[name].numpy().dtype)), name
    for name, array in expected.labels[teacher].items():
        assert np.array_equal(batch[name].numpy(), array, equal_nan=True), name


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("where", ["mapped", "memory"])
def test_batches_are_what_the_snapshot_reads(tmp_path, caches, precision, where):
    store = ml.create(tmp_path / "d.zarr", precision=precision)
    store.append(mixed_frames(50), teacher="emt")
    snap = store.snapshot()
    for split in ("train", None):
        data = ml.TorchDataset(store, split=split, cache=where, dtype=torch.float64)
        index = snap.split_indices(split)
        chosen = np.random.default_rng(0).integers(0, len(index), 30)
        same(data.batch(chosen), snap.read(index[chosen]))
        assert data.content_hash.tolist() == snap.read(index).content_hash.tolist()
    assert len(cache.cached()) == (where == "mapped")


def test_a_release_gives_the_same(store, tmp_path, caches):
    path = ml.export_release(store.snapshot(), tmp_path, name="r")
    one, two = ml.TorchDataset(store, split="train"), ml.TorchDataset(path, split="train")
    assert one.content_hash.tolist() == two.content_hash.tolist()
    a, b = one.batch(range(len(one))), two.batch(range(len(two)))
    assert all(torch.equal(a[name].nan_to_num(), b[name].nan_to_num()) for name in a)
    assert len(cache.cached()) == 2


def test_labels_that_only_some_samples_have(tmp_path, caches):
    """A teacher without forces, and samples that a teacher did not label, do not shift anything."""
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(10), teacher="a")
    batch = ml.SampleBatch.from_ase(metal_frames(10, seed=5)).structures()
    store.append(batch.with_labels("b", energy=np.arange(10.0)), require=("energy",))
    store.append(metal_frames(6, seed=9), teacher="a")
    data = ml.TorchDataset(store, split=None, teacher="a")
    assert len(data) == 16
    same(data.batch(range(16)), store.snapshot().read([*range(10), *range(20, 26)], teacher="a"), "a")
    only = ml.TorchDataset(store, split=None, teacher="b").batch([3, 1])
    assert only["energy"].tolist() == [3.0, 1.0]
    assert "forces" not in only


def test_a_store_that_grows_is_read_as_of_the_version_at_the_start(store, caches):
    data = ml.TorchDataset(store.url, split=None)
    store.append(mixed_frames(7, seed=99), teacher="emt")
    again = pickle.loads(pickle.dumps(data))
    assert len(again) == len(data) == 160
    assert len(ml.TorchDataset(store.url, split=None)) == 167
    assert len(cache.cached()) == 2


def read_in_child(data, queue):
    queue.put(data.batch([5, 0])["energy"].tolist())


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_every_way_of_starting_a_process(store, caches, method):
    data = ml.TorchDataset(store, split=None)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(data, queue))
    child.start()
    assert queue.get(timeout=60) == data.batch([5, 0])["energy"].tolist()
    child.join()
    loader = DataLoader(
        data, batch_size=16, collate_fn=data.collate, num_workers=2, multiprocessing_context=method, shuffle=False
    )
    energies = torch.cat([batch["energy"] for batch in loader])
    assert torch.equal(energies, data.batch(range(len(data)))["energy"])


def test_damage_is_found_and_a_killed_build_leaves_nothing_that_counts(store, caches):
    data = ml.TorchDataset(store, split=None)
    (one,) = cache.cached()
    assert one.samples == 160
    assert cache.damage(one.path) == ""
    records = one.path / "records.bin"
    whole = records.read_bytes()
    records.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert cache.damage(one.path) == "records.bin changed"
    records.write_bytes(whole[:-64])
    with pytest.raises(CorruptionError, match="mlffstore cache --clear"):
        ml.TorchDataset(store, split=None)
    shutil.rmtree(one.path)
    leftover = caches / "abc.tmp"
    leftover.mkdir()
    (leftover / "records.bin").write_bytes(b"half")
    assert cache.cached() == []
    assert torch.equal(ml.TorchDataset(store, split=None).batch([1])["energy"], data.batch([1])["energy"])


def test_the_cache_is_bounded(tmp_path, caches, monkeypatch):
    stores = []
    for k in range(3):
        stores.append(ml.create(tmp_path / f"{k}.zarr"))
        stores[-1].append(metal_frames(30, seed=k), teacher="emt")
        ml.TorchDataset(stores[-1], split=None)
    first, *_ = sorted(cache.cached(), key=lambda one: one.used)
    monkeypatch.setenv("MLFFSTORE_CACHE_GB", str(2.6 * first.nbytes / 1e9))
    removed = cache.make_room(first.nbytes)
    assert next(one.path for one in removed) == first.path
    assert len(cache.cached()) == 1
    monkeypatch.setenv("MLFFSTORE_CACHE_GB", "1e-9")
    with pytest.raises(DataError, match="MLFFSTORE_CACHE_GB"):
        ml.TorchDataset(stores[0], split=None)
    monkeypatch.setenv("MLFFSTORE_CACHE_GB", "much")
    with pytest.raises(DataError, match="number of gigabytes"):
        ml.TorchDataset(stores[0], split=None)
    assert len(ml.TorchDataset(stores[0], split=None, cache="memory")) == 30


# -- loaders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 600])
def test_the_loader_gives_every_sample_once_in_its_order(store, caches, threads, batch_size):
    data = ml.TorchDataset(store, split=None)
    loader = data.loader(batch_size, threads=threads, seed=3)
    for _ in range(3):
        order = loader.order()
        kept = list(loader)  # all views are held: no window may serve again
        assert len(kept) == len(loader)
        assert sorted(order.tolist()) == list(range(len(data)))
        for k, batch in enumerate(kept):
            one = data.batch(order[k * batch_size : (k + 1) * batch_size])
            assert set(batch) == set(one)
            assert all(torch.equal(batch[name].nan_to_num(), one[name].nan_to_num()) for name in one)


def test_a_window_serves_again_only_when_nobody_looks(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(400), teacher="emt")
    store.append(metal_frames(1200, seed=2), teacher="emt")
    data = ml.TorchDataset(store, split=None)
    loader = data.loader(16, threads=2)
    kept = None
    for batch in loader:
        if kept is None:
            kept, copy = batch["positions"], batch["positions"].clone()
    for _ in loader:
        pass
    assert torch.equal(kept, copy)
    assert 0 < len(loader._spare) <= 8  # memory is kept, and not without end


def test_an_interrupted_epoch_goes_on_with_the_next_batch(store, caches):
    data = ml.TorchDataset(store, split=None)
    whole = [batch["energy"] for batch in data.loader(8, seed=1)]
    first = data.loader(8, seed=1)
    some = []
    for batch in first:
        some.append(batch["energy"])
        if len(some) == 5:
            break
    second = data.loader(8, seed=1)
    second.load_state_dict(first.state_dict())
    some += [batch["energy"] for batch in second]
    assert [one.tolist() for one in some] == [one.tolist() for one in whole]
    assert second.epoch == 1
    with pytest.raises(DataError, match="expected batch_size 8"):
        second.load_state_dict({**first.state_dict(), "batch_size": 4})


def test_ranks_share_an_epoch(store, caches):
    from mlffstore.training.loader import Loader

    data = ml.TorchDataset(store, split=None)
    ranks = [Loader(data, 8, seed=2, rank=r, world_size=3) for r in range(3)]
    parts = [[batch["energy"].tolist() for batch in one] for one in ranks]
    assert len({len(one) for one in parts}) == 1
    together = [one for k in range(len(parts[0])) for one in (part[k] for part in parts)]
    whole = [batch["energy"].tolist() for batch in data.loader(8, seed=2)]
    assert together == whole[: len(together)]


def test_batches_of_bounded_size(store, caches):
    data = ml.TorchDataset(store, split=None)
    sampler = AtomBudget(data, 64, seed=1)
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=data.collate)
    sizes = [int(batch["ptr"][-1]) for batch in loader]
    assert max(sizes) <= 64
    assert sum(sizes) == data.n_atoms.sum()
    assert np.mean(sizes) > 48
    shares = [AtomBudget(data, 64, seed=1, rank=r, world_size=2) for r in range(2)]
    assert len({len(list(one)) for one in shares}) == 1
    with pytest.raises(DataError, match="the largest sample"):
        AtomBudget(data, 2)


def test_a_stream_gives_every_sample_of_the_split_once(store, caches):
    for split in ("train", None):
        stream = ml.TorchDataset.stream(store, split=split, batch_size=8, block_samples=16, blocks=3)
        data = ml.TorchDataset(store, split=split)
        expected = sorted(data.batch(range(len(data)))["energy"].tolist())
        first = [e for batch in stream for e in batch["energy"].tolist()]
        second = [e for batch in stream for e in batch["energy"].tolist()]
        assert sorted(first) == sorted(second) == expected
        assert first != second
    shared = DataLoader(stream, batch_size=None, num_workers=2)
    assert sorted(e for batch in shared for e in batch["energy"].tolist()) == expected
    batch = next(iter(stream))
    one = ml.TorchDataset(store, split=None)
    where = {h: i for i, h in enumerate(one.batch(range(len(one)))["energy"].tolist())}
    alike = one.batch([where[e] for e in batch["energy"].tolist()])
    assert all(torch.equal(batch[name].nan_to_num(), alike[name].nan_to_num()) for name in alike)


# -- physics ---------------------------------------------------------------------------------------------------------


def test_a_turned_sample_has_the_turned_labels_of_the_teacher(tmp_path, caches):
    """EMT labels the turned structures again: energies stay, forces and stress turn with them."""
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(8), teacher="emt")
    torch.manual_seed(0)
    data = ml.TorchDataset(store, split=None, transform=RandomRotation(), dtype=torch.float64, neighbours=4.0)
    batch = data.batch(range(8))
    turned = ml.SampleBatch(
        n_atoms=batch["n_atoms"],
        numbers=batch["numbers"],
        positions=batch["positions"],
        cell=batch["cell"],
        pbc=batch["pbc"],
    )
    labels = ml.get_teacher("emt").label(turned)
    # The stored labels are float32.
    assert batch["energy"].numpy() == pytest.approx(labels.energy, abs=1e-5)
    assert batch["forces"].numpy() == pytest.approx(labels.forces, abs=1e-5)
    assert batch["stress"].numpy() == pytest.approx(labels.stress, abs=1e-6)
    i, j = batch["edge_index"]
    d = (batch["positions"][j] + batch["shift"] - batch["positions"][i]).norm(dim=1)
    assert d.max() < 4.0 + 1e-9
    assert torch.equal(batch["batch"][i], batch["batch"][j])
    plain = ml.TorchDataset(store, split=None, dtype=torch.float64, neighbours=4.0).batch(range(8))
    before = (plain["positions"][j] + plain["shift"] - plain["positions"][i]).norm(dim=1)
    assert torch.allclose(d, before)
    joined = data.collate([data[k] for k in range(8)])
    assert torch.equal(joined["edge_index"], batch["edge_index"])


def test_rotations_are_proper():
    turn = rotations(50)
    assert torch.allclose(turn @ turn.transpose(1, 2), torch.eye(3, dtype=turn.dtype).expand(50, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(turn), torch.ones(50, dtype=turn.dtype))


def test_references_and_normalisation(store, tmp_path, caches):
    import yaml

    normal = ml.statistics(store).normalisation()
    path = tmp_path / "statistics.yaml"
    path.write_text(yaml.safe_dump({"normalisation": {"emt": normal}}))
    data = ml.TorchDataset(store, split="train", transform=from_statistics(path))
    batch = data.batch(range(len(data)))
    assert float((batch["energy"] / batch["n_atoms"]).mean()) == pytest.approx(0, abs=1e-9)
    assert float(batch["forces"].double().pow(2).mean().sqrt()) == pytest.approx(1, rel=1e-5)
    raw = ml.TorchDataset(store, split="train").batch([0])
    out = Compose(
        ReferenceEnergy({"Cu": 1.0, "Al": 1.0, "Ni": 1.0, "Pd": 1.0, "H": 1, "C": 1, "O": 1, "N": 1}),
        Normalise(-1.0, 2.0),
    )(raw)
    assert out["energy"].item() == pytest.approx(raw["energy"].item() / 2)
    with pytest.raises(DataError, match="energy of every element"):
        ReferenceEnergy({"He": 1.0})(raw)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache": "disk"}, "'mapped' or 'memory'"),
        ({"neighbours": -1}, "cutoff"),
        ({"split": "all"}, "train, val, test"),
        ({"dtype": torch.int32}, "floating dtype"),
    ],
)
def test_bad_options(store, caches, options, words):
    with pytest.raises(DataError, match=words):
        ml.TorchDataset(store, **options)
