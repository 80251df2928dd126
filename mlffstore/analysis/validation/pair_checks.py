"""Checks of energies against the work of forces and stress, over pairs of samples: units, signs, other zeros."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation import units
from mlffstore.analysis.validation.check_result import Check, CheckResult
from mlffstore.analysis.validation.slopes import Slope, slopes
from mlffstore.analysis.validation.work import MAX_DISPLACEMENT

if TYPE_CHECKING:
    from mlffstore.analysis.validation.bonds import Stiffness
    from mlffstore.analysis.validation.policy import Policy, Rule
    from mlffstore.analysis.validation.work import Work
    from mlffstore.data.schema import Array

#: Samples whose energies may be wrong whatever their share: other checks name them.
_FEW = 3
#: Share of the energies that works may leave and are still said to explain them.
_UNEXPLAINED = 0.5
#: Share of the correlation that the slope and its error imply, below which some pairs do not follow the slope. The lowest of
#: clean sets was 0.83.
_OF_EXPECTED = 0.7
#: Normal components of the stress are in another order if energies deviate in it by less than this share of what they do.
_OTHER_ORDER = 0.5
#: What helps where there are too few pairs.
_MORE_PAIRS = "name roots on import (--root) or pass --teacher"


def pair_checks(
    work: Work, teacher: int, name: str, policy: Policy, force_max: Array, has_stress: bool, stiffness: Stiffness
) -> list[CheckResult]:
    """Return the checks `energy_units`, `pair_energies`, `stress_units` and `stress_shear` of one teacher.

    Parameters
    ----------
    work : Work
    teacher : int
        Index of the teacher.
    name : str
        Its name.
    policy : Policy
    force_max : ndarray, shape (S,)
        Largest force of each sample, eV/angstrom; NaN without forces.
    has_stress : bool
        Whether some sample has a stress.
    stiffness : Stiffness
        Stiffness of the bonds.
    """
    pairs = {check: Check(check, policy.checks[check], name, "pairs") for check in
             ("energy_units", "pair_energies", "stress_units", "stress_shear")}  # fmt: skip
    if not np.isfinite(force_max).any():
        return [check.nothing("no sample has forces") for check in pairs.values()]
    fitted = slopes(work, teacher)
    by_force, by_stress = fitted["force_work"], fitted["normal_work"]
    meaning: list[units.Units] = []
    if by_force.n >= policy.checks["energy_units"]["min_pairs"]:
        sure = has_stress and by_stress.n >= policy.checks["stress_units"]["min_pairs"] and _is_sure(by_stress)
        meaning = units.explain(
            by_force.value, float(np.nanmedian(force_max)), _ratio(stiffness), by_stress.value if sure else float("nan")
        )
    out = [_energy_units(pairs["energy_units"], by_force, meaning)]
    out.append(_pair_energies(pairs["pair_energies"], work, teacher, out[0].problem == "error"))
    if not has_stress:
        return out + [pairs[check].nothing("no sample has a stress") for check in ("stress_units", "stress_shear")]
    energy = 1.0
    if out[0].state == "fail" and meaning and meaning[0].stress_is_right:
        energy = units.ENERGIES[meaning[0].energy]
    out.append(_stress(pairs["stress_units"], by_stress, energy, meaning))
    if "fail" not in (out[-1].state, out[0].state):
        out[-1] = _order(pairs["stress_units"], work.select(work.teacher == teacher)) or out[-1]
    # In a wrong unit or of a wrong sign, all six components are off alike; their order is another question.
    common = by_stress.value if out[-1].state == "fail" and _is_sure(by_stress) else energy
    out.append(_stress(pairs["stress_shear"], fitted["shear_work"], common, meaning))
    return out


def _is_sure(found: Slope) -> bool:
    return bool(abs(found.value) > 3 * found.error and abs(found.correlation) > 0.5)


def _uncorrelated(found: Slope, correlation: float, rule: Rule) -> bool:
    """Return whether energies do not go along with a work though they should.

    A work that is small beside the others is lost in their errors: that is no fault if together they explain the energies,
    and if the correlation is what the error of the slope implies.
    """
    most = correlation + 1 / np.sqrt(found.n)
    certain = 3 * found.error <= rule["max_error"] or found.left > _UNEXPLAINED
    sloped = abs(found.value) > 3 * found.error
    return bool((certain and most < rule["min_correlation"]) or (sloped and most < _OF_EXPECTED * found.expected))


def _ratio(stiffness: Stiffness) -> float:
    return stiffness.ratio if stiffness.n and abs(stiffness.ratio) > 5 * stiffness.error else float("nan")


def _doubtful(found: Slope, rule: Rule) -> str:
    """Return why a slope says nothing, or an empty string."""
    if found.n < rule["min_pairs"]:
        return f"{found.n} pairs of samples up to 1 angstrom apart, {rule['min_pairs']:g} needed; {_MORE_PAIRS}"
    return ""


def _energy_units(check: Check, found: Slope, meaning: list[units.Units]) -> CheckResult:
    doubt = _doubtful(found, check.rule)
    if doubt:
        return check.not_measured(doubt, found.n)
    rule = check.rule
    text = f"energies differ by {found.value:.3g} +- {found.error:.1g} times the work of the forces"
    off = found.value + 3 * found.error < rule["min_slope"] or found.value - 3 * found.error > rule["max_slope"]
    uncorrelated = _uncorrelated(found, found.correlation, rule)
    if off or uncorrelated:
        guess = units.named(meaning) if meaning and _is_sure(found) else (
            "energies and forces do not belong to the same structures (an array that was "
            "shuffled, shifted or sorted, or energies of two calculations with another zero?)"
            if uncorrelated and abs(found.correlation) < 0.5
            else "a unit or a sign is wrong in energies, forces or positions"
        )  # fmt: skip
        return check.judged(
            False, text, found.n,
            f"expected 1, got {found.value:.4g} +- {found.error:.2g} for the change of the energy over the work of the "
            f"forces (rank correlation {found.correlation:.2f}); {guess}. Convert the labels and import them again",
        )  # fmt: skip
    if 3 * found.error > rule["max_error"]:
        return check.not_measured(f"{text} of {found.n} pairs, which is too uncertain; {_MORE_PAIRS}", found.n)
    return check.judged(True, text, found.n)


def _pair_energies(check: Check, work: Work, teacher: int, failed: bool) -> CheckResult:
    near = work.select((work.teacher == teacher) & (work.far <= MAX_DISPLACEMENT))
    n, rule = len(near.first), check.rule
    if n < rule["min_pairs"]:
        return check.not_measured(
            f"{n} pairs of samples up to {MAX_DISPLACEMENT} angstrom apart, {rule['min_pairs']:g} needed; {_MORE_PAIRS}",
            n,
        )
    if failed:  # what is wrong with all energies is said once
        return check.nothing("energies and forces do not belong together, see energy_units")
    samples = len(np.unique(np.concatenate([near.first, near.second])))
    bad = near.select(near.ratio > rule["max_ratio"])
    most = max(int(rule["max_fraction"] * samples), _FEW)
    wrong = _at_least(bad, most)
    text = f"{len(bad.first)} pairs differ in energy by more than their work explains"
    return check.judged(
        wrong <= most, text, n,
        f"expected energies of {samples} samples of which at most {most} do not fit, got that {text}, and that more than "
        f"{most} samples are to blame; are there energies of two calculations with another zero, or of other samples, among "
        "them? Compare the samples of energy_work",
    )  # fmt: skip


def _order(check: Check, work: Work) -> CheckResult | None:
    """Return a failure if energies follow the work of the stress with xx, yy and zz in another order far better."""
    strained = work.select(np.abs(work.normal_works).max(axis=(1, 2)) > 0)
    n = len(strained.first)
    if n < check.rule["min_pairs"]:
        return None
    left = strained.energy - strained.force_work - strained.shear_work
    orders = list(itertools.permutations(range(3)))
    works = [strained.normal_works[:, list(order), range(3)].sum(axis=1) for order in orders]
    off = np.array([np.median(np.abs(left - one)) for one in works])
    best = int(off.argmin())
    if off[best] > _OTHER_ORDER * off[0]:
        return None
    names = " ".join(("xx", "yy", "zz")[i] for i in orders[best])
    text = f"energies deviate by {off[0]:.2g} eV from the work of the stress, and by {off[best]:.2g} eV in the order {names}"
    return check.judged(
        False, text, n,
        f"expected the components in the order xx yy zz, got that {text} (medians of {n} pairs). Bring them in order and "
        "import the labels again",
    )  # fmt: skip


def _at_least(bad: Work, most: int) -> int:
    """Return about how many samples would have to go for no bad pair to be left, up to `most` + 1.

    The sample with the most bad pairs goes first.
    """
    samples, ends = np.unique(np.concatenate([bad.first, bad.second]), return_inverse=True)
    one, two = ends.reshape(2, -1)
    left = np.ones(len(one), bool)
    for n in range(most + 1):
        if not left.any():
            return n
        worst = np.bincount(np.concatenate([one[left], two[left]]), minlength=len(samples)).argmax()
        left &= (one != worst) & (two != worst)
    return most + 1


def _stress(check: Check, found: Slope, common: float, meaning: list[units.Units]) -> CheckResult:
    """Judge a slope over `common`, what is off in all energies or in the whole stress and was named already."""
    doubt = _doubtful(found, check.rule)
    if doubt:
        return check.not_measured(doubt.replace("1 angstrom apart", "1 angstrom apart, of strained cells"), found.n)
    rule, what = check.rule, "shear components" if check.name == "stress_shear" else "stress"
    value, error = found.value / common, abs(found.error / common)
    correlation = found.correlation * np.sign(common)
    beside = f", relative to {common:.3g}, which is off elsewhere" if common != 1 else ""
    text = f"energies differ by {value:.3g} +- {error:.1g} times the work of the {what}{beside}"
    off = value + 3 * error < rule["min_slope"] or value - 3 * error > rule["max_slope"]
    if off or _uncorrelated(found, correlation, rule):
        if check.name == "stress_shear":
            guess = "the six components may be in another order than xx yy zz yz xz xy"
        else:
            guess = units.named(meaning) if meaning else "the unit or the sign of the stress is wrong"
        return check.judged(
            False, text, found.n,
            f"expected 1, got {value:.4g} +- {error:.2g} for the change of the energy over the work of the {what} (rank "
            f"correlation {correlation:.2f}){beside}; {guess}. Convert the labels and import them again",
        )  # fmt: skip
    if 3 * error > rule["max_error"]:
        return check.not_measured(f"{text} of {found.n} pairs, which is too uncertain; {_MORE_PAIRS}", found.n)
    return check.judged(True, text, found.n)
