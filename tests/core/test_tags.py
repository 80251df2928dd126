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


def test_a_tag_is_withdrawn_and_its_name_is_free(store):
    store.append(metal_frames(2))
    store.tag("v1")
    store.append(metal_frames(1, seed=5))
    with pytest.raises(DataError, match="tag: expected one of v1, got 'v2'"):
        store.untag("v2")
    assert store.untag("v1") == 4
    assert ml.open(store.url).tags == {}
    assert store.history(1)[0].note == "v1 withdrawn"
    with pytest.raises(DataError, match=r"expected one of \(there are none\)"):
        store.untag("v1")
    assert store.tag("v1") == 5
    store.tag("other")
    store.untag("other")
    assert store.tag("v1") == 7  # a withdrawal in between is no other dataset
    assert len(store.snapshot(tag="v1")) == 3


def test_a_version_is_kept_as_long_as_one_of_its_tags(store):
    store.append(metal_frames(2))
    store.tag("a")
    store.tag("b", 1)
    store.append(metal_frames(1, seed=5))
    store.gc(dry_run=False, grace=0, expire_before=store.version)
    store.untag("a")
    assert len(store.snapshot(tag="b")) == 2
    store.untag("b")
    with pytest.raises(DataError, match="version 1 has expired"):
        store.snapshot(1)
    with pytest.raises(DataError, match="version 1 has expired and cannot be tagged"):
        store.tag("c", 1)
