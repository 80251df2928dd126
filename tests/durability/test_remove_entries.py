"""Entries of removals that contradict themselves or the store are refused, whoever wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import FormatError, MlffstoreError
from mlffstore.format.codec import crc32c
from mlffstore.format.entry import entry_path
from tests.samples import mixed_frames

#: Path of a segment that no store has.
ABSENT = f"segments/{'0' * 32}.zarr.zip"


def edit(store: ml.Store, version: int, change) -> None:
    """Change an entry and seal it again."""
    path = Path(store.url) / entry_path(version)
    document = json.loads(path.read_bytes())
    document.pop("crc32c")
    change(document)
    text = json.dumps(document, separators=(",", ":"))[:-1].encode()
    path.write_bytes(text + b',"crc32c":%d}\n' % crc32c(text))


@pytest.fixture
def store(tmp_path):
    """Version 3 removes samples, 4 brings them back, 5 removes labels, 6 puts them back, 8 withdraws a tag."""
    store = ml.create(tmp_path / "d.zarr")
    store.append(mixed_frames(6))
    store.append(mixed_frames(4, seed=1))
    store.remove([1, 2, 7], reason="bad")
    store.revert(3, reason="good")
    store.remove([0, 1], teacher="reference", reason="bad")
    store.revert(5, reason="good")
    store.tag("v1")
    store.untag("v1")
    return store


def replacement(document, i: int = 0):
    return document["replacements"][i]


CHANGES = {
    "samples that vanish": (3, lambda d: d.pop("quarantine"), "appear or vanish"),
    "samples that appear": (3, lambda d: d.update(segments=d["quarantine"]), "occurs twice|appear or vanish"),
    "samples that do not come back": (4, lambda d: d.pop("segments"), "appear or vanish"),
    "other elements": (3, lambda d: d["quarantine"][0]["summary"]["elements"].update({"92": 1}), "appear or vanish"),
    "more periodic ones": (3, lambda d: d["quarantine"][0]["summary"].update(n_periodic=9), "appear or vanish"),
    "wrong runs": (3, lambda d: replacement(d).update(runs=[2, 1, 3]), "do not hold what they say"),
    "runs that are too long": (3, lambda d: replacement(d).update(runs=[1, 2, 4]), "do not hold what they say"),
    "nothing touched": (3, lambda d: replacement(d).update(runs=[6]), "runs: expected lengths"),
    "empty runs": (3, lambda d: replacement(d).update(runs=[1, 0, 2, 2, 3]), "runs: expected lengths"),
    "runs of text": (3, lambda d: replacement(d).update(runs="12"), "runs: expected a list"),
    "no runs": (3, lambda d: replacement(d).pop("runs"), "runs: expected a list"),
    "a segment twice": (3, lambda d: d["replacements"].append(replacement(d)), "replaces a segment twice"),
    "a segment that is not there": (3, lambda d: replacement(d).update(inputs=[ABSENT]), "not there"),
    "no reason": (3, lambda d: d.update(reason=""), "reason: expected a text"),
    "a reason that is no text": (3, lambda d: d.update(reason=3), "reason: expected a string"),
    "columns that samples need": (5, lambda d: d.update(columns=["positions"]), "expected labels or user columns"),
    "columns that are no names": (5, lambda d: d.update(columns=[["x"]]), "expected labels or user columns"),
    "columns and samples": (3, lambda d: d.update(columns=["energy.reference"]), "do not hold what they say"),
    "columns of the quarantine": (4, lambda d: d.update(columns=["energy.reference"]), "do not hold what they say"),
    "values put back where nothing was": (6, lambda d: replacement(d).update(runs=[0, 1, 1]), "of another size"),
    "a quarantine that is no list": (3, lambda d: d.update(quarantine=7), "quarantine: expected a list"),
    "a tag that is not there": (8, lambda d: d.update(tag="v2"), "withdraws a tag that is not there"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_contradicts_itself_is_refused(store, name):
    version, change, message = CHANGES[name]
    edit(store, version, change)
    with pytest.raises(FormatError, match=message):
        ml.open(store.url)._log.at(version)
    assert any(entry_path(version) == problem.path for problem in ml.verify(store.url).problems)


def test_a_column_that_appears_is_refused(store):
    extra = {"shape": [4], "dtype": "float64", "chunk": 4, "offset": 0, "nbytes": 40, "digest": "0" * 32,
             "axis": "sample", "unit": "1",
             "long_name": "x"}  # fmt: skip
    edit(store, 3, lambda d: replacement(d)["outputs"][0]["columns"].update(x=extra))
    with pytest.raises(FormatError, match="do not hold what they say"):
        ml.open(store.url)


def test_a_reversal_checks_the_entry_that_it_takes_back(store):
    """Also if a checkpoint makes reading the entry unnecessary."""
    from mlffstore.format import checkpoint

    with store._log.guard():
        checkpoint.save(store._storage, store._log.refresh())
    edit(store, 1, lambda d: d.update(segments=[{"path": ABSENT}]))
    for call in (lambda s: s.revert(1, reason="x"), lambda s: s.remove([0], reason="x", snapshot=s.snapshot(2))):
        with pytest.raises(MlffstoreError):
            call(ml.open(store.url, "a"))


def test_a_backup_and_an_object_store_carry_corrections(store, tmp_path):
    store.tag("now")
    done = store.remove([0, 9], reason="bad")
    store.compact()
    store.backup(tmp_path / "copy.zarr")
    for other in (ml.open(tmp_path / "copy.zarr"), ml.open(store.url)):
        assert (len(other), other.snapshot().quarantine.reasons()) == (8, ["bad"] * 2)
        assert len(other.snapshot(tag="now").read()) == len(other.snapshot(2).read()) == 10
        assert other.verify(full=True).ok
    assert done == 10
    remote = ml.create("memory://corrections")
    remote.append(mixed_frames(6))
    before = remote.snapshot().read()
    removal = remote.remove([1, 2], reason="bad", key="k")
    assert remote.remove([1, 2], reason="bad", key="k") == removal
    remote.revert(removal, reason="good")
    assert np.array_equal(remote.snapshot().read().content_hash, before.content_hash[[0, 3, 4, 5, 1, 2]])
    assert remote.verify(full=True).ok
