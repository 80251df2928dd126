"""The teacher at hand finds wrong labels beside energy, forces and stress."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

import mlffstore as ml

pytest.importorskip("tblite")

NAMES = ("energy", "forces", "charges", "dipole", "atomic_energies", "hessian_product", "hessian_product_2")


@pytest.fixture(scope="module")
def ds(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("recheck") / "d.zarr")
    frames = [molecule(name) for name in ("H2O", "NH3", "CH3OH", "HCN", "H2CO", "C2H4", "CH3CHO", "HCOOH")]
    for k, frame in enumerate(frames):
        frame.rattle(0.03, seed=k)
    store.append(frames, require=())
    store.add_labels("gfn2-xtb", properties=NAMES)
    return store.snapshot().to_xarray().compute()


def test_right_labels_pass(ds):
    teacher = ml.get_teacher("gfn2-xtb")
    assert not ml.validate(ds, teacher=teacher).failed("teacher_properties").size
    # Labels without an energy are looked at too.
    bare = ds.drop_vars(["energy", "forces", "atomic_energies"])
    found = ml.validate(bare, teacher=teacher)
    assert not found.failed("teacher_properties").size
    assert "8 samples labelled again" in next(one.figure for one in found.checks if one.check == "teacher_labels")


@pytest.mark.parametrize("name", NAMES[2:])
def test_labels_of_another_sample_are_found(ds, name):
    """A sign, a unit, or the rows of an atom beside it."""
    spoiled = ds.copy(deep=True)
    starts = np.concatenate([[0], np.cumsum(ds.n_atoms.values)])
    rows = slice(5, 6) if ds[name].dims[0] == "sample" else slice(starts[5], starts[6])
    values = spoiled[name].values
    values[rows] = values[rows][::-1] if name == "atomic_energies" else -values[rows]
    found = ml.validate(spoiled, teacher=ml.get_teacher("gfn2-xtb"))
    assert found.failed("teacher_properties").tolist() == [5]
    assert not found.ok
