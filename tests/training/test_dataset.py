"""From frames to a store, a release, plain h5py and xarray, and torch: the same numbers everywhere."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from ase.io import read
from torch.utils.data import DataLoader

import mlffstore as ml
from mlffstore.errors import DataError, FormatError, StoreNotFoundError, TeacherError
from tests.samples import metal_frames, mixed_frames, molecule_frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(mixed_frames(60), teacher="emt", source=["a b", "c"] * 30)
    return store


def release(store, folder, **options):
    folder.mkdir(exist_ok=True)
    return ml.export_release(store.snapshot(), folder, name="r", **options)


def test_mlearn_is_the_same_on_every_road(real, tmp_path):
    frames = read(real / "mlearn_Li_training.extxyz", ":")
    store = ml.create(tmp_path / "li.zarr")
    store.append(frames, teacher="dft")
    snap = store.snapshot()
    assert (len(snap), snap.n_atoms) == (len(frames), sum(map(len, frames)))
    path = release(store, tmp_path / "out")
    batch = snap.read()
    energy = np.array([frame.get_potential_energy() for frame in frames])
    np.testing.assert_allclose(batch.energy, energy, rtol=0, atol=1e-9)
    with h5py.File(path) as file:
        for split in ("train", "val", "test"):
            index, group = snap.split_indices(split), file[split]
            np.testing.assert_allclose(group["energy"][:], energy[index], rtol=0, atol=1e-9)
            # float32 keeps 24 bits: half a unit in the last place of a coordinate below 32 angstrom is 1e-6.
            expected = np.concatenate([frames[i].positions for i in index])
            np.testing.assert_allclose(group["positions"][:], expected, atol=1e-6)
            expected = np.concatenate([frames[i].get_forces() for i in index])
            np.testing.assert_allclose(group["forces"][:], expected, rtol=1e-6, atol=1e-7)
            assert np.array_equal(group["n_atoms"][:], [len(frames[i]) for i in index])
        assert sum(len(file[split]["energy"]) for split in file) == len(frames)


def test_xarray_opens_every_group(store, tmp_path):
    path = release(store, tmp_path / "out")
    for split in ("train", "val", "test"):
        with xr.open_dataset(path, group=split, engine="h5netcdf") as ds:
            assert ds["positions"].dims == ("atom", "xyz")
            assert ds["stress"].dims == ("sample", "voigt")
            assert ds["forces"].attrs["units"] == "eV/angstrom"
            assert ds["content_hash"].dtype == np.uint64
            index = store.snapshot().split_indices(split)
            assert np.array_equal(ds["content_hash"], store.snapshot().read(index).content_hash)


def test_exporting_twice_gives_the_same_bytes(store, tmp_path):
    first = release(store, tmp_path / "a").read_bytes()
    assert release(store, tmp_path / "b").read_bytes() == first


def test_a_failed_export_leaves_nothing_behind(store, tmp_path):
    path = ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "out" / "r.h5")
    before = path.read_bytes()
    shard = next((tmp_path / "d.zarr").glob("segments/*.zarr.zip"))
    shard.unlink()
    with pytest.raises(ml.errors.CorruptionError):
        ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "out" / "other.h5")
    with pytest.raises(ml.errors.CorruptionError):
        release(store, tmp_path / "out")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_store_and_release_give_equal_tensors(store, tmp_path):
    path = release(store, tmp_path / "out")
    for split in ("train", "val", None):
        ours, theirs = ml.TorchDataset(store.url, split=split), ml.TorchDataset(path, split=split)
        if split is None:  # a release is ordered by split
            assert sorted(ours.content_hash) == sorted(theirs.content_hash)
            continue
        index = [2, 0, 0, -1]
        a, b = ours.batch(index), theirs.batch(index)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype, name
            assert torch.equal(torch.nan_to_num(a[name]), torch.nan_to_num(b[name])), name
        direct = store.snapshot().read(store.snapshot().split_indices(split)).take(index)
        assert np.array_equal(a["energy"], direct.energy)
        assert a["energy"].dtype == torch.float64
        assert np.array_equal(a["forces"], direct.forces)
        assert a["ptr"].tolist() == direct.offsets.tolist()
        assert a["batch"].tolist() == np.repeat(np.arange(4), direct.n_atoms).tolist()


def test_release_reads_back_whole(store, tmp_path):
    from mlffstore.release import Release

    back = Release(release(store, tmp_path / "out")).read("train")
    snap = store.snapshot()
    direct = snap.read(snap.split_indices("train"))
    assert np.array_equal(back.pbc, direct.pbc)
    assert back.source == direct.source
    assert np.array_equal(back.root, direct.root)
    assert len(back.to_ase()) == len(direct)


def test_loader_covers_every_sample_once_in_a_new_order(store):
    data = ml.TorchDataset(store, split=None)
    loader = data.loader(batch_size=7, seed=3)
    first = torch.cat([batch["energy"] for batch in loader])
    second = torch.cat([batch["energy"] for batch in loader])
    assert len(loader) == 9
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)
    assert torch.equal(first, torch.cat([batch["energy"] for batch in data.loader(batch_size=7, seed=3)]))
    for batch in data.loader(batch_size=7, drop_last=True):
        assert len(batch["energy"]) == 7
        assert batch["ptr"][0] == 0
        assert int(batch["ptr"][-1]) == len(batch["positions"]) == len(batch["batch"])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_stock_loader_with_workers(store):
    """Other ways than "fork" to start them are those of `test_cache.py`."""
    data = ml.TorchDataset(store.url, split="train")
    loader = DataLoader(data, batch_size=8, collate_fn=data.collate, num_workers=2, multiprocessing_context="fork")
    energies = torch.cat([batch["energy"] for batch in loader])
    assert torch.equal(energies, data.batch(range(len(data)))["energy"])


def test_collate_joins_single_samples(store):
    data = ml.TorchDataset(store, split="train")
    joined, direct = data.collate([data[0], data[3]]), data.batch([0, 3])
    assert all(torch.equal(torch.nan_to_num(joined[name]), torch.nan_to_num(direct[name])) for name in direct)


def test_pickling_leaves_the_columns_behind(store):
    data = ml.TorchDataset(store.url)
    assert len(pickle.dumps(data)) < 2000
    assert torch.equal(pickle.loads(pickle.dumps(data)).batch([1])["forces"], data.batch([1])["forces"])


def test_two_teachers_need_a_choice(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(20), teacher="emt")
    store.append(molecule_frames(12), teacher="toy")
    with pytest.raises(TeacherError, match="emt, toy"):
        ml.TorchDataset(store)
    with pytest.raises(TeacherError, match="emt, toy"):
        release(store, tmp_path / "out")
    assert len(ml.TorchDataset(store, split=None, teacher="toy")) == 12
    assert "stress" not in ml.TorchDataset(store, split=None, teacher="toy")[0]
    path = release(store, tmp_path / "out", teacher="emt")
    assert len(ml.TorchDataset(path, split=None)) == 20


def test_empty_splits_still_open(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    store.append(metal_frames(3))
    path = release(store, tmp_path / "out")
    with xr.open_dataset(path, group="val", engine="h5netcdf") as ds:
        assert ds.sizes["sample"] == 0
    assert len(ml.TorchDataset(path, split="train")) == 3


def test_errors_name_the_remedy(store, tmp_path):
    (tmp_path / "x.h5").write_bytes(b"not hdf5")
    with pytest.raises(FormatError, match="expected an HDF5 release"):
        ml.TorchDataset(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.h5", "w"):
        pass
    with pytest.raises(FormatError, match="mlffstore export"):
        ml.TorchDataset(tmp_path / "y.h5")
    with pytest.raises(StoreNotFoundError):
        ml.TorchDataset(tmp_path / "absent.h5")
    with pytest.raises(DataError, match="split: expected one of train, val, test"):
        ml.TorchDataset(store, split="dev")
    with pytest.raises(DataError, match="dtype"):
        ml.TorchDataset(store, dtype=torch.int64)
    with pytest.raises(IndexError):
        ml.TorchDataset(store, split=None).batch([60])
