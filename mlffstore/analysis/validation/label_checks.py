"""Checks of the labels of one teacher over all samples: sizes, sums, zeros, energies per atom or of other samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation import units
from mlffstore.analysis.validation.bonds import FACTOR
from mlffstore.analysis.validation.check_result import Check, CheckResult
from mlffstore.analysis.validation.sample_checks import references
from mlffstore.data.stress import StressCheck
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from mlffstore.analysis.validation.bonds import Stiffness
    from mlffstore.analysis.validation.measure import Measured
    from mlffstore.analysis.validation.policy import Policy
    from mlffstore.data.schema import Array

#: Angstrom: bonds of one type whose lengths vary less than this are at rest, and say nothing of their stiffness.
_AT_REST = 0.004
#: eV/angstrom: crystals with larger forces (rms over atoms) are not symmetric.
_DISORDERED = 0.2
#: Samples below which a share or a fit says nothing.
_FEWEST = 10


def label_checks(
    measured: Measured, teacher: int, name: str, policy: Policy, stiffness: Stiffness, turns: bool
) -> list[CheckResult]:
    """Return the checks of the labels of one teacher that need no pairs of samples.

    Parameters
    ----------
    measured : Measured
    teacher : int
        Index of the teacher.
    name : str
        Its name.
    policy : Policy
    stiffness : Stiffness
        Stiffness of the bonds of molecules.
    turns : bool
        Whether the forces of the teacher are a gradient and turn with the structure, so that they have no torque.
    """

    def check(of: str, unit: str = "samples") -> Check:
        return Check(of, policy.checks[of], name, unit)

    s = measured.samples
    energy = s["energy"][:, teacher]
    return [
        _bond_stiffness(check("bond_stiffness", "bonds"), stiffness),
        _force_units(check("force_units"), s["force_max"][:, teacher]),
        _force_sums(check("force_sums"), s, teacher, turns),
        _zero_forces(check("zero_forces"), s, teacher),
        _zero_stress(check("zero_stress"), s, teacher),
        _equal_structures(check("equal_structures", "structures"), s, energy),
        _stress_stiffness(check("stress_stiffness"), s, teacher),
        _energy_per_atom(check("energy_per_atom"), measured, energy),
        _energy_alignment(check("energy_alignment"), measured, energy),
        _energy_resolution(check("energy_resolution"), energy),
    ]


def _bond_stiffness(check: Check, found: Stiffness) -> CheckResult:
    rule = check.rule
    if found.n < rule["min_bonds"]:
        if not found.n:
            return check.nothing("there are no molecules of three atoms or more with forces")
        text = f"{found.n} bonds of hydrogens and other end atoms of molecules, {rule['min_bonds']:g} needed; pass --teacher"
        return check.not_measured(text, found.n)
    text = (
        f"bonds are {found.ratio:.3g} +- {found.error:.1g} times as stiff as usual ({found.constant:.3g} eV/angstrom^2)"
    )
    low, high = found.ratio - 3 * found.error, found.ratio + 3 * found.error
    at_rest = found.spread < _AT_REST
    sure = not at_rest and 3 * found.error < 0.5 * abs(found.ratio)
    factor = 1.0 if found.known else FACTOR
    if sure and (high < rule["min_ratio"] / factor or low > rule["max_ratio"] * factor):
        guess = units.explain_forces(found.ratio)
        return check.judged(
            False, text, found.n,
            f"expected forces in eV/angstrom, got {text}"
            f"{f'; this looks like {guess}' if guess else ''}. Convert the labels and import them again",
        )  # fmt: skip
    if at_rest or 3 * found.error > rule["max_error"]:
        if at_rest:
            return check.not_measured(
                f"the {found.n} bonds vary by {found.spread:.2g} angstrom: molecules at rest", found.n
            )
        if high < rule["min_ratio"]:  # tiny forces in a unit that is too large, or forces of other structures
            return check.judged(
                False, text, found.n, f"expected bonds that pull back, got {text}: forces of other structures?"
            )
        return check.not_measured(f"{text}, which is too uncertain", found.n)
    if not found.known:
        return check.not_measured(
            f"{text}; how stiff these bonds usually are is known within a factor of {factor:g} only", found.n
        )
    return check.judged(True, text, found.n)


def _force_units(check: Check, force_max: Array) -> CheckResult:
    n = int(np.isfinite(force_max).sum())
    if not n:
        return check.nothing("no sample has forces")
    median = float(np.nanmedian(force_max))
    text = f"the median over samples of the largest force is {median:.3g} eV/angstrom"
    return check.judged(
        median <= check.rule["max_median_eV_per_angstrom"], text, n,
        f"expected forces of a few eV/angstrom, got a median largest force of {median:.3g}; are they in kcal/mol/angstrom "
        "(divide by 23.06) or meV/angstrom (divide by 1,000)?",
    )  # fmt: skip


def _force_sums(check: Check, s: dict[str, Array], t: int, turns: bool) -> CheckResult:
    rms, n_atoms = s["force_rms"][:, t], s["n_atoms"]
    moving = np.isfinite(rms) & (rms > check.rule["min_rms_eV_per_angstrom"]) & (n_atoms > 2)
    n = int(moving.sum())
    if n < _FEWEST:
        return check.not_measured(f"{n} samples of three atoms or more with forces, {_FEWEST} needed", n)
    net = s["net_force"][moving, t] * np.sqrt(n_atoms[moving]) / rms[moving]
    torque = s["torque_share"][moving, t]
    share = float(np.median(net))
    parts, worst = [f"net forces are {share:.2g}"], share
    if turns and np.isfinite(torque).sum() >= _FEWEST:
        twist = float(np.nanmedian(torque))
        parts.append(f"torques of molecules are {twist:.2g}")
        worst = max(worst, twist)
    text = f"{' and '.join(parts)} of those of random forces (median)"
    return check.judged(
        worst <= check.rule["max_share"], text, n,
        f"expected forces that add up to nothing, got {text}; were the forces shuffled, or are they of other structures? "
        "Import them again",
    )  # fmt: skip


def _zero_forces(check: Check, s: dict[str, Array], t: int) -> CheckResult:
    share, rule = s["zero_forces"][:, t], check.rule
    counted = np.isfinite(share) & (s["n_atoms"] > 1)
    n = int(counted.sum())
    if not n:
        return check.nothing("no sample of two atoms or more has forces")
    share, molecule = share[counted], s["molecule"][counted]
    all_zero = share == 1
    # On symmetric sites of crystals single forces vanish too; where forces are large, sites are not symmetric.
    disordered = molecule | (s["force_rms"][:, t][counted] > _DISORDERED)
    some = float(((share > 0.02) & ~all_zero & disordered).mean())
    # By symmetry the forces of a perfect crystal vanish, and those of a molecule do not. Two atoms may be too far apart.
    molecule = molecule & (s["n_atoms"][counted] > 2)
    none_of_molecules = float(all_zero[molecule].mean()) if molecule.sum() >= _FEWEST else 0.0
    none = float(all_zero.mean())
    text = f"{none:.1%} of the samples have forces that are all exactly 0, {some:.1%} such forces on some atoms"
    bad = [
        none_of_molecules > rule["max_fraction"] and f"{none_of_molecules:.1%} of the molecules have no force at all",
        none > rule["max_fraction_of_all"] and f"{none:.1%} of the samples have no force at all",
        some > rule["max_fraction_in_part"] and f"{some:.1%} of the samples have forces of exactly 0 on some of their atoms "
        "(constrained atoms, whose forces were set to 0?)",
    ]  # fmt: skip
    found = [one for one in bad if one]
    return check.judged(
        not found, text, n,
        f"expected forces on all atoms, got zeros: {', '.join(map(str, found))}. A force that is not known must be missing, "
        "not 0: take these samples or their forces out",
    )  # fmt: skip


def _zero_stress(check: Check, s: dict[str, Array], t: int) -> CheckResult:
    counted = np.isfinite(s["stress_max"][:, t]) & (s["n_atoms"] > 1)
    n = int(counted.sum())
    if not n:
        return check.nothing("no sample of two atoms or more has a stress")
    share = float((s["stress_max"][counted, t] == 0).mean())
    text = f"{share:.1%} of the samples have a stress of exactly 0"
    return check.judged(
        share <= check.rule["max_fraction"], text, n,
        f"expected stresses, got zeros: {text}. A stress that is not known must be missing, not 0: take it out",
    )  # fmt: skip


def _equal_structures(check: Check, s: dict[str, Array], energy: Array) -> CheckResult:
    """Compare the energies of samples that are one structure, atom for atom."""
    good = np.flatnonzero(np.isfinite(energy))
    if "content_hash" not in s or not len(good):
        return check.nothing("no structure is there twice")
    _, group, count = np.unique(s["content_hash"][good], return_inverse=True, return_counts=True)
    per_atom = energy[good] / s["n_atoms"][good]
    low, high = np.full(len(count), np.inf), np.full(len(count), -np.inf)
    np.minimum.at(low, group, per_atom)
    np.maximum.at(high, group, per_atom)
    several = count > 1
    n = int(several.sum())
    if not n:
        return check.nothing("no structure is there twice")
    apart = (high - low)[several]
    wrong = float((apart > check.rule["max_eV_per_atom"]).mean())
    text = (
        f"energies of {counted(n, 'structure')} that are there more than once differ by up to {apart.max():.2g} eV per "
        f"atom, in {wrong:.1%} of them by more than {check.rule['max_eV_per_atom']:g}"
    )
    return check.judged(
        wrong <= check.rule["max_fraction"], text, n,
        f"expected one energy of one structure, got several: {text}. Were labels of two methods mixed, or moved? Import "
        "them again, each under a teacher of its own",
    )  # fmt: skip


def _stress_stiffness(check: Check, s: dict[str, Array], t: int) -> CheckResult:
    stress, volume = s["mean_stress"][:, t], s["volume"]
    with np.errstate(invalid="ignore"):
        good = np.flatnonzero(np.isfinite(stress) & (volume > 0))
    if not len(good):
        return check.nothing("no crystal has a stress")
    limits = check.rule.limits
    found = StressCheck((limits["min_eV_per_angstrom3"], limits["max_eV_per_angstrom3"]))
    found.gather([key.tobytes() for key in s["composition"][good]], (volume / s["n_atoms"])[good], stress[good])
    finding = found.finding()
    expected = {
        "sign": "expected a stretched crystal to pull back (tension positive), got the reverse: ",
        "unit": "expected eV/angstrom^3, got a crystal too stiff (GPa or kbar taken for eV/angstrom^3?): ",
        "size": "expected eV/angstrom^3, got stresses of ",
    }
    if finding.fault == "doubt":
        return check.not_measured(
            f"{finding.evidence}; the stresses differ too much otherwise to tell: add strained cells, or pass --teacher",
            len(good),
        )
    if finding.fault:
        text = f"{expected[finding.fault]}{finding.evidence}. Convert the stress and import it again"
        return check.judged(False, text, len(good))
    if not finding.evidence:
        return check.not_measured(
            "no composition has five crystals whose volumes differ by 1 %; add strained cells or pass --teacher",
            len(good),
        )
    return check.judged(True, finding.evidence, len(good))


def _fit(measured: Measured, energy: Array, *, per_atom: bool) -> float:
    """Return the spread of the energies that energies of the elements leave, over the spread without them.

    Of total energies, or of the same numbers if they were energies per atom already.
    """
    n_atoms = measured.samples["n_atoms"]
    total = energy * n_atoms if per_atom else energy
    residual = references(measured, total)[1] * (1 if per_atom else n_atoms)
    with np.errstate(over="ignore", invalid="ignore"):  # of energies beyond 1e154
        before = np.nanstd(energy)
        return float(np.sqrt(np.nanmean(residual**2)) / before) if before > 0 else float("nan")


def _energy_per_atom(check: Check, measured: Measured, energy: Array) -> CheckResult:
    good = np.isfinite(energy)
    n, n_atoms = int(good.sum()), measured.samples["n_atoms"]
    if not n:
        return check.nothing("no sample has an energy")
    if n < _FEWEST or np.quantile(n_atoms[good], 0.9) < 1.3 * np.quantile(n_atoms[good], 0.1):
        return check.not_measured("the samples have about the same number of atoms; add others, or pass --teacher", n)
    total, each = _fit(measured, energy, per_atom=False), _fit(measured, energy, per_atom=True)
    text = f"energies of the elements leave {total:.2g} of the spread, and {each:.2g} if these were energies per atom"
    return check.judged(
        not each < min(check.rule["max_share"] * total, 0.5), text, n,
        f"expected total energies, got numbers that do not grow with the number of atoms: {text}. Multiply them by the "
        "number of atoms and import them again",
    )  # fmt: skip


def _energy_alignment(check: Check, measured: Measured, energy: Array) -> CheckResult:
    good = np.flatnonzero(np.isfinite(energy))
    if not len(good):
        return check.nothing("no sample has an energy")
    kinds = len(np.unique(measured.samples["composition"][good]))
    if len(good) < 3 * _FEWEST or kinds < 5:
        there = f"{counted(len(good), 'sample')} of {counted(kinds, 'composition')}"
        text = f"{there}, {3 * _FEWEST} of 5 needed; pass --teacher"
        return check.not_measured(text, len(good))
    here = _fit(measured, energy, per_atom=False)
    elsewhere = {}
    for by in (-1, 1):
        moved = energy.copy()
        moved[good] = np.roll(energy[good], by)
        elsewhere[by] = _fit(measured, moved, per_atom=False)
    best = min(elsewhere, key=lambda by: elsewhere[by])
    text = (
        f"compositions leave {here:.2g} of the spread of the energies, and {elsewhere[best]:.2g} if moved by one sample"
    )
    return check.judged(
        not elsewhere[best] < check.rule["max_share"] * here, text, len(good),
        f"expected the energy of each sample, got that of the {'next' if best == 1 else 'previous'} one: {text}. Read the "
        "labels again",
    )  # fmt: skip


def _energy_resolution(check: Check, energy: Array) -> CheckResult:
    energy = energy[np.isfinite(energy)]
    if not len(energy):
        return check.nothing("no sample has an energy")
    if len(energy) < _FEWEST:
        return check.not_measured(f"{len(energy)} energies, {_FEWEST} needed", len(energy))
    resolution, how = 0.0, "energies are double precision numbers"
    with np.errstate(over="ignore"):
        single = energy.astype(np.float32)
    if (single == energy).all():
        resolution = float(np.median(np.spacing(np.abs(single))))
        how = "energies are single precision numbers"
    for step in (1.0, 0.1, 0.01, 0.001, 0.0001):
        if np.allclose(np.round(energy / step) * step, energy, rtol=1e-14, atol=1e-9 + 1.1 * resolution):
            resolution, how = max(step, resolution), "energies are rounded numbers"
            break
    text = f"{how}, with a resolution of {resolution:.2g} eV" if resolution else how
    return check.judged(
        resolution <= check.rule["max_eV"], text, len(energy),
        f"expected energies to {check.rule['max_eV']:g} eV, got that {text}. Read them again from the calculations: total "
        "energies need double precision",
    )  # fmt: skip
