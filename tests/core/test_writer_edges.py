"""A writer takes what it is given, or says that it does not."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

import mlffstore as ml
from mlffstore.errors import DataError


@pytest.fixture
def store(tmp_path):
    return ml.create(tmp_path / "d.zarr")


def batch(n: int, seed: int = 0, **columns) -> ml.SampleBatch:
    random = np.random.default_rng(seed)
    return ml.SampleBatch(
        n_atoms=[1] * n, numbers=[2] * n, positions=random.normal(size=(n, 3)), multiplicity=[1] * n,
        labels={"q": {"energy": random.normal(size=n)}}, **columns,
    )  # fmt: skip


@pytest.mark.parametrize(
    "given", [{"labels": [{"energy": 1.0}] * 2}, {"source": "mine"}, {"sampler": "md"}, {"source": "a", "labels": []}]
)
def test_what_a_batch_would_ignore_is_refused(store, given):
    with store.writer(require=()) as writer:
        with pytest.raises(DataError, match=f"{sorted(given)[0]}.*: expected frames beside it, got a batch"):
            writer.add(batch(2), **given)
        writer.add(batch(1))
    assert len(store) == 1


def test_labels_with_unknown_names_are_refused(store):
    with store.writer(require=()) as writer:
        with pytest.raises(DataError, match=r"sample 0, labels: expected energy, .*, got Energy"):
            writer.add(Atoms("He"), labels={"Energy": 1.0})
        writer.add(Atoms("He"), labels={"energy": 1.0, "forces": None})
    assert store.snapshot().read().energy.tolist() == [1.0]


def test_a_column_that_does_not_fit_the_store_raises_when_it_is_added(store):
    store.append(batch(1, extra={"u": ([1], "1", "sample")}), require=())
    with store.writer(require=()) as writer:
        writer.add(batch(3, 1))
        with pytest.raises(DataError, match="user column 'u': expected int64"):
            writer.add(batch(3, 2, extra={"u": ([0.5] * 3, "1", "sample")}))
        writer.add(batch(3, 3, extra={"u": ([2] * 3, "1", "sample")}))
    assert len(store) == 7


def test_a_column_that_does_not_fit_what_waits_raises_when_it_is_added(store):
    with store.writer(require=()) as writer:
        writer.add(batch(3, 1, extra={"u": ([1] * 3, "1", "sample")}))
        writer.add(batch(3, 2))
        with pytest.raises(DataError, match="user column 'u': expected int64"):
            writer.add(batch(3, 3, extra={"u": ([0.5] * 3, "1", "sample")}))
        writer.flush()
        with pytest.raises(DataError, match="user column 'u': expected int64"):
            writer.add(batch(3, 3, extra={"u": ([0.5] * 3, "1", "sample")}))
        writer.add(batch(3, 5))
    assert len(store) == 9
