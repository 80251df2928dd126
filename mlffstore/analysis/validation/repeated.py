"""Warnings of single samples that add up: what is odd in one sample is an error of the dataset if it is so in many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.analysis.validation.check_result import Check, CheckResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.analysis.validation.policy import Policy
    from mlffstore.data.schema import Array

#: Samples that may warn whatever their share.
_FEW = 3


#: Checks that only molecules can fail: their share is of the molecules.
_OF_MOLECULES = ("net_torque", "odd_bonds", "unbound_atoms", "few_hydrogens", "molecule_leakage")


def repeated_warnings(failed: Mapping[str, Array], molecule: Array, policy: Policy) -> CheckResult:
    """Return the check `repeated_warnings`.

    Parameters
    ----------
    failed : mapping of str to ndarray
        For each check of single samples which samples fail it, shape (S,), bool.
    molecule : ndarray, shape (S,), bool
        Samples that are periodic nowhere.
    policy : Policy
        The limits of `repeated_warnings` are shares of the samples by the name of the check: ``energy_work_max_fraction``.
    """
    rule = policy.checks["repeated_warnings"]
    check = Check("repeated_warnings", rule)
    n = len(molecule)
    too_many = []
    for limit, most in rule.limits.items():
        name = limit.removesuffix("_max_fraction")
        if policy.checks[name].severity != "warning":
            continue
        of, kind = (int(molecule.sum()), "molecules") if name in _OF_MOLECULES else (n, "samples")
        count = int(failed[name].sum())
        if count > max(most * of, _FEW):
            too_many.append(f"{name} in {count:,} of {of:,} {kind} ({count / of:.0%}, at most {most:.0%} allowed)")
    return check.judged(
        not too_many, "no warning is more frequent than the policy allows", n,
        f"expected warnings in a few samples, got {'; '.join(too_many)}. Look at these samples; a policy can allow more",
    )  # fmt: skip
