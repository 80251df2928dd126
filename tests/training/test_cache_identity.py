"""The cache answers for one content only: copies, stores made anew, quarantines, edited releases have their own."""

from __future__ import annotations

import os
import shutil

import h5py
import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.runtime import folders
from mlffstore.training import cache
from tests.samples import metal_frames


def samples(n, first=0.0, seed=0, **extra):
    """Return samples of 3 atoms whose energies count up."""
    rng = np.random.default_rng(seed)
    return ml.SampleBatch(
        n_atoms=[3] * n, numbers=[6] * 3 * n, positions=rng.normal(size=(3 * n, 3)), energy=first + np.arange(n),
        forces=rng.normal(size=(3 * n, 3)), extra=extra,
    )  # fmt: skip


def energies(data):
    return data.batch(range(len(data)))["energy"].tolist()


def test_copies_of_a_store_that_grew_apart_have_caches_of_their_own(tmp_path, caches):
    ml.create(tmp_path / "a.zarr").append(samples(5))
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    for name, first in (("a", 50.0), ("b", 70.0)):
        ml.open(tmp_path / f"{name}.zarr", "a").append(samples(5, first, seed=1))
    for name, first in (("a", 50.0), ("b", 70.0)):
        data = ml.TorchDataset(tmp_path / f"{name}.zarr", split=None)
        assert energies(data) == [*range(5), *(first + k for k in range(5))]
    assert len(cache.cached()) == 2


def test_a_store_that_was_made_anew_in_its_place_is_not_taken_for_it(tmp_path, caches):
    path = tmp_path / "d.zarr"
    ml.create(path).append(samples(5))
    data = ml.TorchDataset(path, split=None)
    state = data.__getstate__()
    shutil.rmtree(path)
    ml.create(path).append(samples(5, 30.0))
    again = ml.TorchDataset.__new__(ml.TorchDataset)
    again.__dict__.update(state, source=ml.open(path).snapshot())  # what a worker would find
    with pytest.raises(DataError, match="make a new dataset"):
        len(again)
    assert energies(ml.TorchDataset(path, split=None))[0] == 30.0


def test_the_quarantine_of_a_version_is_not_its_samples(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(3))
    snap = store.snapshot()
    assert snap.digest != snap.quarantine.digest
    assert snap.digest == store.snapshot().digest


def test_a_release_whose_file_kept_its_size_and_times(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1, "val": 0, "test": 0})
    store.append(metal_frames(6), teacher="emt")
    path = ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "r.h5")
    before, stat = energies(ml.TorchDataset(path)), path.stat()
    with h5py.File(path, "r+") as file:
        file["train/energy"][2] += 1.0
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert energies(ml.TorchDataset(path)) == [e + (k == 2) for k, e in enumerate(before)]


def test_a_checksum_is_kept_until_the_file_changes(tmp_path, caches, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    first = folders.file_checksum(path)
    assert not list(caches.glob("checksums/*"))  # the file is too young: it could change within the clock's resolution
    monkeypatch.setattr(folders, "_SETTLED", -1)
    assert folders.file_checksum(path) == first
    (note,) = caches.glob("checksums/*")
    note.write_text("f" * 64)
    assert folders.file_checksum(path) == "f" * 64  # not computed again
    note.write_text("half")
    assert folders.file_checksum(path) == first
    path.write_bytes(b"abd")
    assert folders.file_checksum(path) not in (first, "f" * 64)
    folders.clear()
    assert list(caches.iterdir()) == []
