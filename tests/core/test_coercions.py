"""Values are taken as they are or refused: nothing is truncated, wrapped or guessed on the way in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError, ReleaseError
from mlffstore_exporters.release import export_release

if TYPE_CHECKING:
    from pathlib import Path


def atoms(n: int, **options: Any) -> ml.SampleBatch:
    rng = np.random.default_rng(0)
    return ml.SampleBatch(
        n_atoms=[1] * n, numbers=[2] * n, positions=rng.normal(size=(n, 3)) * 5, multiplicity=[1] * n,
        labels={"q": {"energy": rng.normal(size=n)}}, **options,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> ml.Store:
    store = ml.create(tmp_path / "s.zarr")
    store.append(atoms(6), require=("energy",))
    store.append(atoms(2).with_columns(charge=2), require=("energy",))
    return store


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ({"charge": [1.7, -0.5]}, "charge: expected integers, got fractions"),
        ({"charge": np.array([70000, 0])}, "charge: expected values within int16, got 0 to 70000"),
        ({"charge": [70000, 0]}, "charge: expected values within int16"),
        ({"root": np.array([-1, 0])}, "root: expected values within uint64, got -1 to 0"),
        ({"root": np.array([2.0**64, 0])}, "root: expected values within uint64"),
        ({"multiplicity": [1, 1, 1]}, r"multiplicity: expected one value or shape \(2,\), got \(3,\)"),
        ({"charge": ["a", "b"]}, "charge: expected numbers of dtype int16"),
    ],
)
def test_with_columns_casts_as_the_constructor_does(column: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        atoms(2).with_columns(**column)


def test_with_columns_takes_one_value_for_all_and_keeps_large_roots() -> None:
    batch = atoms(2).with_columns(charge=-1.0, root=[2**64 - 1, 3])
    assert batch.charge.tolist() == [-1, -1]
    assert batch.root.tolist() == [2**64 - 1, 3]
    assert atoms(2, root=[2**63 + 1, 1]).root.tolist() == [2**63 + 1, 1]


@pytest.mark.parametrize("pbc", [[[np.nan, 0, 0]], [[0.5, 0, 0]], [[2, 0, 0]]])
def test_only_truth_is_periodicity(pbc: Any) -> None:
    with pytest.raises(DataError, match="pbc: expected True and False, or 1 and 0, got"):
        atoms(1, pbc=pbc, cell=[np.eye(3)])
    assert atoms(1, pbc=[[1.0, 0, 1]], cell=[np.eye(3)]).pbc.tolist() == [[True, False, True]]


def test_large_unsigned_indices_are_outside(store: ml.Store) -> None:
    index = np.array([2**64 - 1], np.uint64)
    for read in (store.snapshot().read, atoms(2).take, store.snapshot().take):
        with pytest.raises(IndexError, match="index 18446744073709551615 is outside the"):
            read(index)
    assert len(atoms(300).take(np.array([200, 3], np.uint8))) == 2


@pytest.mark.parametrize("version", [1.9, 1.0, "1", True, np.float64(1), -1, 99])
def test_a_version_is_an_integer(store: ml.Store, version: Any) -> None:
    before = store.version
    for use in (store.snapshot, lambda v: store.tag("x", v), lambda v: store.revert(v, reason="test")):
        with pytest.raises(DataError, match="version: expected"):
            use(version)
    with pytest.raises(DataError, match="version: expected"):
        store.revert(None, reason="test")  # type: ignore[call-overload]
    assert (store.version, store.tags) == (before, {})
    assert store.snapshot(np.int64(1)).version == 1  # type: ignore[arg-type]
    store.tag("x", np.int64(1))  # type: ignore[arg-type]
    assert store.tags == {"x": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"split_seed": 1.5},
        {"split_seed": "1"},
        {"splits": {"train": float("nan"), "val": 0, "test": 0}},
        {"splits": {"train": "all", "val": 0, "test": 0}},
        {"splits": [0.8, 0.1, 0.1]},
        {"provenance": {"x": float("nan")}},
    ],
)
def test_a_store_that_is_refused_leaves_nothing_behind(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"{next(iter(options))}: expected"):
        ml.create(tmp_path / "s.zarr", **options)
    assert not (tmp_path / "s.zarr").exists()
    ml.create(tmp_path / "s.zarr")


def test_a_seed_that_is_drawn_is_recorded(store: ml.Store) -> None:
    snap = store.snapshot()
    drawn = snap.select(sample=3, seed=None)
    seed = drawn.steps[0].options["seed"]
    assert f"(seed {seed})" in drawn.question
    np.testing.assert_array_equal(snap.select(sample=3, seed=seed).indices, drawn.indices)
    assert len({snap.select(sample=3, seed=None).steps[0].options["seed"] for _ in range(3)}) > 1


@pytest.mark.parametrize("seed", [-1, "x", 1.5])
def test_a_seed_is_an_integer_that_is_not_negative(store: ml.Store, seed: Any) -> None:
    snap = store.snapshot()
    calls: list[Any] = [lambda: snap.select(sample=3, seed=seed), lambda: snap.diverse(3, seed=seed)]
    calls += [lambda: snap.cover(3.0, seed=seed), lambda: snap.without_near_duplicates(seed=seed)]
    for call in calls:
        with pytest.raises(DataError, match="seed: expected an integer that is not negative"):
            call()


def test_numbers_of_numpy_choose_samples(store: ml.Store) -> None:
    rng = np.random.default_rng(1)
    pairs = ml.SampleBatch(
        n_atoms=[2] * 4, numbers=[1] * 8, positions=[[0, 0, z * rng.uniform(0.7, 1.1)] for _ in range(4) for z in (0, 1)],
        labels={"q": {"energy": rng.normal(size=4)}},
    )  # fmt: skip
    store.append(pairs, require=("energy",))
    snap = store.snapshot()
    chosen = {
        "limit": snap.select("n_atoms > 0", limit=np.int64(2)),  # type: ignore[arg-type]
        "sample": snap.select(sample=np.int64(2), seed=np.int64(3)),  # type: ignore[arg-type]
        "diverse": snap.diverse(np.int64(2)),  # type: ignore[arg-type]
        "cover": snap.cover(np.float32(3)),  # type: ignore[arg-type]
    }
    for name, selection in chosen.items():
        store.tag(name, selection=selection)
        assert store.selection(name).question == selection.question
        json.dumps(selection.to_json())


def test_what_is_no_number_selection_or_hash_is_refused(store: ml.Store) -> None:
    snap = store.snapshot()
    for threshold in ("3", None, float("nan"), -1):
        with pytest.raises(DataError, match="threshold: expected a number of nats"):
            snap.cover(threshold)  # type: ignore[arg-type]
    for selection in ("abc", snap):
        with pytest.raises(DataError, match="selection: expected samples that"):
            store.tag("w", selection=selection)  # type: ignore[arg-type]
    for hashes in ([-1], np.array([-1]), [1.5], 5):
        with pytest.raises(DataError, match="content_hash: expected"):
            store.holds(hashes)
    assert store.holds(snap.read().content_hash).all()


@pytest.mark.parametrize(
    "counts", [{"train": 5.5}, {"train": "5"}, {"train": True}, {"train": -1}, [5, 1, 1], {"x": 1}]
)
def test_counts_of_a_release_are_whole_numbers(store: ml.Store, tmp_path: Path, counts: Any) -> None:
    with pytest.raises(ReleaseError, match="counts: expected whole numbers"):
        export_release(store.snapshot(), tmp_path, name="n", counts=counts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr"]


def test_one_author_is_one_author(store: ml.Store, tmp_path: Path) -> None:
    path = export_release(
        store.snapshot(), tmp_path, name="n", authors="Doe, Jane", allow_failing=True, recheck=False
    ).parent
    creators = json.loads((path / "croissant.json").read_text())["creator"]
    assert [one["name"] for one in creators] == ["Doe, Jane"]
