"""Checks of a dataset as a whole. Each of them says what it found and on how many samples, or why it was not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.validation.check_result import Check, CheckResult
from mlffstore.analysis.validation.label_checks import label_checks
from mlffstore.analysis.validation.pair_checks import pair_checks
from mlffstore.analysis.validation.property_checks import DATASET_CHECKS as PROPERTY_CHECKS
from mlffstore.analysis.validation.property_checks import property_checks
from mlffstore.analysis.validation.repeated import repeated_warnings
from mlffstore.analysis.validation.structure_checks import structure_checks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.analysis.validation.measure import Measured
    from mlffstore.analysis.validation.policy import Policy
    from mlffstore.analysis.validation.property_figures import PropertyFigures
    from mlffstore.analysis.validation.work import Work
    from mlffstore.data.schema import Array

#: Checks of the dataset as a whole, in the order of the table.
DATASET_CHECKS = (
    "energy_units", "pair_energies", "stress_units", "stress_shear", "bond_stiffness", "force_units", "force_sums",
    "zero_forces", "zero_stress", "equal_structures", "stress_stiffness", "energy_per_atom", "energy_alignment",
    "energy_resolution", "teacher_labels", "length_units", "hydrogen_free", "atoms_moved", *PROPERTY_CHECKS,
    "repeated_warnings",
)  # fmt: skip

#: Checks of single samples -> the variables without which nothing can fail them.
_NEEDS = {
    "electron_parity": ("charge", "multiplicity"), "energy_work": ("root",), "duplicate": ("content_hash",),
    "leakage": ("split", "root", "content_hash"), "near_leakage": ("split",), "ideal_leakage": ("split",),
    "molecule_leakage": ("split",), "host_leakage": ("split",),
    "altered": ("charge", "multiplicity", "content_hash"),
}  # fmt: skip


def unmeasured(measured: Measured, policy: Policy) -> list[CheckResult]:
    """Return the checks of single samples that nothing could fail: the dataset lacks variables that every store has."""
    out = []
    for check, names in _NEEDS.items():
        missing = [name for name in names if name not in measured.variables]
        rule = policy.checks[check]
        if missing and rule.severity != "off":
            text = f"not measured: the dataset has no {', '.join(missing)}; keep it, or turn the check off"
            out.append(CheckResult(check, rule.severity, "fail", text))
    return out


def check_dataset(
    measured: Measured,
    work: Work,
    failed: Mapping[str, Array],
    policy: Policy,
    teachers: Mapping[str, Mapping[str, Any]],
    rechecked: Mapping[str, CheckResult],
    properties: PropertyFigures | None = None,
) -> list[CheckResult]:
    """Return the results of the checks of the dataset as a whole, but for those that the policy turns off.

    Parameters
    ----------
    measured : Measured
    work : Work
        Pairs of samples, see `mlffstore.analysis.validation.candidates`.
    failed : mapping of str to ndarray
        For each check of single samples which samples fail it, shape (S,), bool.
    policy : Policy
    teachers : mapping of str to mapping
        What is recorded of each teacher.
    rechecked : mapping of str to CheckResult
        For each teacher at hand what the comparison with it found.
    properties : PropertyFigures, optional
        Of the properties beside energy, forces and stress, if there are any.
    """
    out = []
    has_stress = "stress" in measured.variables
    for t, (name, info) in enumerate(teachers.items()):
        stiffness = measured.bonds.stiffness(t)
        turns = bool(info.get("conservative", True) and info.get("equivariant", True))
        stressed = has_stress and bool(np.isfinite(measured.samples["mean_stress"][:, t]).any())
        out += pair_checks(work, t, name, policy, measured.samples["force_max"][:, t], stressed, stiffness)
        out += label_checks(measured, t, name, policy, stiffness, turns)
        missing = Check("teacher_labels", policy.checks["teacher_labels"], name)
        out.append(rechecked.get(name, missing.not_measured("the teacher is not at hand; name it with --teacher")))
    out += structure_checks(measured, policy)
    out += property_checks(properties, policy)
    out.append(repeated_warnings(failed, measured.samples["molecule"], policy))
    order = {check: i for i, check in enumerate(DATASET_CHECKS)}
    return sorted((one for one in out if one.severity != "off"), key=lambda one: order[one.check])
