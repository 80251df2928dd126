"""Near-duplicates: found among many others of their composition, and not where there are none."""

from __future__ import annotations

import numpy as np

from mlffstore.analysis.validation.copies import find_copies


def figures(shape, **more):
    n = len(shape)
    return {
        "n_atoms": np.full(n, 8), "composition": np.full(n, 5, np.uint64), "graph": np.zeros(n, np.uint64),
        "shape": shape.astype(np.float32), "split": np.zeros(n, np.uint8), **more,
    }  # fmt: skip


def test_copies_are_found_between_others_whose_first_number_is_the_same():
    shape = np.ones((6, 6))
    shape[:, 0] += np.arange(6) * 1e-6
    shape[1:5, 3] = [2, 3, 4, 5]
    assert np.flatnonzero(find_copies(figures(shape), 1e-4)["near_duplicate"]).tolist() == [5]


def test_many_samples_of_one_composition_are_no_copies():
    """100,000 frames of one system whose numbers vary by 1 %."""
    rng = np.random.default_rng(0)
    shape = 1 + rng.normal(0, 0.01, (100_000, 6))
    shape[:, 5] = 1  # of equal volume
    assert find_copies(figures(shape), 1e-4)["near_duplicate"].mean() < 1e-4


def test_other_compositions_and_splits():
    shape = np.ones((4, 6))
    composition = np.array([5, 5, 6, 6], np.uint64)
    split = np.array([0, 0, 0, 1], np.uint8)
    found = find_copies(figures(shape, composition=composition, split=split), 1e-4)
    assert found["near_duplicate"].tolist() == [False, True, False, True]
    assert found["near_leakage"].tolist() == [False, False, True, True]
