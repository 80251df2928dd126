"""Checks of a dataset as a whole: units and signs of the labels, lost hydrogens, moved atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.stress import StressCheck
from mlffstore.lazy.inputs import altered_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.analysis.validation.measure import Measured
    from mlffstore.analysis.validation.policy import Policy

#: Checks of the dataset as a whole.
DATASET_CHECKS = ("energy_units", "stress_units", "stress_stiffness", "force_units", "hydrogen_free", "atoms_moved")
#: Molecules with carbon below which the share without hydrogens says nothing.
_FEWEST = 10


@dataclass(frozen=True, slots=True)
class DatasetProblem:
    """Something wrong with the dataset as a whole.

    Attributes
    ----------
    check : str
    severity : {"error", "warning"}
    text : str
        What was expected, what was there, and what to do.
    """

    check: str
    severity: str
    text: str


#: Checks of single samples -> the variables without which nothing can fail them.
_NEEDS = {
    "electron_parity": ("charge", "multiplicity"), "energy_work": ("root",), "duplicate": ("content_hash",),
    "leakage": ("split", "root", "content_hash"), "near_leakage": ("split",), "molecule_leakage": ("split",),
    "altered": ("charge", "multiplicity", "content_hash"),
}  # fmt: skip


def unmeasured(measured: Measured, policy: Policy) -> list[DatasetProblem]:
    """Return the checks that nothing could fail, because the dataset lacks variables that every store has."""
    out = []
    for check, names in _NEEDS.items():
        missing = [name for name in names if name not in measured.variables]
        if missing and policy.checks[check].severity != "off":
            text = f"not measured: the dataset has no {', '.join(missing)}; keep it, or turn the check off"
            out.append(DatasetProblem(check, policy.checks[check].severity, text))
    return out


def judge_dataset(
    measured: Measured, policy: Policy, teachers: Mapping[str, Mapping[str, Any]]
) -> list[DatasetProblem]:
    """Return what is wrong with the dataset as a whole: units and signs, lost hydrogens."""
    s, rules, out = measured.samples, policy.checks, []

    def complain(check: str, text: str) -> None:
        if rules[check].severity != "off":
            out.append(DatasetProblem(check, rules[check].severity, text))

    for t, teacher in enumerate(teachers):
        slopes = measured.work.slopes(t)
        for what, check in (("force", "energy_units"), ("stress", "stress_units")):
            slope, error = slopes.get(what, (1.0, 0.0))
            # Strain and rattle of clean data gave 0.57 to 1.14: the trapezoid rule is not exact. Units are further off.
            if slope + 3 * error < rules[check]["min_slope"] or slope - 3 * error > rules[check]["max_slope"]:
                complain(check, _explain(teacher, what, slope, error))
        force = s["force_max"][:, t]
        if np.isfinite(force).any() and float(np.nanmedian(force)) > rules["force_units"]["max_median_eV_per_angstrom"]:
            complain(
                "force_units",
                f"{teacher}: expected forces of a few eV/angstrom, got a median largest force of {np.nanmedian(force):.3g}; "
                "are they in kcal/mol/angstrom (divide by 23.06) or hartree/bohr (multiply by 51.42)?",
            )
        verdict = _stiffness(measured, t, rules["stress_stiffness"].limits)
        if verdict:
            complain("stress_stiffness", f"{teacher}: {verdict}")
    organic = int(s["organic"].sum())
    bare = int(s["hydrogen_free"].sum())
    if organic >= _FEWEST and bare > rules["hydrogen_free"]["max_fraction"] * organic:
        complain(
            "hydrogen_free",
            f"expected molecules with their hydrogens, got {bare} of {organic} molecules with carbon that have none at all; "
            "were they lost in a conversion (SDF and SMILES leave hydrogens out)?",
        )
    moved = int(s["altered"].sum())
    if moved > rules["atoms_moved"]["max_fraction"] * len(s["altered"]):
        complain("atoms_moved", altered_message(moved, len(s["altered"])))
    return out


_KNOWN_FACTORS = (
    (23.0605, "kcal/mol taken for eV"), (96.485, "kJ/mol taken for eV"), (1 / 27.2114, "hartree taken for eV"),
    (-1.0, "the opposite sign"), (1 / 160.2177, "GPa taken for eV/angstrom^3"), (-1 / 160.2177, "GPa, of the opposite sign"),
    (1 / 1602.177, "kbar taken for eV/angstrom^3"), (-1 / 1602.177, "kbar, of the opposite sign"),
    (1 / 51.422, "hartree/bohr taken for eV/angstrom"),
    (1 / 23.0605, "kcal/mol/angstrom taken for eV/angstrom"), (0.0, "labels that do not belong to these structures"),
)  # fmt: skip


def _explain(teacher: str, what: str, slope: float, error: float) -> str:
    best, meaning = min(_KNOWN_FACTORS, key=lambda known: abs(known[0] - slope) / max(abs(known[0]), 0.05))
    guess = f"; this looks like {meaning}" if abs(best - slope) < max(0.3 * abs(best), 3 * error, 0.02) else ""
    return (
        f"{teacher}: expected energies of one root to differ by the work of the {what}{'s' if what == 'force' else ''}, got "
        f"{slope:.4g} +- {error:.2g} times that{guess}. Convert the labels and import them again"
    )


def _stiffness(measured: Measured, t: int, limits: Mapping[str, float]) -> str:
    """Return what the slope of the mean stress with the volume says of its sign and unit; see `StressCheck`."""
    s = measured.samples
    stress, volume = s["mean_stress"][:, t], s["volume"]
    with np.errstate(invalid="ignore"):
        good = np.flatnonzero(np.isfinite(stress) & (volume > 0))
    check = StressCheck((limits["min_eV_per_angstrom3"], limits["max_eV_per_angstrom3"]))
    check.gather([key.tobytes() for key in s["composition"][good]], volume[good], stress[good])
    finding = check.finding()
    expected = {
        "sign": "expected a stretched crystal to pull back (tension positive), got the reverse: ",
        "unit": "expected eV/angstrom^3, got a crystal too stiff (GPa or kbar taken for eV/angstrom^3?): ",
        "size": "expected eV/angstrom^3, got stresses of ",
    }
    if not finding.fault:
        return ""
    return f"{expected[finding.fault]}{finding.evidence}. Convert the stress and import it again"
