"""Which unit and sign explain what pairs of samples and bonds say of energies, forces and stresses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

#: Name of a unit -> the number that stands for 1 eV in it.
ENERGIES = {
    "eV": 1.0, "hartree": 1 / 27.2114, "rydberg": 1 / 13.6057, "kcal/mol": 23.0605, "kJ/mol": 96.4853, "meV": 1000.0,
}  # fmt: skip
#: Likewise for 1 eV/angstrom.
FORCES = {
    "eV/angstrom": 1.0, "eV/bohr": 0.529177, "hartree/bohr": 1 / 51.4221, "rydberg/bohr": 1 / 25.7110,
    "kcal/mol/angstrom": 23.0605, "kJ/mol/angstrom": 96.4853, "kJ/mol/nm": 964.853, "hartree/angstrom": 1 / 27.2114,
    "kcal/mol/bohr": 12.2031, "meV/angstrom": 1000.0,
}  # fmt: skip
#: Likewise for 1 eV/angstrom^3.
STRESSES = {
    "eV/angstrom^3": 1.0, "GPa": 160.2177, "kbar": 1602.177, "hartree/bohr^3": 1 / 183.631, "rydberg/bohr^3": 1 / 91.816,
    "meV/angstrom^3": 1000.0,
}  # fmt: skip
#: eV/angstrom: typical forces, by which units are told apart that the slope alone confuses.
_TYPICAL = (0.1, 12.0)
#: Units that are rare: they must explain the figures better than others do.
_RARE = ("hartree/angstrom", "kcal/mol/bohr")
#: Units that occur together.
_TOGETHER = {
    "hartree": ("hartree/bohr",), "rydberg": ("rydberg/bohr",), "kcal/mol": ("kcal/mol/angstrom", "kcal/mol/bohr"),
    "kJ/mol": ("kJ/mol/angstrom", "kJ/mol/nm"), "meV": ("meV/angstrom",),
}  # fmt: skip


#: Units within this cost of the likeliest are named too, but not more of them than this.
_AS_LIKELY, _MOST_NAMED = 0.5, 3
#: Largest |ln(figure/expected)| at which units explain a figure: the trapezoid rule was seen to be off by 0.3.
_WIDEST = 0.5


@dataclass(frozen=True, slots=True)
class Units:
    """Units and signs of the labels that explain the slopes.

    Attributes
    ----------
    energy, force, stress : str
        Names of `ENERGIES`, `FORCES` and `STRESSES`.
    force_sign, stress_sign : int
        -1 if the forces are gradients, or compression counts as positive.
    """

    energy: str = "eV"
    force: str = "eV/angstrom"
    force_sign: int = 1
    stress: str = "eV/angstrom^3"
    stress_sign: int = 1

    @property
    def n_wrong(self) -> int:
        """How many of the labels differ from what they should be; units that occur together count as one."""
        one = self.force in _TOGETHER.get(self.energy, ())
        wrong = (self.energy != "eV") + (self.force != "eV/angstrom") + (self.stress != "eV/angstrom^3") - one
        return wrong + (self.force_sign < 0) + (self.stress_sign < 0)

    @property
    def stress_is_right(self) -> bool:
        """Whether nothing is wrong with the stress itself."""
        return self.stress == "eV/angstrom^3" and self.stress_sign > 0

    def __str__(self) -> str:
        parts = [
            (self.energy != "eV", f"energies in {self.energy}"),
            (self.force != "eV/angstrom", f"forces in {self.force}"),
            (self.force_sign < 0, "forces of the opposite sign (gradients)"),
            (self.stress != "eV/angstrom^3", f"stress in {self.stress}"),
            (self.stress_sign < 0, "stress of the opposite sign (compression positive)"),
        ]
        return " and ".join(text for wrong, text in parts if wrong)


def named(units: list[Units]) -> str:
    """Return that labels look like having one of these units, as a part of a sentence."""
    return f"this looks like {', or '.join(map(str, units))}"


def explain(
    slope: float, size: float = float("nan"), stiffness: float = float("nan"), stress_slope: float = float("nan")
) -> list[Units]:
    """Return the units that explain the slopes of the energies against works, the likeliest first; none if nothing does.

    Parameters
    ----------
    slope : float
        Slope against the work of the forces: the number of the energy over that of the work; 1 is right.
    size : float, optional
        Median over samples of the largest force, as it is.
    stiffness : float, optional
        Stiffness of bonds over the typical one.
    stress_slope : float, optional
        Slope against the work of the stress. Of all figures NaN means that they were not measured.
    """
    stressed = np.isfinite(stress_slope) and stress_slope != 0
    stresses = itertools.product(STRESSES, (1, -1)) if stressed else [("eV/angstrom^3", 1)]
    found: list[tuple[float, int, Units]] = []
    for energy, force, (stress, stress_sign) in itertools.product(ENERGIES, FORCES, list(stresses)):
        units = Units(energy, force, 1 if slope > 0 else -1, stress, stress_sign)
        misses = [_miss(slope, ENERGIES[energy] / FORCES[force] * units.force_sign)]
        if stressed:
            misses.append(_miss(stress_slope, ENERGIES[energy] / STRESSES[stress] * stress_sign))
        if np.isfinite(stiffness) and stiffness:
            misses.append(_miss(stiffness, FORCES[force] * units.force_sign))
        if max(misses) > _WIDEST or not units.n_wrong:
            continue
        cost = sum(misses) / 0.2 + 0.7 * (units.n_wrong - 1) + 0.3 * (force in _RARE)
        if np.isfinite(size) and size > 0 and not np.isfinite(stiffness):
            true = size / FORCES[force]
            cost += max(np.log(_TYPICAL[0] / true), np.log(true / _TYPICAL[1]), 0.0)
        found.append((cost, len(found), units))
    found.sort()
    return [units for cost, _, units in found if cost < found[0][0] + _AS_LIKELY][:_MOST_NAMED]


def _miss(figure: float, expected: float) -> float:
    """Return |ln(figure/expected)|; infinity if their signs differ."""
    return float(abs(np.log(figure / expected))) if figure * expected > 0 else np.inf


def explain_forces(ratio: float) -> str:
    """Return the unit of the forces that explains a stiffness of bonds over the typical one, or an empty string."""
    name = min(
        (force for force in FORCES if force != "hartree/angstrom"),
        key=lambda force: abs(np.log(abs(ratio) / FORCES[force])) if ratio else np.inf,
    )
    wrong = [] if name == "eV/angstrom" else [f"forces in {name}"]
    if ratio < 0:
        wrong.append("forces of the opposite sign (gradients)")
    return " and ".join(wrong) if abs(np.log(abs(ratio) / FORCES[name])) < 0.5 else ""
