"""Damaged bytes are never returned as data: every way that we could think of is an error that says where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import CorruptionError, FormatError, StoreError
from tests.samples import mixed_frames
from tests.stored import shards


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(mixed_frames(6))
    store.append(mixed_frames(6, seed=1))
    return store


def test_single_bit_flips_in_data_are_found(store):
    rng = np.random.default_rng(0)
    good = ml.open(store.url).snapshot().read()
    for shard in shards(store):
        data = bytearray(shard.read())
        i, bit = int(rng.integers(len(data))), int(rng.integers(8))
        data[i] ^= 1 << bit
        shard.write(data)
        with pytest.raises(CorruptionError, match="restore"):
            ml.open(store.url).snapshot().read()
        data[i] ^= 1 << bit
        shard.write(data)
    assert np.array_equal(ml.open(store.url).snapshot().read().energy, good.energy)


def test_single_bit_flips_in_the_log_are_found(store):
    rng = np.random.default_rng(1)
    for path in sorted(Path(store.url).glob("_log/*.json")):
        data = path.read_bytes()
        for _ in range(40):
            flipped = bytearray(data)
            flipped[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            with pytest.raises(StoreError):
                ml.open(store.url)
        path.write_bytes(data)
    assert len(ml.open(store.url)) == 12


def test_missing_truncated_and_exchanged_files_are_found(store):
    one, other = (shard.path for shard in shards(store, "positions"))
    first, second = one.read_bytes(), other.read_bytes()
    one.unlink()
    with pytest.raises(CorruptionError, match="the file that the log names is missing"):
        store.snapshot().read()
    one.write_bytes(first[:-7])
    with pytest.raises(CorruptionError, match="truncated"):
        store.snapshot().read()
    one.write_bytes(second)
    with pytest.raises(CorruptionError, match=r"is not what was committed|truncated"):
        store.snapshot().read()


def test_exchanged_columns_are_found(store):
    """Both are whole, and their checksums are right."""
    one, other = shards(store, "positions")
    data = other.read()
    assert len(data) == one.nbytes
    one.write(data)
    with pytest.raises(CorruptionError, match="positions: is not what was committed"):
        store.snapshot().read()


def many_chunks(tmp_path, monkeypatch) -> ml.Store:
    """Return a store whose positions are a shard of several chunks."""
    from mlffstore.format import codec

    monkeypatch.setattr(codec, "CHUNK_NBYTES", 300)
    store = ml.create(tmp_path / "chunks.zarr")
    store.append(mixed_frames(20))
    return store


def test_a_missing_chunk_is_never_zeros(tmp_path, monkeypatch):
    """Zarr readers take a chunk that the index calls absent for the fill value; ours must not."""
    import struct

    import google_crc32c

    store = many_chunks(tmp_path, monkeypatch)
    (shard,) = shards(store, "positions")
    stored = store.snapshot().segments[0].columns["positions"]
    n_chunks = -(-stored.rows // stored.chunk)
    assert n_chunks > 3
    data = shard.read()
    index = b"\xff" * 16 * n_chunks
    shard.write(data[: -16 * n_chunks - 4] + index + struct.pack("<I", google_crc32c.value(index)))
    with pytest.raises(CorruptionError, match="not what was committed"):
        ml.open(store.url).snapshot().read()
    with pytest.raises(CorruptionError, match="is missing from the shard"):
        ml.open(store.url).snapshot().read([0], columns=["positions"])


def test_edited_and_replayed_log_entries_are_found(store):
    entry = Path(store.url) / "_log" / f"{1:020d}.json"
    data = entry.read_bytes()
    entry.write_bytes(data.replace(b'"n_samples":6', b'"n_samples":5'))
    with pytest.raises(CorruptionError, match="damaged or was edited"):
        ml.open(store.url)
    shutil.copy(entry.with_name(f"{2:020d}.json"), entry)
    with pytest.raises(CorruptionError, match="expected version 1, got 2"):
        ml.open(store.url)
    other = ml.create(Path(store.url).parent / "other.zarr")
    other.append(mixed_frames(6))
    shutil.copy(Path(other.url) / "_log" / entry.name, entry)
    with pytest.raises(CorruptionError, match="belongs to another store"):
        ml.open(store.url)


def rewrite(store, change) -> None:
    """Edit entry 1 and give it a right checksum, as someone who means harm would."""
    from mlffstore.format.codec import crc32c

    path = Path(store.url) / "_log" / f"{1:020d}.json"
    document = json.loads(path.read_bytes())
    document.pop("crc32c")
    change(document)
    text = json.dumps(document, separators=(",", ":"))[:-1]
    path.write_bytes(f'{text},"crc32c":{crc32c(text.encode())}}}\n'.encode())
    path.with_name(f"{2:020d}.json").unlink()


def hostile(name):
    def segment(d):
        return d["segments"][0]

    return {
        "path out of the store": lambda d: segment(d).update(path="../../etc"),
        "absolute path": lambda d: segment(d).update(path="/etc"),
        "absurd sample count": lambda d: segment(d).update(n_samples=10**30),
        "negative atom count": lambda d: segment(d).update(n_atoms=-1),
        "boolean count": lambda d: segment(d).update(n_samples=True),
        "text count": lambda d: segment(d).update(n_samples="6"),
        "wrong dtype": lambda d: segment(d)["columns"]["positions"].update(dtype="object"),
        "wrong shape": lambda d: segment(d)["columns"]["positions"].update(shape=[1, 3]),
        "nested shape": lambda d: segment(d)["columns"]["positions"].update(shape=[[1]]),
        "column outside of the file": lambda d: segment(d)["columns"]["positions"].update(offset=segment(d)["nbytes"]),
        "negative offset": lambda d: segment(d)["columns"]["positions"].update(offset=-1),
        "no size": lambda d: segment(d).pop("nbytes"),
        "no digest": lambda d: segment(d).update(digest=""),
        "zero chunk": lambda d: segment(d)["columns"]["positions"].update(chunk=0),
        "missing column": lambda d: segment(d)["columns"].pop("numbers"),
        "column name with slash": lambda d: segment(d)["columns"].update({"../x": segment(d)["columns"]["charge"]}),
        "columns a list": lambda d: segment(d).update(columns=[]),
        "vocabulary of numbers": lambda d: segment(d).update(vocabulary={"source": [1]}),
        "segments an object": lambda d: d.update(segments={}),
        "unknown operation": lambda d: d.update(operation="explode"),
        "future format": lambda d: d.update(format=99),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "path out of the store",
        "absolute path",
        "absurd sample count",
        "negative atom count",
        "boolean count",
        "text count",
        "wrong dtype",
        "wrong shape",
        "nested shape",
        "column outside of the file",
        "negative offset",
        "no size",
        "no digest",
        "zero chunk",
        "missing column",
        "column name with slash",
        "columns a list",
        "vocabulary of numbers",
        "segments an object",
        "unknown operation",
        "future format",
    ],
)
def test_hostile_entries_are_refused(name, store):
    rewrite(store, hostile(name))
    with pytest.raises(FormatError):
        ml.open(store.url)


def sealed(text: bytes) -> bytes:
    from mlffstore.format.codec import crc32c

    return text + b',"crc32c":%d}\n' % crc32c(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b"{}" * 1000,
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        b'{"format":1e999',
        b'{"format":' + b"9" * 5000,
        b"\xff\xfe",
    ],
    ids=["empty", "cut", "many", "deep objects", "deep lists", "infinite", "long number", "not UTF-8"],
)
def test_strange_json_is_refused(text, store):
    (Path(store.url) / "_log" / f"{1:020d}.json").write_bytes(sealed(text))
    with pytest.raises(StoreError):
        ml.open(store.url)


def test_a_huge_entry_is_not_read_into_memory(store, monkeypatch):
    from mlffstore.format import log

    path = Path(store.url) / "_log" / f"{1:020d}.json"
    with path.open("wb") as file:
        file.truncate(100 << 30)  # a sparse file of 100 GiB
    with pytest.raises(FormatError, match="expected at most 67108864 bytes"):
        ml.open(store.url)
    monkeypatch.setattr(log, "MAX_ENTRY_NBYTES", 10)
    path.unlink()
    with pytest.raises(FormatError, match="expected at most 10 bytes"):
        ml.open(store.url)


def test_nothing_in_the_library_unpickles():
    """pickle.load of a file that somebody sent runs their code."""
    root = Path(ml.__file__).parent
    for path in [*root.rglob("*.py"), *(root.parent / "exporters").rglob("*.py")]:
        text = path.read_text()
        if path.name != "calls.py":  # which reads what this process or its own worker processes wrote
            assert "pickle.load" not in text, path
        assert "allow_pickle=True" not in text, path


def test_symbolic_links_out_of_the_store_are_refused(store, tmp_path):
    outside = tmp_path / "outside"
    segment = Path(store.url) / store.snapshot().segments[0].path
    shutil.move(segment, outside)
    segment.symlink_to(outside)
    with pytest.raises(FormatError, match="symbolic link"):
        ml.open(store.url).snapshot().read()
