"""The cache notices damage before it gives out a number, and gets over other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import CorruptionError, StorageError
from mlffstore.runtime import folders
from mlffstore.training import cache
from mlffstore.training.layout import extra_begin
from mlffstore.training.sources import source


def samples(n, first=0.0, seed=0, **extra):
    """Return samples of 3 atoms whose energies count up."""
    rng = np.random.default_rng(seed)
    return ml.SampleBatch(
        n_atoms=[3] * n, numbers=[6] * 3 * n, positions=rng.normal(size=(3 * n, 3)), energy=first + np.arange(n),
        forces=rng.normal(size=(3 * n, 3)), extra=extra,
    )  # fmt: skip


def energies(data):
    return data.batch(range(len(data)))["energy"].tolist()


@pytest.mark.parametrize("where", ["record", "row", "atoms", "samples"])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_is_an_error_when_its_sample_is_read(tmp_path, caches, where, bit):
    store = ml.create(tmp_path / "d.zarr")
    weights = {
        "weight": (np.arange(120.0, dtype=np.float32), "1", "atom"),
        "mark": (np.arange(80).reshape(40, 2), "1", "sample"),
    }
    store.append(samples(40, **weights))
    whole = ml.TorchDataset(store, split=None)
    (one,) = cache.cached()
    columns, _ = whole.load()
    name, at = {
        "record": ("records.bin", 4 * int(columns.begin[20]) + 71),  # a force
        "row": ("rows.npy", -20 * 168 + 3),
        "atoms": ("records.bin", 4 * int(columns.begin[20]) + extra_begin(3, 6, 4) + 5),
        "samples": ("extra.npy", -20 * columns.extra_rows.shape[1] + 2),
    }[where]
    with (one.path / name).open("r+b") as file:
        file.seek(at, os.SEEK_SET if at > 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ (1 << bit)]))
    data = ml.TorchDataset(store, split=None)
    if where in ("atoms", "samples"):
        assert energies(ml.TorchDataset(store, split=None, columns=())) == list(range(40))
    data.batch(range(20))
    data.batch(range(21, 40))
    for read in (lambda: data[20], lambda: data.batch([3, 20]), lambda: list(data.loader(8, shuffle=False))):
        with pytest.raises(CorruptionError, match="cache --clear"):
            read()
    text = "other columns of sample 20 changed" if where in ("atoms", "samples") else "sample 20 changed"
    assert cache.damage(one.path) == text


def test_files_of_another_size_are_an_error_and_not_a_signal(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(5000))
    ml.TorchDataset(store, split=None)
    (one,) = cache.cached()
    files = sorted(path.name for path in one.path.iterdir())
    assert {"records.bin", "rows.npy", "n_atoms.npy", "sums.npy", "about.json"} <= set(files)
    for name in files:
        whole = (one.path / name).read_bytes()
        for part in (whole[: len(whole) // 2], whole[:40], b"", whole + bytes(64)):
            if part == whole:
                continue
            (one.path / name).unlink()
            (one.path / name).write_bytes(part)
            if name.endswith(".npy") and len(part) > len(whole):
                continue  # NumPy reads the array that the header describes, which is whole
            with pytest.raises(CorruptionError, match="cache --clear"):
                ml.TorchDataset(store, split=None)
        (one.path / name).unlink()
        (one.path / name).write_bytes(whole)
    np.save(one.path / "rows.npy", np.zeros((3, 21)))
    with pytest.raises(CorruptionError, match=r"rows\.npy"):
        ml.TorchDataset(store, split=None)
    folders.clear()
    assert len(energies(ml.TorchDataset(store, split=None))) == 5000


def test_a_missing_file_is_a_miss(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(50))
    data = ml.TorchDataset(store, split=None)
    for name in sorted(path.name for path in cache.cached()[0].path.iterdir()):
        (cache.cached() or folders.cached())[0].path.joinpath(name).unlink()
        assert energies(ml.TorchDataset(store, split=None)) == energies(data)
        assert len(cache.cached()) == 1
        assert cache.damage(cache.cached()[0].path) == ""


def test_a_dataset_goes_on_when_its_cache_is_removed(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(50))
    data = ml.TorchDataset(store, split=None)
    folders.clear()
    assert cache.cached() == []
    assert energies(data) == list(range(50))


_BUILD = """
import signal, sys, os
import mlffstore as ml
from mlffstore.training import cache
from mlffstore.training.sources import source
def stop(done, n):
    print("building", flush=True)
    signal.pause()
cache.mapped(source(sys.argv[1], None), stop)
"""


def test_builds_that_were_killed_are_removed_and_others_are_not(tmp_path, caches):
    stores = [ml.create(tmp_path / f"{k}.zarr") for k in range(2)]
    children = []
    for store in stores:
        store.append(samples(50))
        child = subprocess.Popen([sys.executable, "-c", _BUILD, store.url], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "building\n"
        children.append(child)
    children[0].send_signal(signal.SIGKILL)
    children[0].wait()
    assert len(list(caches.glob("*.tmp"))) == 2
    fresh = caches / f"{'0' * 32}.{'1' * 32}.tmp"  # its builder has not got its lock yet
    fresh.mkdir()
    folders.sweep()
    assert len(list(caches.glob("*.tmp"))) == 2
    old = time.time() - 1000
    os.utime(fresh, (old, old))
    assert energies(ml.TorchDataset(stores[0], split=None)) == list(range(50))
    assert len(list(caches.glob("*.tmp"))) == 1  # the one that is still being built
    folders.clear()
    assert len(list(caches.glob("*.tmp"))) == 1
    children[1].kill()
    children[1].wait()
    for child in children:
        child.stdout.close()
    folders.clear()
    assert list(caches.iterdir()) == []


def test_a_cache_that_was_built_twice_is_there_once(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(20))
    folder = cache.mapped(source(store, None)).place
    again = cache._build(source(store, None), folders.cached()[0].path, None)
    assert again.place == folder
    assert again.digest(np.arange(20)) == cache.mapped(source(store, None)).digest(np.arange(20))
    assert len(list(caches.iterdir())) == 1


_FULL = """
import resource, sys
import mlffstore as ml
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as a full disk: no file can grow beyond
try:
    ml.TorchDataset(sys.argv[1], split=None)
except ml.errors.StorageError as error:
    print(error)
"""


def test_a_disk_without_room_is_an_error_and_not_a_signal(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(5000))
    child = subprocess.run([sys.executable, "-c", _FULL, store.url], capture_output=True, text=True, check=False)
    assert "MLFFSTORE_CACHE" in child.stdout, (child.returncode, child.stderr)
    assert list(caches.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFFSTORE_CACHE", str(tmp_path / "file" / "cache"))
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(5))
    with pytest.raises(StorageError, match="MLFFSTORE_CACHE"):
        ml.TorchDataset(store, split=None)
    assert len(ml.TorchDataset(store, split=None, cache="memory")) == 5


def test_a_damaged_header_is_damage(tmp_path, caches):
    """NumPy's parser of headers raises errors of Python's tokenizer."""
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(3))
    ml.TorchDataset(store, split=None)
    (one,) = cache.cached()
    place = one.path / "begin.npy"
    place.write_bytes(place.read_bytes().replace(b"}", b" ", 1))
    with pytest.raises(CorruptionError, match="the cache is damaged"):
        ml.TorchDataset(store, split=None)
