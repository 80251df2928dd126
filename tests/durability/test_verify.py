"""`verify` finds every damage and names it, and damaged bytes are never returned as data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.schema import label_column
from mlffstore.errors import StoreError, StoreNotFoundError
from mlffstore.format import checkpoint
from mlffstore.format.records import layer_document
from mlffstore.format.segment import write_layer
from tests.clusters import cluster
from tests.samples import metal_frames, mixed_frames
from tests.stored import shards


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store with everything: commits, quarantine, layers, tags, a compaction, checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "EVERY", 4)
        store = ml.create(tmp_path_factory.mktemp("built") / "d.zarr")
        for i in range(6):
            store.append(mixed_frames(4, seed=i), key=f"k{i}")
        rejected = ml.SampleBatch.from_ase(metal_frames(2, seed=9))
        store.commit(
            ml.SampleBatch.from_ase(metal_frames(2, seed=10)), rejected=rejected, reasons=["too hot", "too close"]
        )
        store.tag("v1")
        store.compact(target_nbytes=8000)
        store.append(metal_frames(3, seed=20))
        segment = store.snapshot().segments[-1]
        layer = write_layer(store._storage, segment, [(label_column("energy", "other"), np.arange(3.0))])
        store._log.commit("layer", None, {"layers": [layer_document(layer)]}, lambda state: None)
    return Path(store.url)


@pytest.fixture
def store(built, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 4)
    shutil.copytree(built, tmp_path / "d.zarr")
    return tmp_path / "d.zarr"


def paths(found) -> list[str]:
    return [problem.path for problem in found.problems]


def test_a_good_store_has_no_problems(built):
    fast, full = ml.verify(built), ml.verify(built, full=True)
    assert fast.ok, fast.problems
    assert full.ok, full.problems
    assert full.version == ml.open(built).version
    assert full.n_segments > len(ml.open(built).snapshot().segments)  # those that only older versions need, too


def test_nothing_is_no_store(tmp_path):
    with pytest.raises(StoreNotFoundError):
        ml.verify(tmp_path)


@pytest.mark.parametrize("flips", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_bit_flip_is_found_and_none_is_read_as_data(flips, store):
    """Flips are drawn evenly from all bytes below the store, but at least one for each kind of file."""
    rng = np.random.default_rng(flips)
    files = sorted(path for path in store.rglob("*") if path.is_file())
    sizes = np.array([path.stat().st_size for path in files])
    good = ml.open(store).snapshot().read()
    rejected = ml.open(store).snapshot().quarantine.read()
    kinds = {(path.name if path.name[0] != "0" else "entry", path.parts[-2]): i for i, path in enumerate(files)}
    chosen = [*kinds.values(), *rng.choice(len(files), max(0, flips - len(kinds)), p=sizes / sizes.sum())][:flips]
    for which in chosen:
        path, where, bit = files[which], int(rng.integers(sizes[which])), int(rng.integers(8))
        data = path.read_bytes()
        damaged = bytearray(data)
        damaged[where] ^= 1 << bit
        path.write_bytes(damaged)
        relative = path.relative_to(store).as_posix()
        found = ml.verify(store, full=True)
        # Exactly this file is named; a damaged entry also says from which version on the log cannot be read.
        assert relative in paths(found), (relative, where, bit, found.problems)
        assert set(paths(found)) <= {relative, "_log"}, (relative, where, bit, found.problems)
        assert not found.ok
        try:
            snap = ml.open(store).snapshot()
            batch, refused = snap.read(), snap.quarantine.read()
        except StoreError:
            pass
        else:
            for ours, theirs in ((batch, good), (refused, rejected)):
                assert all(np.array_equal(ours.columns[name], theirs.columns[name]) for name in theirs.columns)
                for who, named in theirs.labels.items():
                    assert all(np.array_equal(ours.labels[who][k], v, equal_nan=True) for k, v in named.items())
        path.write_bytes(data)
    assert ml.verify(store, full=True).ok


def test_missing_truncated_and_exchanged_files_are_named(store):
    first, second = sorted(store.glob("segments/*"))[:2]
    shutil.copy(first, store.parent / "kept")

    def damaged(full: bool = True) -> list[str]:
        return paths(ml.verify(store, full=full))

    first.unlink()
    assert damaged(full=False) == damaged() == [first.relative_to(store).as_posix()]
    first.write_bytes((store.parent / "kept").read_bytes()[:-5])
    assert damaged(full=False) == damaged() == [first.relative_to(store).as_posix()]
    first.write_bytes((store.parent / "kept").read_bytes() + b"more")
    assert damaged(full=False) == damaged() == [first.relative_to(store).as_posix()]
    shutil.copy(second, first)
    assert damaged() == [first.relative_to(store).as_posix()]
    shutil.copy(store.parent / "kept", first)
    assert damaged() == []


def test_the_damaged_columns_are_named(store):
    for shard in (*shards(ml.open(store), "positions")[:1], *shards(ml.open(store), "energy.other")):
        data = bytearray(shard.read())
        data[0] ^= 1
        shard.write(bytes(data))
        (problem,) = ml.verify(store, full=True).problems
        assert problem.path == shard.path.relative_to(store).as_posix()
        assert f"SHA-256 of {shard.column})" in problem.text
        data[0] ^= 1
        shard.write(bytes(data))


def test_damage_to_the_log_does_not_end_the_search(store):
    log = store / "_log"
    good = {path.name: path.read_bytes() for path in log.iterdir()}
    (log / f"{3:020d}.json").unlink()
    (log / f"{5:020d}.json").write_bytes(good[f"{5:020d}.json"].replace(b"append", b"appemd"))
    found = ml.verify(store)
    assert paths(found) == [f"_log/{3:020d}.json", "_log", f"_log/{5:020d}.json"]
    assert "missing, though later ones exist" in found.problems[0].text
    assert "versions from 3 on cannot be read" in found.problems[1].text
    assert found.version == 2
    (log / f"{3:020d}.json").write_bytes(good[f"{3:020d}.json"])
    (log / f"{5:020d}.json").write_bytes(good[f"{5:020d}.json"])
    (log / "notes.txt").write_text("mine")
    assert paths(ml.verify(store)) == ["_log/notes.txt"]


def test_entries_missing_from_the_end_are_found_by_the_checkpoint(store):
    for path in sorted((store / "_log").iterdir())[-4:]:
        path.unlink()
    assert "entries are missing from its end" in " ".join(problem.text for problem in ml.verify(store).problems)


def test_the_root_document_is_checked_against_the_log(store):
    root = store / "zarr.json"
    data = root.read_text()
    root.write_text(data.replace('"split_seed": 0', '"split_seed": 1'))
    assert paths(ml.verify(store)) == ["zarr.json"]
    root.unlink()
    assert paths(ml.verify(store)) == ["zarr.json"]


def test_a_checkpoint_that_says_something_else_is_found(store):
    from mlffstore.format.codec import crc32c

    path = next(path for path in sorted((store / "_checkpoint").glob("0*.json")) if b'"k1":2' in path.read_bytes())
    text = path.read_bytes().rpartition(b',"crc32c":')[0].replace(b'"k1":2', b'"k1":3')
    path.write_bytes(text + b',"crc32c":%d}\n' % crc32c(text))
    found = ml.verify(store, full=True)
    assert paths(found) == [path.relative_to(store).as_posix()]
    assert "differs from the log (keys)" in found.problems[0].text


def test_it_runs_on_a_dask_client(store):
    path = next(store.glob("segments/*"))
    path.write_bytes(path.read_bytes()[:-1])
    with cluster(active=True, n_workers=2, processes=False):
        assert paths(ml.verify(store)) == [path.relative_to(store).as_posix()]


def test_command_line(store):
    from tests.command import cli

    done = cli("verify", store, "--full")
    assert done.exit_code == 0
    assert "no damage" in done.stdout
    path = next(store.glob("segments/*"))
    os.truncate(path, 10)
    done = cli("verify", store, code=1)
    assert done.exit_code == 1
    assert path.relative_to(store).as_posix() in done.stdout
    assert "Traceback" not in done.stderr
