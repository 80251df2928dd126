"""Segments are zipped Zarr v3 groups: readers that know nothing of this library see the same numbers."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import ZipStore

import mlffstore as ml
from mlffstore.format import codec
from mlffstore.format.archive import ArchiveWriter
from mlffstore.format.reader import ChunkCache, ColumnReader, read_column
from tests.samples import mixed_frames


@pytest.fixture(params=["one chunk", "shards"])
def segment(request, tmp_path, monkeypatch):
    """Return the file of a segment with labels, a user column and a mask, and its columns as this library reads them."""
    if request.param == "shards":
        monkeypatch.setattr(codec, "CHUNK_NBYTES", 400)
    store = ml.create(tmp_path / "d.zarr")
    frames = ml.SampleBatch.from_ase(mixed_frames(12), teacher="emt")
    extra = {
        "weight": (np.linspace(0, 1, 12), "1", "sample"),
        "step": (np.ma.MaskedArray(np.arange(12), np.arange(12) % 3 == 0), "1", "sample"),
    }
    names = ("n_atoms", "numbers", "positions", "cell", "pbc")
    batch = ml.SampleBatch(
        **{name: frames.columns[name] for name in names},
        **frames.labels["emt"],
        teacher="emt",
        source="a b",
        extra=extra,
    )
    store.append(batch)
    store.add_column("other", np.linspace(0, 1, 12))
    (stored,) = store.snapshot().segments
    reader = ColumnReader(store._storage, ChunkCache(0))
    columns = {
        key: read_column(reader, column) for key, column in stored.columns.items() if column.file.path == stored.path
    }
    assert len(columns) == 11 + 3 + 3
    return Path(store.url) / stored.path, columns


def test_zarr_python_reads_every_column(segment):
    path, columns = segment
    group = zarr.open_group(ZipStore(path, mode="r"), mode="r")
    assert sorted(group.array_keys()) == sorted(columns)
    for name, values in columns.items():
        assert np.array_equal(group[name][...], values, equal_nan=values.dtype.kind == "f"), name
        assert group[name].dtype == values.dtype
    assert group["positions"].attrs["units"] == "angstrom"
    assert group["n_atoms"].attrs["sample_dimension"] == "atom"
    assert group["source"].attrs["flag_meanings"] == "a_b"
    assert group["source"].attrs["meanings"] == ["a b"]
    assert group["forces.emt"].metadata.dimension_names == ("atom", "xyz")


def test_xarray_opens_a_segment(segment):
    path, columns = segment
    ds = xr.open_zarr(ZipStore(path, mode="r"), consolidated=False)
    for name, values in columns.items():
        assert np.array_equal(ds[name].values, values, equal_nan=values.dtype.kind == "f"), name
    assert ds["stress.emt"].dims == ("sample", "voigt")


def test_tensorstore_reads_every_column(segment):
    tensorstore = pytest.importorskip("tensorstore")
    path, columns = segment
    for name, values in columns.items():
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "zip", "base": {"driver": "file", "path": str(path)}, "path": f"{name}/"},
        }
        read = tensorstore.open(spec, open=True, read=True).result().read().result()
        assert np.array_equal(read, values, equal_nan=values.dtype.kind == "f"), name


@pytest.mark.slow
def test_zarrita_reads_every_column(segment, tmp_path):
    """The JavaScript reader, from the npm registry."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    path, columns = segment
    shutil.copy(Path(__file__).with_name("segment.mjs"), tmp_path)
    (tmp_path / "package.json").write_text("{}")
    subprocess.run(
        ["npm", "install", "--silent", "zarrita@0.7", "@zarrita/storage@0.2"], cwd=tmp_path, check=True, timeout=120
    )
    done = subprocess.run(
        ["node", "segment.mjs", str(path), *columns],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    for name, read in json.loads(done.stdout).items():
        values = columns[name]
        assert tuple(read["shape"]) == values.shape
        if values.dtype == bool:
            flat = np.array([text == "true" for text in read["data"]])
        else:
            flat = np.array(read["data"]).astype(values.dtype)
        assert np.array_equal(flat.reshape(values.shape), values, equal_nan=values.dtype.kind == "f"), name


def test_the_archive_is_plain(segment):
    """Nothing is compressed, metadata come first, and Python's own reader finds every entry whole."""
    path, columns = segment
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        assert archive.testzip() is None
    names = [entry.filename for entry in entries]
    assert names[0] == "zarr.json"
    assert all(name.endswith("zarr.json") for name in names[: len(columns) + 1])
    assert len(names) == 2 * len(columns) + 1
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


def test_equal_samples_make_equal_bytes(tmp_path):
    files = []
    for name in "ab":
        store = ml.create(tmp_path / name)
        store.append(mixed_frames(3))
        files.append((tmp_path / name / store.snapshot().segments[0].path).read_bytes())
    assert files[0] == files[1]


def test_large_archives_use_zip64(tmp_path):
    """More than 4 GiB in an entry, after one, and more than 65,535 entries; the large entry is a hole in the file."""
    path = tmp_path / "large.zip"
    archive = ArchiveWriter()
    size = (1 << 32) + 5
    with path.open("wb") as file:
        file.write(archive.header("a", b"first") + b"first")
        file.write(archive.header_of("hole", size, 0))
        file.seek(size, os.SEEK_CUR)
        for i in range(70_000):
            file.write(archive.header(f"n{i}", b"x") + b"x")
        file.write(archive.header("last", b"end") + b"end")
        file.write(archive.directory())
        assert file.tell() == archive.offset
    with zipfile.ZipFile(path) as read:
        assert len(read.namelist()) == 70_003
        assert read.getinfo("hole").file_size == size
        assert read.getinfo("last").header_offset > size
        assert (read.read("a"), read.read("last"), read.read("n69999")) == (b"first", b"end", b"x")


def test_the_smallest_archive():
    assert zipfile.ZipFile(io.BytesIO(ArchiveWriter().directory())).namelist() == []
