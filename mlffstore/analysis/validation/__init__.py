"""Validation: every sample measured in one pass, judged by a policy, with an acceptance table for the whole.

>>> import mlffstore as ml
>>> validation = ml.validate("d.zarr")  # doctest: +SKIP
>>> validation.ok, validation.flags, validation.table()  # doctest: +SKIP
"""

from __future__ import annotations

from mlffstore.analysis.validation.policy import Policy, Rule, load_policy
from mlffstore.analysis.validation.result import Validation, validate

__all__ = ["Policy", "Rule", "Validation", "load_policy", "validate"]
