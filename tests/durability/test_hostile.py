"""Random log entries against the parser."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlffstore as ml
from mlffstore.errors import MlffstoreError
from mlffstore.format.codec import crc32c
from tests.samples import metal_frames

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["segments/" + "0" * 32, "../x", "float32", "append", "remove", "energy.x", "9" * 40]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("fuzz") / "d.zarr")
    store.append(metal_frames(2))
    store.append(metal_frames(2, seed=1))
    store.compact()
    store.add_labels("emt")
    store.tag("v1")
    store.gc(dry_run=False, expire_before=1)
    store.remove([1], reason="bad", key="fix")
    store.revert(store.remove([0, 2], teacher="emt", reason="bad"), reason="good")
    store.revert(7, reason="good after all")
    store.untag("v1")
    return Path(store.url)


def _places(node, path=()):
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from _places(value, (*path, key))


def _settings(examples: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


@_settings(75)
@given(data=st.data())
def test_no_entry_whatsoever_does_more_than_raise_our_errors(victim, data):
    change_anything(victim, data)


@pytest.mark.slow
@_settings(5000)
@given(data=st.data())
def test_no_entry_whatsoever_does_more_than_raise_our_errors_at_length(victim, data):
    change_anything(victim, data)


def change_anything(victim: Path, data) -> None:
    """Any part of any entry may be anything (with a right checksum): opening and reading work or raise an error of ours."""
    path = victim / "_log" / f"{data.draw(st.integers(0, 11)):020d}.json"
    good = path.read_bytes()
    document = json.loads(good)
    document.pop("crc32c")
    changed = copy.deepcopy(document)
    place = data.draw(st.sampled_from([p for p in _places(document) if p]))
    node = changed
    for key in place[:-1]:
        node = node[key]
    if data.draw(st.booleans()) and isinstance(node, dict):
        node.pop(place[-1])
    else:
        node[place[-1]] = data.draw(_JSON)
    text = json.dumps(changed, separators=(",", ":"))[:-1].encode()
    try:
        path.write_bytes(text + b',"crc32c":%d}\n' % crc32c(text))
        try:
            store = ml.open(victim)
            store.snapshot().read()
            store.history()
            store.provenance()
            store.snapshot().summary()
        except MlffstoreError:
            pass
        ml.verify(victim, full=True)
    finally:
        path.write_bytes(good)
