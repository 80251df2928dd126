"""Cells with countless images: validation and statistics end, and the samples are named."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

import mlffstore as ml
from mlffstore.data.geometry import MAX_IMAGES, pairs, too_flat
from mlffstore.data.kernels import invertible_cell


def test_the_number_of_images_is_that_of_the_kernel():
    rng = np.random.default_rng(0)
    cell = rng.normal(0, 1, (300, 3, 3)) * 10.0 ** rng.uniform(-3, 1, (300, 1, 1))
    pbc = rng.integers(0, 2, (300, 3)).astype(bool)
    reach = np.array([invertible_cell(c, p, 3.2)[2] for c, p in zip(cell, pbc, strict=True)])
    images = np.prod(np.where(pbc, 2 * reach + 1, 1.0), axis=1)
    assert 50 < (images > MAX_IMAGES).sum() < 250
    assert np.array_equal(too_flat(cell, pbc, 3.2), images > MAX_IMAGES)


@pytest.mark.parametrize(
    ("cell", "pbc", "flat"),
    [
        (np.zeros((3, 3)), [False] * 3, False),
        (np.eye(3) * 1e-200, [True] * 3, True),
        (np.eye(3) * 1e90, [True] * 3, False),
        (np.array([[4, 0, 0], [4, 0, 0], [0, 0, 20.0]]), [True, True, False], True),
        (np.array([[4, 0, 0], [4, 1e-9, 0], [0, 0, 20.0]]), [True, True, False], True),
        (np.diag([3.0, 3.0, 0.0]), [True, True, False], False),
        (np.full((3, 3), np.nan), [True] * 3, False),
        (np.diag([3.0, np.inf, 1.0]), [True] * 3, False),
    ],
)
def test_odd_cells(cell, pbc, flat):
    cells, periodic = np.asarray(cell, float)[None], np.array([pbc])
    assert too_flat(cells, periodic, 3.2).tolist() == [flat]
    pairs(np.array([0, 2]), np.random.default_rng(0).normal(size=(2, 3)), cells, periodic, 3.2)  # ends


@pytest.mark.parametrize("scale", [1e-2, 1e-3, 1e-10])
def test_validation_of_a_cell_in_another_unit_ends(tmp_path, scale):
    crystal = bulk("Cu", cubic=True)
    cells = np.stack([crystal.cell.array * scale, crystal.cell.array])
    ds = ml.create(tmp_path / "d.zarr")
    batch = ml.SampleBatch(
        n_atoms=[4, 4], numbers=[29] * 8, positions=np.tile(crystal.positions, (2, 1)), pbc=[True, True],
        cell=np.stack([crystal.cell.array] * 2), energy=[0.0, 0.0], forces=np.zeros((8, 3)),
    )  # fmt: skip
    ds.append(batch)
    data = ds.snapshot().to_xarray().load().assign(cell=(("sample", "vector", "xyz"), cells))
    found = ml.validate(data)
    assert found.failed("cell_too_flat").tolist() == [0]
    assert found.invalid.tolist() == [True, False]
    assert not found.ok
    ml.statistics(data).to_dict()


def test_crystals_in_nanometres_need_no_memory(tmp_path, monkeypatch):
    """Their atoms have ten thousand neighbours each; a block of them took 50 GB."""
    from mlffstore.analysis.validation import measure

    counted = []
    original = measure.pairs
    monkeypatch.setattr(measure, "pairs", lambda *arguments: counted.append(original(*arguments)) or counted[-1])
    rng = np.random.default_rng(0)
    batch = ml.SampleBatch(
        n_atoms=[100] * 20, numbers=[29] * 2000, positions=rng.uniform(0, 1.1, (2000, 3)), pbc=[[True] * 3] * 20,
        cell=np.broadcast_to(np.eye(3) * 1.1, (20, 3, 3)), energy=np.zeros(20), forces=rng.normal(size=(2000, 3)),
    )  # fmt: skip
    store = ml.create(tmp_path / "d.zarr")
    store.append(batch)
    found = ml.validate(store).compute()
    assert sum(len(one.distance) for one in counted) == 0
    assert len(found.failed("cell_too_flat")) == 20
    assert not found.ok
