"""Random operations against a model of a store, and random log entries against the parser."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError, MlffstoreError
from mlffstore.format import checkpoint
from mlffstore.format.codec import crc32c
from mlffstore.format.segment import write_segment
from tests.samples import metal_frames

_BATCHES = [ml.SampleBatch.from_ase(metal_frames(n, seed=n)) for n in (1, 2, 3)]
_HASHES = [batch.astype("float32").content_hash.tolist() for batch in _BATCHES]


class StoreMachine(RuleBasedStateMachine):
    """A store beside plain Python lists that say what each version holds."""

    @initialize()
    def create(self):
        self.folder = tempfile.mkdtemp()
        self.store = ml.create(f"{self.folder}/d.zarr")
        self.versions: list[list[int]] = [[]]
        self.keys: dict[str, int] = {}
        self.contents: dict[str, int] = {}
        self.tags: dict[str, int] = {}
        self.expired = 0

    def _commit(self, content: list[int]) -> None:
        self.versions.append(content)

    @rule(which=st.integers(0, 2))
    def append(self, which):
        assert self.store.append(_BATCHES[which]) == len(self.versions)
        self._commit(self.versions[-1] + _HASHES[which])

    @rule(which=st.integers(0, 2), key=st.sampled_from("abc"))
    def append_with_key(self, which, key):
        if key in self.keys and self.contents[key] != which:
            with pytest.raises(ConflictError, match="other samples"):
                self.store.append(_BATCHES[which], key=key)
            return
        version = self.store.append(_BATCHES[which], key=key)
        if key not in self.keys:
            self.keys[key], self.contents[key] = len(self.versions), which
            self._commit(self.versions[-1] + _HASHES[which])
        assert version == self.keys[key]

    @rule(which=st.integers(0, 2))
    def append_what_is_new(self, which):
        new = [h for h in _HASHES[which] if h not in self.versions[-1]]
        self.store.append(_BATCHES[which], on_duplicate="skip")
        if new:
            self._commit(self.versions[-1] + new)

    @rule(name=st.sampled_from(["v1", "v2"]))
    def tag(self, name):
        if name not in self.tags:
            self.store.tag(name)
            self.tags[name] = len(self.versions) - 1
            self._commit(self.versions[-1])

    @rule(size=st.sampled_from([1, 3000, 1 << 20]))
    def compact(self, size):
        for _ in self.store.compact(target_nbytes=size).versions:
            self._commit(self.versions[-1])

    @rule(back=st.integers(0, 4))
    def expire_and_collect(self, back):
        before = max(0, len(self.versions) - 1 - back)
        self.store.gc(dry_run=False, grace=0, expire_before=before)
        if before > self.expired:
            self.expired = before
            self._commit(self.versions[-1])

    @rule()
    def label(self):
        """A layer over every segment that has no labels of EMT yet (the batches bring those of another teacher)."""
        for _ in self.store.add_labels("emt").versions:
            self._commit(self.versions[-1])
        energies = self.store.snapshot().read(columns=["energy"]).labels.get("emt", {}).get("energy", np.zeros(0))
        assert len(energies) == len(self.versions[-1])
        assert not np.isnan(energies).any()

    @rule(which=st.integers(0, 2))
    def crash(self, which):
        """A writer dies between its data and its commit."""
        write_segment(self.store._storage, _BATCHES[which].astype("float32").hashed())
        self.store = ml.open(self.store.url, "a")

    @rule()
    def reopen(self):
        self.store = ml.open(self.store.url, "a")

    @precondition(lambda self: len(self.versions) > 2)
    @rule(data=st.data())
    def travel(self, data):
        version = data.draw(st.integers(0, len(self.versions) - 1))
        # What a tag pins is decided when versions expire: a tag made later cannot name what is gone.
        if version >= self.expired or version in self.tags.values():
            batch = self.store.snapshot(version).read(columns=["content_hash"])
            assert batch.columns.get("content_hash", np.zeros(0)).tolist() == self.versions[version]
        else:
            with pytest.raises(DataError, match="has expired"):
                self.store.snapshot(version)

    @invariant()
    def holds_what_the_model_holds(self):
        assert self.store.version == len(self.versions) - 1
        assert self.store.keys() == self.keys
        assert self.store.tags == self.tags
        batch = self.store.snapshot().read(columns=["content_hash"])
        assert batch.columns.get("content_hash", np.zeros(0)).tolist() == self.versions[-1]

    def teardown(self):
        found = self.store.verify(full=True)
        assert found.ok, found.problems
        shutil.rmtree(self.folder)


def _run(examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "EVERY", 5)
        patch.setattr(checkpoint, "STAYING", 2)
        run_state_machine_as_test(
            StoreMachine,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


@pytest.mark.parametrize(("examples", "steps"), [(8, 20), pytest.param(150, 40, marks=pytest.mark.slow)])
def test_random_operations_agree_with_a_model(examples, steps):
    _run(examples, steps)


# -- the parser --------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["segments/" + "0" * 32, "../x", "float32", "append", "energy.x", "9" * 40]),
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
    return Path(store.url)


def _places(node, path=()):
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from _places(value, (*path, key))


def _settings(examples: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


@_settings(300)
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
    path = victim / "_log" / f"{data.draw(st.integers(0, 6)):020d}.json"
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
