"""The cache of decoded chunks: what is used again is not decoded again, and what is kept has a bound."""

from __future__ import annotations

import numpy as np

import mlffstore as ml
from mlffstore.format import reader
from mlffstore.format.reader import ChunkCache
from tests.samples import metal_frames


def test_chunks_that_fit_are_decoded_once(tmp_path, monkeypatch):
    store = ml.create(tmp_path / "d.zarr")
    for seed in range(3):
        store.append(metal_frames(20, seed=seed))
    snapshot = ml.open(store.url).snapshot()
    snapshot.read()
    decoded = []
    decode = reader.decode_chunk
    monkeypatch.setattr(reader, "decode_chunk", lambda *arguments: decoded.append(arguments) or decode(*arguments))
    nbytes = sum(array.nbytes for array in snapshot._reader.cache._chunks.values())
    snapshot._reader.cache.nbytes = 4 * nbytes + 4096
    rng = np.random.default_rng(0)
    for _ in range(50):
        snapshot.read(rng.integers(len(snapshot), size=8))
    assert decoded == []
    assert snapshot._reader.cache._used == nbytes


def test_what_is_kept_has_a_bound():
    cache = ChunkCache(1000)
    for i in range(100):
        cache.put(("file", "column", i), np.zeros(25))  # 200 bytes
        cache.put(("file", "column", i), np.ones(25))  # of another thread, which was slower
        assert cache._used == sum(array.nbytes for array in cache._chunks.values()) <= 1000
    assert [key[2] for key in cache._chunks] == [95, 96, 97, 98, 99]
    assert not cache.get(("file", "column", 99)).any()
    cache.put(("file", "column", 100), np.zeros(32))  # more than a quarter
    assert cache.get(("file", "column", 100)) is None
