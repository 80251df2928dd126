"""Chunks that are compressed here must be what the HDF5 library reads as its own filters' work."""

from __future__ import annotations

import shutil
import subprocess
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlffstore_exporters import chunks


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 5000), width=st.integers(1, 9), chunk=st.integers(1, 3000), block=st.integers(1, 700),
    dtype=st.sampled_from(["f4", "f8", "u1", "i2", "i4", "u8"]), level=st.integers(1, 9), seed=st.integers(0, 99),
)  # fmt: skip
def test_h5py_reads_what_we_write(tmp_path_factory, n, width, chunk, block, dtype, level, seed):
    rng = np.random.default_rng(seed)
    values = (rng.normal(0, 50, (n, width)) if seed % 2 else rng.integers(0, 3, (n, width))).astype(dtype)
    path = tmp_path_factory.getbasetemp() / "chunks.h5"
    with h5py.File(path, "w") as file:
        filters = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
        dataset = file.create_dataset("x", values.shape, dtype, chunks=(min(chunk, n), width), **filters)
        queue, column = chunks.ChunkQueue(), chunks.ChunkedDataset(dataset, level)
        for low in range(0, n, block):
            queue.add(column, values[low : low + block])
        queue.finish(column)
        queue.drain()
    with h5py.File(path) as file:
        assert np.array_equal(file["x"][...], values)


@pytest.mark.parametrize("noise", [0, 1, 2, 3, 4])
def test_noise_is_stored_and_the_stream_is_zlib(noise):
    rng = np.random.default_rng(noise)
    planes = np.zeros((4, 100_003), np.uint8)
    planes[:noise] = rng.integers(0, 256, (noise, 100_003), np.uint8)
    planes[noise:] = rng.integers(0, 3, (4 - noise, 100_003), np.uint8)
    stream = chunks.zlib_stream(planes, 4)
    assert zlib.decompress(stream) == planes.tobytes()
    # A stored plane costs 5 bytes for each 65,535, three values take 2 bits each at most.
    assert len(stream) < noise * 100_020 + (4 - noise) * 0.27 * 100_003 + 100


def test_h5dump_reads_a_release(published):
    if shutil.which("h5dump") is None:
        pytest.skip("needs h5dump (hdf5-tools)")
    done = subprocess.run(
        ["h5dump", "-d", "/train/forces", str(published / "metals-1.0.0.h5")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "FLETCHER32" not in done.stderr
    assert "DATA {" in done.stdout
