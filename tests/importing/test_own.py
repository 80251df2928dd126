"""Stores and releases of ours as sources: splits, roots, teachers, properties, masks, columns and provenance come along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.splits import SPLITS, assign, pinned
from mlffstore.errors import ConflictError, DataError
from mlffstore_exporters.hdf5 import export_hdf5

if TYPE_CHECKING:
    from pathlib import Path

N = 60


def source(path: Path, precision: str = "float64") -> ml.Store:
    """Return a store with two teachers, properties, masks, user columns, a quarantine and split settings of its own."""
    rng = np.random.default_rng(1)
    n_atoms = rng.integers(1, 4, N)
    total = int(n_atoms.sum())
    energy = rng.normal(size=N)
    energy[3] = np.nan
    batch = ml.SampleBatch(
        n_atoms=n_atoms,
        numbers=rng.choice([6, 8, 26], total),
        positions=rng.normal(0, 3, (total, 3)),
        charge=rng.integers(-1, 2, N),
        labels={
            "a": {"energy": energy, "forces": rng.normal(size=(total, 3)), "charges": rng.normal(size=total)},
            "b": {"energy": rng.normal(size=N), "dipole": rng.normal(size=(N, 3))},
        },
        source=[f"s{i % 3}" for i in range(N)],
        sampler="md",
        extra={
            "step": (np.ma.MaskedArray(np.arange(N), np.arange(N) % 5 == 0), "1", "sample"),
            "config": ([None if i % 7 == 0 else f"c{i % 2}" for i in range(N)], "1", "sample"),
        },
    )
    batch = batch.with_columns(root=np.arange(N, dtype=np.uint64) // 4)
    store = ml.create(path, precision=precision, splits={"train": 0.5, "val": 0.3, "test": 0.2}, split_seed=9)
    store.append(batch, require=(), teachers={"a": {"fingerprint": "f1"}}, provenance={"made": "here"})
    store.remove([5, 6], reason="bad")
    return store


def same(ours: ml.SampleBatch, theirs: ml.SampleBatch) -> None:
    """Compare every column of two batches of the same samples in any order."""
    ours, theirs = (one.take(np.argsort(one.content_hash, kind="stable")) for one in (ours, theirs))
    for name in ("content_hash", "root", "positions", "charge", "multiplicity"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert (ours.source, ours.sampler) == (theirs.source, theirs.sampler)
    assert {t: sorted(n) for t, n in ours.labels.items()} == {t: sorted(n) for t, n in theirs.labels.items()}
    for teacher, named in theirs.labels.items():
        for name, values in named.items():
            np.testing.assert_array_equal(ours.labels[teacher][name], values, err_msg=f"{teacher} {name}")
    assert ours.strings("config") == theirs.strings("config")
    np.testing.assert_array_equal(ours.columns["step"], theirs.columns["step"])
    np.testing.assert_array_equal(ours.masks["step"], theirs.masks["step"])


@pytest.mark.parametrize("kind", ["store", "release"])
def test_everything_comes_along(tmp_path: Path, kind: str) -> None:
    store = source(tmp_path / "s")
    snap = store.snapshot()
    path = tmp_path / "s" if kind == "store" else export_hdf5(
        snap, tmp_path / "r.h5", teacher=("a", "b"), provenance=snap.provenance()
    )  # fmt: skip
    report = ml.import_files(path, tmp_path / "t", batch_samples=17)
    copy = ml.open(tmp_path / "t")
    other = copy.snapshot()
    assert report.samples == len(snap) == N - 2
    assert not [use for use in report.keys if use.fate == "left out"]
    assert (other.settings, other.precision) == (snap.settings, snap.precision)
    same(other.read(), snap.read())
    splits = [
        dict(zip(one.read().content_hash.tolist(), one.split_codes().tolist(), strict=True)) for one in (snap, other)
    ]
    assert splits[0] == splits[1]
    assert other.teacher_info("a")["fingerprint"] == "f1"
    origin = copy.provenance()[-1]["import"]["origin"]
    text = str(origin)
    assert "here" in text
    assert store.uuid in text
    if kind == "store":
        assert other.quarantine.reasons() == ["bad", "bad"]
    again = ml.import_files(path, tmp_path / "t", batch_samples=17)
    assert (again.samples, again.skipped) == (0, N - 2)


def test_splits_are_kept_in_a_store_with_other_settings(tmp_path: Path) -> None:
    snap = source(tmp_path / "s").snapshot()
    before = dict(zip(snap.read().content_hash.tolist(), snap.split_codes().tolist(), strict=True))
    options = {"create_options": {"precision": "float64"}}
    ml.create(tmp_path / "t", precision="float64")
    ml.import_files(tmp_path / "s", tmp_path / "t")
    ml.create(tmp_path / "u", precision="float64")
    ml.import_files(tmp_path / "s", tmp_path / "u", split="hash")
    kept, hashed = (ml.open(tmp_path / name).snapshot() for name in "tu")
    assert dict(zip(kept.read().content_hash.tolist(), kept.split_codes().tolist(), strict=True)) == before
    assert sorted(hashed.read().root.tolist()) == sorted(snap.read().root.tolist())
    groups: dict[int, set[int]] = {}  # what shared a root shares one still
    roots = dict(zip(snap.read().content_hash.tolist(), snap.read().root.tolist(), strict=True))
    for hash_, root in zip(kept.read().content_hash.tolist(), kept.read().root.tolist(), strict=True):
        groups.setdefault(roots[hash_], set()).add(root)
    assert all(len(new) == 1 for new in groups.values())
    with pytest.raises(DataError, match="share of the split 'val'"):
        ml.import_files(
            tmp_path / "s", tmp_path / "v", create_options={**options["create_options"], "splits": {"train": 1}}
        )


def test_other_models_and_options_that_cannot_be_obeyed_are_refused(tmp_path: Path) -> None:
    store = source(tmp_path / "s")
    other = ml.create(tmp_path / "t", precision="float64")
    other.append(store.snapshot().read([0]), require=(), teachers={"a": {"fingerprint": "f2"}})
    with pytest.raises(ConflictError, match="f2"):
        ml.import_files(tmp_path / "s", tmp_path / "t")
    with pytest.raises(DataError, match=r"teacher='x'; leave it out"):
        ml.import_files(tmp_path / "s", tmp_path / "u", teacher="x")
    with pytest.raises(DataError, match="names its own"):
        ml.import_files(tmp_path / "s", tmp_path / "u", units={"energy": "hartree"})


def test_pinned_roots() -> None:
    rng = np.random.default_rng(0)
    root = rng.integers(0, 2**63, 500).astype(np.uint64)
    wanted = rng.integers(-1, 3, 500)
    new = pinned(root, wanted, {"train": 0.98, "val": 0.01, "test": 0.01}, 5)
    codes = assign(new, {"train": 0.98, "val": 0.01, "test": 0.01}, 5)
    assert (codes[wanted >= 0] == wanted[wanted >= 0]).all()
    assert (new[wanted < 0] == root[wanted < 0]).all()
    again = pinned(root[::-1], wanted[::-1], {"train": 0.98, "val": 0.01, "test": 0.01}, 5)
    assert (again[::-1] == new).all()
    assert len(SPLITS) == 3
