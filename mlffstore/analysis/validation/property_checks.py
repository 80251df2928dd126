"""Checks of the properties beside energy, forces and stress: finite, of a possible size, and what physics says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.check_result import Check, CheckResult
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlffstore.analysis.validation.policy import Policy
    from mlffstore.analysis.validation.property_figures import PropertyFigures
    from mlffstore.data.schema import Array

#: Checks of single samples.
SAMPLE_CHECKS = ("property_range", "property_sums")
#: Checks of the dataset as a whole, each with the property that it is about.
DATASET_CHECKS = {
    "property_values": "", "charge_sums": "charges", "atomic_energy_sums": "atomic_energies", "dipole_units": "dipole",
    "hessian_products": "hessian_product",
}  # fmt: skip
#: Property -> the limit of the size of its numbers in the rule `property_range`.
_LARGEST = {
    "charges": "max_charge_e", "magmoms": "max_magmom_bohr_magneton", "hessian_product": "max_hessian_eV_per_angstrom2",
    "atomic_energies": "max_energy_eV_per_atom",
}  # fmt: skip
#: Standard deviations, which are not negative.
_POSITIVE = ("energy_std", "forces_std")
#: Samples that a check of the dataset needs.
_FEWEST = 5
#: e*angstrom: dipoles that charges of atoms explain less of say nothing of the unit, since lone pairs and polarised atoms
#: have dipoles of this size (PH3 0.12).
_POLARISED = 0.1


def judge_properties(figures: PropertyFigures | None, policy: Policy, n: int) -> dict[str, Array]:
    """Return for each check of single samples, and for ``not_finite``, which of n samples fail it, shape (S,), bool."""
    out = {name: np.zeros(n, bool) for name in ("not_finite", *SAMPLE_CHECKS)}
    if figures is None:
        return out
    ranges, sums = policy.checks["property_range"], policy.checks["property_sums"]
    with np.errstate(invalid="ignore"):
        for (_, name), s in figures.samples.items():
            out["not_finite"] |= s["broken"]
            if name in _LARGEST:
                limit = ranges[_LARGEST[name]]
                out["property_range"] |= (s["largest"] > limit) | (s["least"] < -limit)
            if name in _POSITIVE:
                out["property_range"] |= s["least"] < 0
            if "gap" in s:
                limit = sums["max_charge_e" if name == "charges" else "max_energy_eV_per_atom"]
                out["property_sums"] |= np.abs(s["gap"]) > limit
    return out


def property_checks(figures: PropertyFigures | None, policy: Policy) -> list[CheckResult]:
    """Return the results of the checks of the dataset as a whole, one for each teacher that gave the property."""
    makers: dict[str, Callable[[Check, PropertyFigures, Policy], CheckResult]] = {
        "charge_sums": _charge_sums, "atomic_energy_sums": _atomic_energy_sums, "dipole_units": _dipole_units,
        "hessian_products": _hessian_products,
    }  # fmt: skip
    out = []
    for check, name in DATASET_CHECKS.items():
        rule = policy.checks[check]
        if not name:
            every = {} if figures is None else dict.fromkeys(teacher for teacher, _ in figures.samples)
            results = [_values(Check(check, rule, one), figures, policy) for one in every if figures is not None]
            results = [one for one in results if one.state != "nothing"]
        else:
            teachers = [] if figures is None else figures.teachers(name)
            results = [
                makers[check](Check(check, rule, one), figures, policy) for one in teachers if figures is not None
            ]
        out += results or [Check(check, rule).nothing(f"no teacher gave {name or 'other properties'}")]
    return out


def _values(check: Check, figures: PropertyFigures, policy: Policy) -> CheckResult:
    """Judge how many samples have numbers of an impossible size, and say between which numbers each property lies."""
    limits, texts, worst, n = policy.checks["property_range"], [], 0.0, 0
    complaint = ""
    for (teacher, name), s in figures.samples.items():
        has = s["has"] & ~s["broken"]
        if teacher != check.teacher or not has.any():
            continue
        low, high, here = float(np.min(s["least"][has])), float(np.max(s["largest"][has])), int(has.sum())
        text = f"{name} {low:.3g} to {high:.3g} in {counted(here, 'sample')}"
        n = max(n, here)
        texts.append(text)
        limit = limits[_LARGEST[name]] if name in _LARGEST else np.inf
        bad = (s["largest"][has] > limit) | (s["least"][has] < (0 if name in _POSITIVE else -limit))
        if bad.mean() > worst:
            worst = float(bad.mean())
            allowed = "no negative numbers" if name in _POSITIVE else f"{name} up to {limit:g}"
            complaint = f"expected {allowed}, got {text}; {bad.mean():.0%} of these samples are beyond. Check the unit"
    if not texts:
        return check.nothing("no other properties")
    return check.judged(worst <= check.rule["max_fraction"], "; ".join(texts), n, complaint)


def _charge_sums(check: Check, figures: PropertyFigures, policy: Policy) -> CheckResult:
    return _gaps(
        check, figures.samples[check.teacher, "charges"], policy.checks["property_sums"]["max_charge_e"], "e",
        "the total charge", "Check unit and order of the charges, and the total charges of the samples",
    )  # fmt: skip


def _atomic_energy_sums(check: Check, figures: PropertyFigures, policy: Policy) -> CheckResult:
    return _gaps(
        check, figures.samples[check.teacher, "atomic_energies"], policy.checks["property_sums"]["max_energy_eV_per_atom"],
        "eV per atom", "the energy", "Store shares of the total energy, with the energies of the isolated atoms in them",
    )  # fmt: skip


def _gaps(check: Check, s: dict[str, Array], limit: float, unit: str, what: str, advice: str) -> CheckResult:
    gap = np.abs(s["gap"][np.isfinite(s["gap"])]) if "gap" in s else np.zeros(0)
    if not len(gap):
        return check.not_measured(f"no sample has {what} and all of its parts")
    bad = float((gap > limit).mean())
    text = f"sums differ from {what} by {np.median(gap):.2g} {unit} in the median, {gap.max():.2g} at most"
    return check.judged(
        bad <= check.rule["max_fraction"], text, len(gap),
        f"expected sums that differ from {what} by at most {limit:g} {unit}, got more in {bad:.0%} of the samples: {text}. "
        f"{advice}",
    )  # fmt: skip


def _dipole_units(check: Check, figures: PropertyFigures, policy: Policy) -> CheckResult:
    """Judge the slope of dipoles against their estimates: by charges if there are, else by electronegativities."""
    s, rule = figures.samples[check.teacher, "dipole"], check.rule
    for by, estimate in (("charge", "partial charges"), ("bond", "electronegativities")):
        good = np.isfinite(s[f"{by}_xy"])
        n = int(good.sum())
        xy, xx, yy = (float(s[key][good].sum(dtype=np.float64)) for key in (f"{by}_xy", f"{by}_xx", "yy"))
        if n < rule["min_molecules"] or not xx > 0 or not yy > 0:
            continue
        slope, correlation = xy / xx, xy / np.sqrt(xx * yy)
        text = f"dipoles are {slope:.2f} times those of {estimate} (correlation {correlation:.2f})"
        if abs(correlation) < rule["min_correlation"]:
            return check.not_measured(f"{text}, which is too little to tell the unit", n)
        if np.sqrt(xx / n) < _POLARISED:
            return check.not_measured(
                f"{text}, which are {np.sqrt(xx / n):.2g} e*angstrom: too small to tell the unit", n
            )
        high = rule["max_slope" if by == "charge" else "max_slope_by_electronegativity"]
        return check.judged(
            rule["min_slope"] <= slope <= high, text, n,
            f"expected 1, got that {text}: Debye give 4.8, atomic units 1.9, the opposite sign a negative number. Convert "
            "to e*angstrom, from the negative to the positive charge, and import again",
        )  # fmt: skip
    n = int(np.isfinite(s["yy"]).sum())
    return check.not_measured(
        f"{counted(n, 'neutral molecule')} that can be judged, {rule['min_molecules']:g} needed", n
    )


def _hessian_products(check: Check, figures: PropertyFigures, policy: Policy) -> CheckResult:
    """Judge sum, sign and size of Hessian products."""
    s, rule = figures.samples[check.teacher, "hessian_product"], check.rule
    share, curvature = (one[np.isfinite(one)] for one in (s["share"], s["curvature"]))
    if len(share) < _FEWEST:
        return check.not_measured(f"{counted(len(share), 'sample')} of several atoms, {_FEWEST} needed", len(share))
    text = f"their sums are {np.median(share):.2g} of those of random vectors"
    if np.median(share) > rule["max_share"]:
        return check.judged(
            False, text, len(share),
            f"expected products that sum to zero over the atoms, got that {text}: the derivatives of other forces, or rows "
            "of other samples. Compute them again",
        )  # fmt: skip
    if len(curvature) < _FEWEST:
        return check.not_measured(f"{text}; without hessian_probe sign and size are not known", len(share))
    positive, middle = float((curvature > 0).mean()), float(np.median(curvature))
    text += (
        f", the curvature along the probes is {middle:.3g} eV/angstrom^2 in the median and positive in {positive:.0%}"
    )
    low, high = rule["min_eV_per_angstrom2"], rule["max_eV_per_angstrom2"]
    return check.judged(
        positive >= rule["min_positive_fraction"] and low <= middle <= high, text, len(curvature),
        f"expected a curvature of {low:g} to {high:g} eV/angstrom^2, positive in most samples, got that {text}: the product "
        "is that of the second derivatives of the energy (minus the derivative of the forces), per angstrom of the probe",
    )  # fmt: skip
