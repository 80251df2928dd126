"""Checkpoints and histories of any content with right checksums: a store opens, or raises one of our errors."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import MlffstoreError
from mlffstore.format import checkpoint
from mlffstore.format.increment import seal, unseal
from mlffstore.format.log import Log
from tests.samples import metal_frames

pytestmark = pytest.mark.timeout(3600)  # at nightly size, on a busy machine

_VALUES = (None, True, 0, -1, 1, 3, 2**40, 2**70, 1.5, "", "x", "segments/" + "0" * 32 + ".zarr.zip", "../x", "9" * 40, [],
           {}, [1], {"a": 1}, [[]], "float64", "energy.x")  # fmt: skip


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "EVERY", 4)
        store = ml.create(tmp_path_factory.mktemp("help") / "d.zarr")
        for i in range(9):
            store.append(metal_frames(2, seed=i), teacher="emt", key=f"k{i}", provenance={"task": i})
        store.add_column("dose", np.arange(len(store)))
        store.compact(target_nbytes=30_000)
        store.remove([1], reason="bad")
        store.tag("v1")
        while store.version % 4 != 1:
            store.append(metal_frames(1, seed=store.version), teacher="emt")
        yield Path(store.url)


def places(node, path=()):
    """Yield the path of each part of a JSON value."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def change_value(document, rng):
    """Return a JSON value of which one part is gone or is anything."""
    document = copy.deepcopy(document)
    place = rng.choice([p for p in places(document) if p] or [()])
    if not place:
        return rng.choice(_VALUES)
    node = document
    for key in place[:-1]:
        node = node[key]
    if rng.random() < 0.2:
        node.pop(place[-1])
    else:
        node[place[-1]] = rng.choice(_VALUES)
    return document


def change(data: bytes, rng: random.Random) -> bytes:
    """Return a sealed file that was changed in one place and sealed again."""
    text = data[: unseal(data, "file")]
    if rng.random() < 0.7:  # some part of its JSON
        lines = text.split(b"\n")
        i = rng.choice([0] * 3 + list(range(len(lines))))
        end = b"," if lines[i].endswith(b",") else b""
        head = lines[i].removesuffix(b",")
        for opened, closed in ((b"", b""), (b"", b"]}")):
            try:
                document = json.loads(opened + head + closed)
            except ValueError:
                continue
            new = json.dumps(change_value(document, rng), separators=(",", ":")).encode()
            lines[i] = new.removesuffix(closed) + end
            break
        return seal(b"\n".join(lines))
    changed = bytearray(text)
    for _ in range(rng.randint(1, 3)):
        if not changed:
            break
        place = rng.randrange(len(changed))
        if rng.random() < 0.5:
            changed[place] = rng.randrange(256)
        else:
            del changed[place : place + rng.randint(1, 200)]
    return seal(bytes(changed))


def use(folder: Path) -> None:
    store = ml.open(folder)
    store.snapshot().read()
    store.snapshot(3)
    store.history()
    store.provenance()
    store.keys()
    list(store.snapshot().segments)
    store.snapshot().summary()


@pytest.mark.parametrize("number", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_no_checkpoint_or_history_does_more_than_raise_our_errors(number, victim, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 4)
    folder = Path(shutil.copytree(victim, tmp_path / "d.zarr"))
    files = sorted((folder / "_checkpoint").iterdir())
    good = ml.open(folder).snapshot().read().content_hash
    refused = 0
    for i in range(number):
        rng = random.Random(i)
        path = rng.choice(files)
        data = path.read_bytes()
        path.write_bytes(change(data, rng))
        try:
            use(folder)
        except MlffstoreError:
            refused += 1
        if i % 5 == 0:
            ml.verify(folder, full=True)
        path.write_bytes(data)
    assert np.array_equal(ml.open(folder).snapshot().read().content_hash, good)
    assert refused < number / 2, "most damage of a checkpoint costs only time"


def test_what_does_not_fit_is_found_by_verify(victim, tmp_path, monkeypatch):
    """A checkpoint that says something else than the log, with a right checksum, is used by readers and found by verify."""
    monkeypatch.setattr(checkpoint, "EVERY", 4)
    folder = Path(shutil.copytree(victim, tmp_path / "d.zarr"))
    version = checkpoint.newest(ml.open(folder)._storage)
    path = folder / checkpoint.path_of(version)
    data = path.read_bytes()
    text = data[: unseal(data, "file")]
    path.write_bytes(seal(text.replace(b'"tags":{}', b'"tags":{"forged":1}', 1)))
    problems = ml.verify(folder, full=True).problems
    assert [problem.path for problem in problems] == [checkpoint.path_of(version)]
    assert "tags" in problems[0].text
    log = ml.open(folder)._log
    assert Log(log.storage, log._empty).replay(log.fresh()).tags != ml.open(folder).tags
