"""Labels that are attached reach the samples that were named, or nothing is written."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError

NAN = np.nan


def batch(n_atoms, teacher="q", energy=None, forces=None):
    labels = {"energy": np.arange(1.0, len(n_atoms) + 1) if energy is None else energy}
    labels |= {} if forces is None else {"forces": forces}
    total = sum(n_atoms)
    return ml.SampleBatch(
        n_atoms=n_atoms, numbers=[2] * total, positions=np.arange(3.0 * total).reshape(total, 3),
        multiplicity=[1] * len(n_atoms), labels={teacher: labels},
    )  # fmt: skip


@pytest.fixture(params=["one segment", "a segment for each sample"])
def store(tmp_path, request):
    store = ml.create(tmp_path / "d.zarr")
    for part in [[1, 2, 3]] if request.param == "one segment" else [[1], [2], [3]]:
        store.append(batch(part), require=())
    return store


def attached(store):
    return store.snapshot().read().labels["b"]["energy"].tolist()


@pytest.mark.parametrize(
    ("samples", "n_atoms", "energy", "expected"),
    [
        ([-1], [3], [7.0], [NAN, NAN, 7.0]),
        ([-1, 0], [3, 1], [7.0, 1.0], [1.0, NAN, 7.0]),
        ([1, -3], [2, 1], [5.0, 4.0], [4.0, 5.0, NAN]),
    ],
)
def test_negative_indices_are_counted_from_the_end(store, samples, n_atoms, energy, expected):
    store.attach_labels(samples, batch(n_atoms, "b", energy))
    np.testing.assert_array_equal(attached(store), expected)


def test_negative_indices_fill_in_a_column_that_is_there(store):
    store.attach_labels([0], batch([1], "b", [1.0]))
    store.attach_labels([-1, -2], batch([3, 2], "b", [3.0, 2.0]))
    assert attached(store) == [1, 2, 3]


@pytest.mark.parametrize(
    ("samples", "n_atoms", "message"),
    [
        ([2, -1], [3, 3], "2 different samples.*got 2, of which 1"),
        ([3], [1], "index 3 is outside the 3 samples"),
        ([-4], [1], "index -4 is outside the 3 samples"),
        ([1.7, 0.2], [2, 1], "expected integers, got float64"),
        (["0"], [1], "expected integers, got <U1"),
        ([[0, 1]], [1, 2], "expected one dimension"),
        ([[0], [1, 2]], [1, 2], "samples: expected indices"),
        ([0], [5], "expected 1 atoms for sample 0, as stored, got 5"),
        ([0, 1], [2, 1], "expected 1 atoms for sample 0, as stored, got 2"),
        ([0], [1, 2], "2 different samples.*got 1"),
    ],
)
def test_samples_that_do_not_fit_are_refused(store, samples, n_atoms, message):
    before = store.version
    with pytest.raises(DataError, match=message):
        store.attach_labels(samples, batch(n_atoms, "b", forces=np.zeros((sum(n_atoms), 3))))
    assert (store.version, store.snapshot().teachers) == (before, ("q",))


def test_an_empty_snapshot_is_not_replaced_by_the_newest(store):
    empty = store.snapshot(0)
    with pytest.raises(DataError, match="outside the 0 samples"):
        store.attach_labels([0], batch([1], "b"), snapshot=empty)
    with pytest.raises(DataError, match="one row per sample \\(0\\)"):
        store.add_column("u", [1.0, 2.0, 3.0], axis="sample", snapshot=empty)
