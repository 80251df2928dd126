"""Tags: they name a version, never move, and may be set again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError
from tests.samples import metal_frames


@pytest.fixture
def store(tmp_path):
    return ml.create(tmp_path / "d.zarr")


def test_tags_name_versions_and_never_move(store):
    store.append(metal_frames(2))
    store.tag("v1.0")
    store.append(metal_frames(1, seed=5))
    assert len(store.snapshot(tag="v1.0")) == 2
    with pytest.raises(ConflictError, match=r"tag 'v1.0' names version 1 already"):
        store.tag("v1.0")
    assert store.tag("v1.0", 1) == 3  # saying the same again is fine
    assert (store.tag("latest"), store.tag("same"), store.tag("latest"), store.version) == (4, 5, 5, 5)
    ml.open(store.url, "a").append(metal_frames(1, seed=6))
    with pytest.raises(ConflictError, match="tag 'latest' names version 3 already"):
        store.tag("latest")
    with pytest.raises(DataError, match=r"tag: expected one of v1\.0"):
        store.snapshot(tag="v2")
    with pytest.raises(DataError, match="version: expected"):
        store.tag("v3", 99)
    assert [c.operation for c in store.history()] == ["create", "append", "tag", "append", "tag", "tag", "append"]


def test_one_tag_set_by_many_threads_at_once(store):
    store.append(metal_frames(1))
    stores = [ml.open(store.url, "a") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: one.tag("v1", 1), stores))
        list(pool.map(lambda one: one.tag("v2"), stores))
    assert [commit.operation for commit in store.history()] == ["create", "append", "tag", "tag"]
