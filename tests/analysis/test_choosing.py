"""Choices by structure: what they promise is checked against plain computations."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.analysis.choosing.cells import Cells
from mlffstore.analysis.choosing.coverage import radius_of
from mlffstore.analysis.choosing.covering import cover
from mlffstore.errors import DataError
from tests.samples import labelled, metal_frames, mixed_frames

quests = pytest.importorskip("quests")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("choosing") / "d.zarr")
    store.append(mixed_frames(30), teacher="emt")
    return store


@pytest.mark.parametrize("radius", [0.0, 0.05, 0.5])
def test_environments_of_a_cell_are_near_its_middle(radius):
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(scale=0.2, size=(3000, 3)), 2, axis=0)
    cells = Cells(radius)
    found = np.concatenate([cells.sort(part) for part in np.array_split(points, 7)])
    assert len(cells) == found.max() + 1 == len(np.unique(found))
    first = points[np.unique(found, return_index=True)[1]]  # the middles, since each began its cell
    assert (np.linalg.norm(points - first[found], axis=1) <= radius + 1e-12).all()
    if radius == 0.0:
        assert len(cells) == 3000


def test_a_greedy_cover_covers_and_keeps_nothing_needless():
    rng = np.random.default_rng(1)
    sets = [np.unique(rng.integers(0, 200, rng.integers(1, 30))) for _ in range(120)]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in sets])])
    chosen = cover(starts, np.concatenate(sets), 200)
    every = set(np.concatenate(sets).tolist())
    assert set().union(*(set(sets[i].tolist()) for i in chosen)) == every
    for i in chosen:  # without any of them something is missing
        assert set().union(*(set(sets[j].tolist()) for j in chosen if j != i)) != every
    assert len(chosen) < 30


@pytest.mark.parametrize("threshold", [0, 5, 100])
def test_a_cover_covers_every_environment_within_the_threshold(store, threshold):
    from scipy.spatial import cKDTree

    from mlffstore.analysis.choosing.environments import environments

    snap = store.snapshot()
    kept = snap.cover(threshold)
    every = np.concatenate(environments(list(snap)))
    distance = cKDTree(np.concatenate(environments(list(kept)))).query(every)[0]
    assert distance.max() <= radius_of(threshold) + 1e-9
    assert kept.report["covered"] == 1.0
    assert len(kept) <= len(snap.cover(0))


def test_diverse_samples_are_diverse_whatever_the_method(store):
    snap = store.snapshot()
    for method in ("farthest", "direct"):
        chosen = snap.diverse(12, method=method)
        assert len(chosen) == 12
        assert chosen.digest == snap.diverse(12, method=method).digest
        # 4 metals and 5 molecules: nine compositions and sizes at least among twelve.
        assert len(set(chosen.table()["formula"].to_pylist())) >= 8
        assert chosen.report["kept"] == 12
        assert 0 < chosen.report["covered"] <= 1
    with pytest.raises(DataError, match="n: expected 1 to 30"):
        snap.diverse(31)
    with pytest.raises(DataError, match="method: expected"):
        snap.diverse(3, method="random")


def test_near_duplicates_are_those_of_the_validation(tmp_path):
    frames = metal_frames(8)
    turned = [atoms.copy() for atoms in frames[:3]]
    for atoms, original in zip(turned, frames, strict=False):
        atoms.rotate(40, "z", rotate_cell=True)
        labelled(atoms, original.calc.results["energy"], original.calc.results["forces"])
    store = ml.create(tmp_path / "d.zarr")
    store.append([*frames, *frames[3:5], *turned], teacher="emt", require=())
    snap = store.snapshot()
    kept = snap.without_near_duplicates()
    assert kept.indices.tolist() == list(range(8))
    validation = ml.validate(snap)
    failed = {*validation.failed("duplicate").tolist(), *validation.failed("near_duplicate").tolist()}
    assert failed == set(range(len(snap))) - set(kept.indices.tolist())
    assert kept.report["left_out"] == 5
