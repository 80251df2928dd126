"""Every check of the dataset says what it found and on how many samples, or why it was not measured."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.analysis.validation import load_policy
from mlffstore.analysis.validation.dataset_checks import DATASET_CHECKS
from mlffstore.errors import PolicyError


def lines(validation):
    return {(one.check, one.teacher): one for one in validation.checks}


def test_each_check_has_a_line_with_what_it_was_measured_on(ds):
    found = ml.validate(ds)
    assert {one.check for one in found.checks} == set(DATASET_CHECKS)
    line = lines(found)["energy_units", "emt"]
    assert (line.state, line.unit, line.mark) == ("pass", "pairs", "pass")
    assert line.n > 100
    assert "times the work of the forces" in line.text
    assert lines(found)["bond_stiffness", "gfn2-xtb"].n == 124
    assert lines(found)["stress_units", "gfn2-xtb"].state == "nothing"
    text = found.table()
    assert "energy_units" in text
    assert "not measured: emt: the teacher is not at hand" in text
    assert found.to_json()["checks"][0]["check"] == "energy_units"


def test_too_few_pairs_are_no_measurement_and_the_line_says_what_to_do(ds):
    few = ds.mlff.isel(np.arange(0, ds.sizes["sample"], 6))  # one sample of each root
    line = lines(ml.validate(few))["energy_units", "gfn2-xtb"]
    assert line.state == "not measured"
    assert line.figure.startswith("not measured: gfn2-xtb: ")
    assert "10 needed; name roots on import (--root) or pass --teacher" in line.text
    assert line.problem == ""
    assert line.mark == "-"


def test_a_policy_can_demand_that_a_check_was_measured(ds):
    few = ds.mlff.isel(np.arange(0, ds.sizes["sample"], 6))
    assert ml.validate(few).ok
    demanding = ml.validate(few, {"checks": {"energy_units": {"required": True}}})
    assert not demanding.ok
    problem = next(one for one in demanding.problems if one.check == "energy_units")
    assert (problem.severity, problem.text[:13]) == ("error", "not measured:")
    # Labels that are not there are nothing to measure.
    assert ml.validate(ds, {"checks": {"stress_units": {"required": True}}}).ok


def test_the_production_policy_demands_units():
    checks = load_policy("production").checks
    assert {name for name, rule in checks.items() if rule.required} >= {"energy_units", "stress_units", "force_sums"}
    assert load_policy("production").to_json()["checks"]["energy_units"]["required"] is True
    assert "required" not in load_policy().to_json()["checks"]["energy_units"]


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ({"close_atoms": {"required": True}}, "required: unknown key"),
        ({"energy_units": {"required": "yes"}}, "expected true or false"),
        ({"energy_units": {"max_slop": 2}}, "max_slop: unknown key; did you mean 'max_slope'"),
    ],
)
def test_a_wrong_demand_says_what_is_wrong(checks, words):
    with pytest.raises(PolicyError, match=words):
        load_policy({"checks": checks})


def test_a_check_that_is_off_has_no_line(ds):
    found = ml.validate(ds, {"checks": {"energy_units": {"severity": "off"}}})
    assert "energy_units" not in {one.check for one in found.checks}


def test_many_warnings_are_an_error_and_few_are_not(ds):
    one = ds.copy(deep=True)
    one.energy.values[5] += 3.0 * int(one.n_atoms[5])
    assert ml.validate(one).ok
    many = ds.copy(deep=True)
    many.energy.values[::4] += np.float64(3.0) * many.n_atoms.values[::4, None]
    found = ml.validate(many)
    problem = next(one for one in found.problems if one.check == "repeated_warnings")
    assert "samples (" in problem.text
    assert "at most 10% allowed" in problem.text
    lenient = {"checks": {"repeated_warnings": {"energy_outlier_max_fraction": 0.5, "energy_work_max_fraction": 0.5}}}
    assert "repeated_warnings" not in {one.check for one in ml.validate(many, lenient).problems}


def test_the_choice_of_pairs_depends_on_neither_chunks_nor_order_of_reading(ds):
    small = ds.chunk(
        {"sample": (100, 60, 32), "atom": tuple(np.add.reduceat(ds.n_atoms.values, [0, 100, 160]).tolist())}
    )
    assert [one.to_json() for one in ml.validate(small).checks] == [one.to_json() for one in ml.validate(ds).checks]


def test_the_teacher_at_hand_is_one_with_the_recorded_fingerprint(clean):
    found = lines(ml.validate(clean, teacher="at hand"))
    assert found["teacher_labels", "emt"].state == "pass"
    assert found["teacher_labels", "emt"].n > 20
    ds = ml.open(clean).snapshot().to_xarray().load()
    ds.attrs["teachers"] = ds.attrs["teachers"].replace('"fingerprint": "', '"fingerprint": "another ')
    line = lines(ml.validate(ds, teacher="at hand"))["teacher_labels", "emt"]
    assert line.state == "not measured"
    assert "another" in line.text


def test_the_teacher_at_hand_finds_labels_that_are_not_its_own(clean):
    ds = ml.open(clean).snapshot().to_xarray().load()
    ds.energy.values[:] += 0.002 * ds.n_atoms.values[:, None]
    found = ml.validate(ds, teacher="at hand")
    assert not found.ok
    problem = next(one for one in found.problems if one.check == "teacher_labels")
    assert "expected the labels of the teacher, got others" in problem.text
