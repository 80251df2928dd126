"""Random operations against a model of a store."""

from __future__ import annotations

import itertools
import shutil
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError, MlffstoreError
from mlffstore.format import checkpoint
from mlffstore.format.segment import write_segment
from tests.samples import metal_frames

_BATCHES = [ml.SampleBatch.from_ase(metal_frames(n, seed=n)) for n in (1, 2, 3)]
_HASHES = [batch.astype("float32").content_hash.tolist() for batch in _BATCHES]


def _hashes(snapshot: ml.Snapshot) -> list[int]:
    return snapshot.read(columns=["content_hash"]).columns.get("content_hash", np.zeros(0)).tolist()


class StoreMachine(RuleBasedStateMachine):
    """A store beside plain Python lists that say what each version holds."""

    @initialize()
    def create(self):
        self.folder = tempfile.mkdtemp()
        self.store = ml.create(f"{self.folder}/d.zarr")
        #: Per version the samples: hash and number, where the number tells copies of one structure apart.
        self.versions: list[list[tuple[int, int]]] = [[]]
        self.quarantine: list[tuple[int, int]] = []
        self.labelled: set[int] = set()  # numbers of samples with labels of EMT
        #: What a commit did, and to which samples.
        self.effects: dict[int, tuple[str, list[tuple[int, int]]]] = {}
        self.completed = False  # whether a label pass filled gaps, which reversals of layers may refuse
        #: Number of a sample -> version that gave it the labels of EMT that it has.
        self.labels_of: dict[int, int] = {}
        self.numbers = itertools.count()
        self.keys: dict[str, int] = {}
        self.contents: dict[str, int] = {}
        self.tags: dict[str, int] = {}
        self.expired = 0

    def _commit(self, content: list[tuple[int, int]], effect: str = "", samples: list[tuple[int, int]] = ()) -> None:
        if effect:
            self.effects[len(self.versions)] = (effect, list(samples))
        self.versions.append(content)

    def _append(self, hashes: list[int]) -> None:
        new = [(h, next(self.numbers)) for h in hashes]
        self._commit(self.versions[-1] + new, "add", new)

    @rule(which=st.integers(0, 2))
    def append(self, which):
        assert self.store.append(_BATCHES[which]) == len(self.versions)
        self._append(_HASHES[which])

    @rule(which=st.integers(0, 2), key=st.sampled_from("abc"))
    def append_with_key(self, which, key):
        if key in self.keys and self.contents[key] != which:
            with pytest.raises(ConflictError, match="other samples"):
                self.store.append(_BATCHES[which], key=key)
            return
        version = self.store.append(_BATCHES[which], key=key)
        if key not in self.keys:
            self.keys[key], self.contents[key] = len(self.versions), which
            self._append(_HASHES[which])
        assert version == self.keys[key]

    @rule(which=st.integers(0, 2))
    def append_what_is_new(self, which):
        held = {h for h, _ in self.versions[-1]}
        new = [h for h in _HASHES[which] if h not in held]
        self.store.append(_BATCHES[which], on_duplicate="skip")
        if new:
            self._append(new)

    @rule(name=st.sampled_from(["v1", "v2"]))
    def tag(self, name):
        if name not in self.tags:
            self.store.tag(name)
            self.tags[name] = len(self.versions) - 1
            self._commit(self.versions[-1])

    @rule(name=st.sampled_from(["v1", "v2"]))
    def untag(self, name):
        if name not in self.tags:
            with pytest.raises(DataError, match="tag: expected one of"):
                self.store.untag(name)
            return
        assert self.store.untag(name) == len(self.versions)
        del self.tags[name]
        self._commit(self.versions[-1])

    @precondition(lambda self: self.versions[-1])
    @rule(data=st.data(), back=st.integers(0, 6))
    def remove(self, data, back):
        """Indices of this version or an earlier one; samples that are gone are left out."""
        version = max(0, len(self.versions) - 1 - back)
        content = self.versions[version]
        if not content or not self._retained(version):
            return
        indices = data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4))
        asked = {content[i] for i in indices}
        gone = [sample for sample in self.versions[-1] if sample in asked]
        plan = self.store.remove(indices, reason="bad", snapshot=self.store.snapshot(version), dry_run=True)
        assert (plan.n_samples, plan.n_gone) == (len(gone), len(asked) - len(gone))
        done = self.store.remove(indices, reason="bad", snapshot=self.store.snapshot(version))
        if gone:
            assert done == len(self.versions)
            self._take(gone)

    def _take(self, gone: list[tuple[int, int]]) -> None:
        self.quarantine += gone
        self._commit([sample for sample in self.versions[-1] if sample not in gone], "remove", gone)

    @precondition(lambda self: self.labelled)
    @rule(data=st.data())
    def remove_labels(self, data):
        content = self.versions[-1]
        if not any(number in self.labelled for _, number in content):
            return
        indices = data.draw(st.none() | st.lists(st.integers(0, len(content) - 1), max_size=4))
        asked = range(len(content)) if indices is None else sorted(set(indices))
        gone = [content[i] for i in asked if content[i][1] in self.labelled]
        self.store.remove(indices, teacher="emt", reason="bad labels")
        if gone:
            self.labelled -= {number for _, number in gone}
            self._commit(content, "clear", gone)

    @precondition(lambda self: self.effects)
    @rule(data=st.data())
    def revert(self, data):
        version = data.draw(st.sampled_from(sorted(self.effects)))
        effect, samples = self.effects[version]
        here = self.versions[-1]
        place = self.quarantine if effect == "remove" else here
        left = [sample for sample in place if sample in set(samples)]
        if effect == "label":
            left = [
                sample for sample in left if sample[1] in self.labelled and self.labels_of.get(sample[1]) == version
            ]
        if not left:
            with pytest.raises(MlffstoreError, match=r"nothing of it is left|cannot be told apart|has expired"):
                self.store.revert(version, reason="wrong")
            return
        if effect == "clear" and not self._retained(version - 1):
            with pytest.raises(DataError, match="has expired"):
                self.store.revert(version, reason="wrong")
            return
        if effect == "clear" and any(number in self.labelled for _, number in left):
            with pytest.raises(ConflictError, match="have other values"):
                self.store.revert(version, reason="wrong")
            return
        try:
            assert self.store.revert(version, reason="wrong") == len(self.versions)
        except ConflictError:
            assert effect == "label"
            assert self.completed
            return
        if effect in ("add", "restore"):
            self._take(left)
        elif effect == "remove":
            self.quarantine = [sample for sample in self.quarantine if sample not in left]
            self._commit(here + left, "restore", left)
        elif effect == "clear":
            self.labelled |= {number for _, number in left}
            self.labels_of |= {number: len(self.versions) for _, number in left}
            self._commit(here, "label", left)
        else:
            self.labelled -= {number for _, number in left}
            self._commit(here, "clear", left)

    def _retained(self, version: int) -> bool:
        # What a tag pins is decided when versions expire: a tag made later cannot name what is gone.
        return version >= self.expired or version in self.tags.values()

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
        for version in self.store.add_labels("emt").versions:
            self._label(version)
        energies = self.store.snapshot().read(columns=["energy"]).labels.get("emt", {}).get("energy", np.zeros(0))
        assert len(energies) == len(self.versions[-1])
        assert not np.isnan(energies).any()

    def _label(self, version: int) -> None:
        content = self.versions[-1]
        energies = self.store.snapshot(version).read(columns=["energy"]).labels["emt"]["energy"]
        there = {number for (_, number), energy in zip(content, energies, strict=True) if not np.isnan(energy)}
        new = [sample for sample in content if sample[1] in there - self.labelled]
        self.labelled |= there
        self.labels_of |= {number: version for _, number in new}
        layer = self.store.history(since=version)[0].operation == "layer"
        self.completed |= not layer
        self._commit(content, "label" if layer else "", new)

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
        if self._retained(version):
            assert _hashes(self.store.snapshot(version)) == [h for h, _ in self.versions[version]]
        else:
            with pytest.raises(DataError, match="has expired"):
                self.store.snapshot(version)

    @invariant()
    def holds_what_the_model_holds(self):
        assert self.store.version == len(self.versions) - 1
        assert self.store.keys() == self.keys
        assert self.store.tags == self.tags
        snap = self.store.snapshot()
        assert _hashes(snap) == [h for h, _ in self.versions[-1]]
        assert _hashes(snap.quarantine) == [h for h, _ in self.quarantine]
        assert len(snap.quarantine.reasons()) == len(self.quarantine)
        n_labelled = sum(number in self.labelled for _, number in self.versions[-1])
        assert snap.summary()["teachers"].get("emt", 0) == n_labelled
        assert self.store.holds([h for hashes in _HASHES for h in hashes]).tolist() == [
            h in {held for held, _ in self.versions[-1]} for hashes in _HASHES for h in hashes
        ]

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
