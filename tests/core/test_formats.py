"""Stores of every format version are read forever, bit by bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlffstore as ml
from tests.data.make_store_v2 import describe
from tests.samples import metal_frames

DATA = Path(__file__).parents[1] / "data"


def test_version_2(tmp_path):
    store = ml.open(DATA / "store-v2.zarr")
    assert json.loads(json.dumps(describe(store))) == json.loads((DATA / "store-v2.json").read_text())
    found = store.verify(full=True)
    assert found.ok, found.problems
    # It can still be written to, by this release.
    shutil.copytree(DATA / "store-v2.zarr", tmp_path / "d.zarr")
    later = ml.open(tmp_path / "d.zarr", "a")
    later.append(metal_frames(1, seed=7), teacher="emt")
    assert len(later.snapshot()) == len(store.snapshot()) + 1
    assert later.verify(full=True).ok
