"""Zeros for what is missing, contradicting energies of one structure, and labels that were not compared."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml


@pytest.fixture(scope="module")
def ds(clean):
    """Return the clean corpus, in memory."""
    return ml.open(clean).snapshot().to_xarray().load()


def found(ds, check, **options):
    return [one for one in ml.validate(ds, **options).compute().checks if one.check == check]


def test_the_clean_corpus_passes(ds):
    for check in ("zero_stress", "equal_structures", "zero_forces"):
        assert all(one.state != "fail" for one in found(ds, check))


def test_stresses_that_are_all_zero(ds):
    zero = ds.copy(deep=True)
    zero.stress.values[np.isfinite(zero.stress.values)] = 0
    assert any(one.state == "fail" and "must be missing, not 0" in one.text for one in found(zero, "zero_stress"))
    assert not ml.validate(zero).compute().ok


def test_molecules_without_any_force(ds):
    few = ds.copy(deep=True)
    molecules = np.flatnonzero(~ds.pbc.values.any(axis=1) & (ds.n_atoms.values > 2))
    starts = np.concatenate([[0], np.cumsum(ds.n_atoms.values)])
    for i in molecules[::20]:
        few.forces.values[starts[i] : starts[i + 1]] = 0
    assert any(one.state == "fail" for one in found(few, "zero_forces"))


def test_energies_of_one_structure_that_differ(ds):
    twice = ds.mlff.isel(np.r_[np.arange(len(ds.sample)), np.arange(20)]).copy(deep=True)
    assert all(one.state == "pass" for one in found(twice, "equal_structures") if one.n)
    twice.energy.values[-20:] += 0.3
    (failed, *_) = [one for one in found(twice, "equal_structures") if one.n]
    assert failed.state == "fail"
    assert "expected one energy of one structure" in failed.text


def test_what_could_not_be_compared_is_not_called_right(ds):
    name = "emt" if "emt" in ds.teacher.values else str(ds.teacher.values[0])
    teacher = ml.get_teacher(name)
    t = ds.teacher.values.tolist().index(name)
    bare = ds.mlff.isel(np.arange(0, len(ds.sample), 8)).copy(deep=True)
    bare.forces.values[:, t] = np.nan
    (result,) = [one for one in found(bare, "teacher_labels", teacher=teacher) if one.teacher == name]
    assert "force_gradient not measured" in result.figure
    assert " of " in result.figure
    bare.energy.values[:, t] = np.nan
    if "stress" in bare:
        bare.stress.values[:, t] = np.nan
    (result,) = [one for one in found(bare, "teacher_labels", teacher=teacher) if one.teacher == name]
    assert result.state not in ("pass", "fail")
