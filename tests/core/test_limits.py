"""The limits are the same wherever they are defaults."""

from __future__ import annotations

from mlffstore.analysis.validation import load_policy
from mlffstore.data.limits import MAX_FORCE, MAX_STRESS, MIN_DISTANCE
from mlffstore.pipeline.recipe import Checks


def test_the_default_policy_and_recipes_agree_with_the_limits():
    policy = load_policy()
    assert policy.checks["close_atoms"]["min_angstrom"] == Checks().d_min == MIN_DISTANCE
    assert policy.acceptance["d_min_angstrom"]["min"] == MIN_DISTANCE
    assert policy.checks["force_too_large"]["max_eV_per_angstrom"] == Checks().force_max == MAX_FORCE
    assert policy.checks["stress_too_large"]["max_eV_per_angstrom3"] == MAX_STRESS
