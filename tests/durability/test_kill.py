"""Writers, compactions and garbage collections are killed at random moments; nothing acknowledged is ever lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import mlffstore as ml
from tests.samples import metal_frames

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(3600),
]
_BATCHES = [ml.SampleBatch.from_ase(metal_frames(2, seed=seed)) for seed in range(4)]


def write(url: str, round_: int, acknowledge: int) -> None:
    """Append for ever, and say so on a pipe after each commit."""
    store = ml.open(url, mode="a")
    for i in range(100_000):
        key = f"{round_}/{i}"
        version = store.append(_BATCHES[i % len(_BATCHES)], key=key)
        os.write(acknowledge, f"{version} {key}\n".encode())


def tidy(url: str, round_: int, acknowledge: int) -> None:
    """Compact and collect garbage for ever."""
    store = ml.open(url, mode="a")
    while True:
        store.compact(target_nbytes=20_000 + 1000 * round_)
        # Give up what was merged away, so that there is something to collect. Nobody writes, so no grace is needed.
        store.gc(dry_run=False, grace=0, expire_before=store.version)
        store.append(_BATCHES[0])
        store.append(_BATCHES[1])
        os.write(acknowledge, b"\n")


def kill_at_random(target, url: str, round_: int, most: int) -> bytes:
    """Run `target` in a process, kill it with SIGKILL at a random moment, and return what it had acknowledged.

    The moment lies within the time of a commit after up to `most` acknowledgements, so that a slow or busy machine takes
    longer and makes the same progress.
    """
    receive, send = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=target, args=(url, round_, send))
    process.start()
    os.close(send)
    wanted, data, began, last = random.randint(0, most), b"", time.monotonic(), 0.05
    while data.count(b"\n") < wanted:
        data += os.read(receive, 1 << 16)
        last = (time.monotonic() - began) / max(1, data.count(b"\n"))
    time.sleep(random.uniform(0, last))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while part := os.read(receive, 1 << 16):
        data += part
    os.close(receive)
    return data


def acknowledged_commits(data: bytes) -> dict[str, int]:
    lines = data.decode().split("\n")[:-1]  # the last line may be cut
    return {key: int(version) for version, key in (line.split(" ") for line in lines)}


def expected_energies(keys: dict[str, int]) -> np.ndarray:
    """Return the energies of a store that holds these keys, in order of their commits."""
    order = sorted(keys, key=keys.__getitem__)
    return np.concatenate([_BATCHES[int(key.split("/")[1]) % len(_BATCHES)].energy for key in order])


@pytest.mark.parametrize("kills", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_killed_writers_lose_nothing(kills, tmp_path):
    random.seed(kills)
    store = ml.create(tmp_path / "d.zarr")
    acknowledged: dict[str, int] = {}
    for round_ in range(kills):
        acknowledged |= acknowledged_commits(kill_at_random(write, store.url, round_, 8))
        seen = ml.open(store.url)
        keys = seen.keys()
        assert keys | acknowledged == keys, "an acknowledged commit is gone"
        assert sorted(keys.values()) == list(range(1, seen.version + 1)), "a gap in the log"
    assert len(acknowledged) > kills
    # The next writer simply works, and everything is there bit by bit: what was acknowledged and whole commits that
    # were not acknowledged in time, nothing else.
    assert store.append(_BATCHES[0], key=f"{kills}/0") == len(keys) + 1
    keys = store.keys()
    snap = ml.open(store.url).snapshot()
    assert np.array_equal(snap.read(columns=["energy"]).energy, expected_energies(keys))
    assert store.verify(full=True).ok
    store.gc(dry_run=False, grace=0)
    folders = {f"segments/{path.name}" for path in (Path(store.url) / "segments").iterdir()}
    assert folders == {segment.path for segment in snap.segments}, "what killed writers left is gone, the rest is not"
    assert not list(Path(store.url).rglob(".tmp-*"))
    assert store.verify(full=True).ok


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_compactions_and_collections_leave_a_good_store(kills, tmp_path):
    random.seed(kills)
    store = ml.create(tmp_path / "d.zarr")
    for i in range(12):
        store.append(_BATCHES[i % 4], key=f"0/{i}")
    first = store.snapshot().read().content_hash
    moves = 0
    for round_ in range(kills):
        moves += len(kill_at_random(tidy, store.url, round_, 2))
        assert np.array_equal(ml.open(store.url).snapshot().read(slice(0, len(first))).content_hash, first)
        found = ml.verify(store.url, full=True)
        assert found.ok, found.problems
    assert moves
    assert ml.open(store.url).keys() == {f"0/{i}": i + 1 for i in range(12)}
