"""Checks of the structures of the dataset as a whole: lengths, lost hydrogens, moved atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.check_result import Check, CheckResult
from mlffstore.lazy.inputs import altered_message

if TYPE_CHECKING:
    from mlffstore.analysis.validation.measure import Measured
    from mlffstore.analysis.validation.policy import Policy

#: Samples below which a share says nothing.
_FEWEST = 10


def structure_checks(measured: Measured, policy: Policy) -> list[CheckResult]:
    """Return the checks `length_units`, `hydrogen_free` and `atoms_moved`."""
    return [
        _length_units(Check("length_units", policy.checks["length_units"]), measured),
        _hydrogen_free(Check("hydrogen_free", policy.checks["hydrogen_free"], unit="molecules"), measured),
        _atoms_moved(Check("atoms_moved", policy.checks["atoms_moved"]), measured),
    ]


def _length_units(check: Check, measured: Measured) -> CheckResult:
    s = measured.samples
    # Noble gases keep their distance, and so do atoms in vacuum.
    owner = np.repeat(np.arange(len(s["n_atoms"])), measured.n_elements)
    noble = np.bincount(owner, np.isin(measured.elements, (2, 10, 18, 36, 54, 86)), minlength=len(s["n_atoms"])) > 0
    counted = (s["n_atoms"] > 1) & ~noble & s["finite"] & ~s["too_flat"]
    contact = s["contact"][counted]
    n = len(contact)
    if n < _FEWEST:
        return check.not_measured(f"{n} samples of two atoms or more, {_FEWEST} needed", n)
    median = float(np.median(contact))
    low, high = check.rule["min_contact"], check.rule["max_contact"]
    shown = f"{median:.3g}" if np.isfinite(median) else "more than two"
    text = f"the closest atoms are {shown} times the sum of their covalent radii apart (median)"
    guess = "are they in bohr (multiply by 0.529177)?" if median > high else "are they in nm (multiply by 10)?"
    return check.judged(
        low <= median <= high, text, n, f"expected positions in angstrom, got structures in which {text}; {guess}"
    )


def _hydrogen_free(check: Check, measured: Measured) -> CheckResult:
    s = measured.samples
    organic, bare = int(s["organic"].sum()), int((s["hydrogen_free"] & s["bare"]).sum())
    if not organic:
        return check.nothing("there are no molecules with carbon")
    if organic < _FEWEST:
        return check.not_measured(f"{organic} molecules with carbon, {_FEWEST} needed", organic)
    text = f"{bare} of {organic} molecules with carbon have no hydrogen and carbons with free places"
    return check.judged(
        bare <= check.rule["max_fraction"] * organic, text, organic,
        f"expected molecules with their hydrogens, got that {text}; were they lost in a conversion (SDF and SMILES "
        "leave hydrogens out)?",
    )  # fmt: skip


def _atoms_moved(check: Check, measured: Measured) -> CheckResult:
    altered = measured.samples["altered"]
    if "content_hash" not in measured.variables:
        return check.nothing("the dataset has no content_hash")
    moved = int(altered.sum())
    return check.judged(
        moved <= check.rule["max_fraction"] * len(altered), f"{moved:,} samples are not those that content_hash names",
        len(altered), altered_message(moved, len(altered)),
    )  # fmt: skip
