"""Near-duplicates: found among many others of their composition, and not where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from scipy.spatial.transform import Rotation

import mlffstore as ml
from mlffstore.analysis.validation.copies import find_copies
from mlffstore.analysis.validation.fingerprints import N_SHAPE


def figures(shape, **more):
    n = len(shape)
    return {
        "n_atoms": np.full(n, 8), "composition": np.full(n, 5, np.uint64), "graph": np.zeros(n, np.uint64),
        "molecule": np.ones(n, bool), "kinds": np.full(n, 8, np.uint8), "force_max": np.ones((n, 1)),
        "shape": shape.astype(np.float32), "split": np.zeros(n, np.uint8), **more,
    }  # fmt: skip


def test_copies_are_found_between_others_whose_first_number_is_the_same():
    shape = np.ones((6, N_SHAPE))
    shape[:, 0] += np.arange(6) * 1e-6
    shape[1:5, 3] = [2, 3, 4, 5]
    assert np.flatnonzero(find_copies(figures(shape), 1e-4)["near_duplicate"]).tolist() == [5]


def test_many_samples_of_one_composition_are_no_copies():
    """100,000 frames of one system whose numbers vary by 1 %."""
    rng = np.random.default_rng(0)
    shape = 1 + rng.normal(0, 0.01, (100_000, N_SHAPE))
    shape[:, 5] = 1  # of equal volume
    assert find_copies(figures(shape), 1e-4)["near_duplicate"].mean() < 1e-4


def test_other_compositions_and_splits():
    shape = np.ones((4, N_SHAPE))
    composition = np.array([5, 5, 6, 6], np.uint64)
    split = np.array([0, 0, 0, 1], np.uint8)
    found = find_copies(figures(shape, composition=composition, split=split), 1e-4)
    assert found["near_duplicate"].tolist() == [False, True, False, True]
    assert found["near_leakage"].tolist() == [False, False, True, True]


def test_copies_of_symmetric_and_relaxed_structures_are_told_apart():
    """Of few kinds of atoms, or without forces: they occur again by themselves."""
    shape, split = np.ones((6, N_SHAPE)), np.tile(np.array([0, 1], np.uint8), 3)
    composition = np.repeat(np.arange(3, dtype=np.uint64), 2)
    kinds = np.array([8, 8, 2, 2, 8, 8], np.uint8)
    force_max = np.array([1, 1, 1, 1, 1e-4, 1e-4])[:, None]
    found = find_copies(figures(shape, composition=composition, split=split, kinds=kinds, force_max=force_max), 1e-4)
    assert found["near_leakage"].tolist() == [True] * 2 + [False] * 4
    assert found["ideal_leakage"].tolist() == [False] * 2 + [True] * 4


def validated(path, frames, split):
    store = ml.create(path)
    store.append(ml.SampleBatch.from_ase(frames).astype("float32"), require=())
    ds = store.snapshot().to_xarray().load()
    ds.split.values[:] = split
    return ml.validate(ds)


def rattled(seed, rng, size, n):
    frames = [seed.copy() for _ in range(n)]
    for frame in frames:
        frame.positions += rng.normal(0, size, frame.positions.shape)
    return frames


@pytest.mark.parametrize(
    ("seed", "size"), [(bulk("Cu", cubic=True) * 4, 0.02), (bulk("Cu", cubic=True), 0.05), (molecule("C2H6"), 0.02)]
)
def test_rattled_structures_of_any_size_are_no_copies_and_turned_ones_are(tmp_path, seed, size):
    """256 atoms rattled alike have the same sums over pairs to 1e-4, and are different."""
    rng = np.random.default_rng(0)
    frames = rattled(seed, rng, size, 40)
    turn = Rotation.random(rng=1).as_matrix()
    for frame in frames[:3]:
        copy = Atoms(frame.numbers[::-1], (frame.positions @ turn)[::-1] + 0.7, cell=frame.cell @ turn, pbc=frame.pbc)
        frames.append(copy)
    found = validated(tmp_path / "d.zarr", frames, [0] * 40 + [1] * 3)
    assert found.failed("near_duplicate").tolist() == [40, 41, 42]
    assert found.failed("near_leakage").tolist() == [0, 1, 2, 40, 41, 42]
    assert not found.ok


def test_the_three_directions_of_a_strained_cubic_crystal_are_a_warning(tmp_path):
    frames = []
    for axis in range(3):
        for size in (0.97, 0.98, 0.99, 1.01, 1.02, 1.03):
            frame = bulk("Si", cubic=True) * 2
            strain = np.eye(3)
            strain[axis, axis] = size
            frame.set_cell(frame.cell @ strain, scale_atoms=True)
            frames.append(frame)
    frames += rattled(bulk("Si", cubic=True), np.random.default_rng(0), 0.05, 12)
    found = validated(tmp_path / "d.zarr", frames, [0] * 17 + [1] + [0] * 12)
    assert found.failed("ideal_leakage").tolist() == [5, 11, 17]
    assert not len(found.failed("near_leakage"))
    assert not found.invalid.any()


def test_defects_and_slabs_have_the_host_that_they_were_made_of(tmp_path):
    rng, frames = np.random.default_rng(0), []
    for symbol in ("Cu", "Al", "Ag"):
        frames += rattled(bulk(symbol, cubic=True) * 2, rng, 0.05, 2)
    salt = bulk("MgO", "rocksalt", a=4.21, cubic=True) * 2
    frames += rattled(salt, rng, 0.03, 2)
    vacancy, impurity, slab = bulk("Cu", cubic=True) * 3, salt.copy(), fcc111("Al", (2, 2, 4), vacuum=8)
    del vacancy[5]
    impurity.numbers[3] = 20
    others = [vacancy, impurity, slab, bulk("Ni", cubic=True) * 2]
    found = validated(tmp_path / "d.zarr", [*frames, *others], [0] * 8 + [1] * 4)
    assert found.failed("host_leakage").tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 10]
    assert not len(found.failed("molecule_leakage"))
