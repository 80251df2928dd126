"""Names under which other programs keep a label or state a unit: for messages and refusals, never for silent choices."""

from __future__ import annotations

import functools
import re

#: Stems of names that may hold a label. The order matters: a name with "virial" is one even where "stress" is in it too.
_STEMS = {"virial": "virial", "stress": "stress", "force": "forces", "energy": "energy"}
#: Words that make of such a name another quantity, a flag or a remark.
_OTHER = frozenset(
    re.findall(
        r"\w+",
        """
        per atomic atom atoms formation free kinetic std var variance sigma unc uncertainty error err mae rmse weight weights
        mask flag unit units key keys hull above cohesive binding interaction dispersion correction shift offset zero zpe gap
        fermi homo lumo band barrier relaxation adsorption reaction nuclear repulsion cutoff threshold tol convergence
        converged type name source method level hash id index max min mean norm rms field constant constants spring external
        ewald stresses energies enthalpy entropy temperature thermal vibrational solvation deviation factor conv sign
        corrected
        """,
    )
)
_UNIT = re.compile(r"(?:(?P<what>[A-Za-z]+)[ _-]?)?units?(?:[ _-](?P<what2>[A-Za-z]+))?", re.IGNORECASE)
#: What a unit is stated for -> column of `mlffstore.importing.labels`.
_COLUMNS = {
    "energy": "energy", "energies": "energy", "force": "forces", "forces": "forces", "stress": "stress", "virial": "virial",
    "virials": "virial", "position": "positions", "positions": "positions", "pos": "positions", "length": "positions",
    "distance": "positions", "coordinates": "positions", "coord": "positions", "cell": "cell", "lattice": "cell",
}  # fmt: skip
#: Spellings of units that `mlffstore.data.units` does not list, without case and blanks.
_SYNONYMS = {
    "electronvolt": "eV", "electronvolts": "eV", "hartrees": "hartree", "eh": "hartree", "ry": "rydberg",
    "kcalmol": "kcal/mol",
    "kcalmol-1": "kcal/mol", "kjmol": "kJ/mol", "ang": "angstrom", "angstroms": "angstrom", "å": "angstrom", "a0": "bohr",
    "nanometer": "nm", "nanometers": "nm", "bohrs": "bohr", "ev/ang": "eV/angstrom", "ev/å": "eV/angstrom",
    "hartree/a0": "hartree/bohr", "ev/ang^3": "eV/angstrom^3", "ev/a**3": "eV/angstrom^3", "ev/å^3": "eV/angstrom^3",
    "ev/angstrom**3": "eV/angstrom^3", "ev/ang**3": "eV/angstrom^3", "kcal/mol/ang": "kcal/mol/angstrom",
    "kbar": "kbar", "gpa": "GPa",
}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def label_of(name: str) -> str | None:
    """Return the label that a name looks like, as "REF_energy" looks like "energy", or None.

    Examples
    --------
    >>> label_of("REF_energy"), label_of("dft_forces"), label_of("virials"), label_of("energy_per_atom"), label_of("dipole")
    ('energy', 'forces', 'virial', None, None)
    """
    lowered = name.lower()
    words = set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
    if words & _OTHER:
        return None
    return next((label for stem, label in _STEMS.items() if stem in lowered), None)


@functools.lru_cache(maxsize=4096)
def unit_for(name: str) -> str | None:
    """Return the column whose unit a key states ("all" for the unit of everything), or None if it states none.

    Examples
    --------
    >>> unit_for("energy_unit"), unit_for("units"), unit_for("forces-units"), unit_for("community")
    ('energy', 'all', 'forces', None)
    """
    match = _UNIT.fullmatch(name)
    if match is None:
        return None
    what = match["what"] or match["what2"]
    if name.lower().endswith("cell"):  # "unit_cell" is a cell
        return None
    return "all" if what is None else _COLUMNS.get(what.lower())


def same_unit(stated: str, known: list[str]) -> str | None:
    """Return the spelling, among known units, of a unit as a file states it; None if it is not one of them."""
    plain = stated.strip().replace(" ", "")
    if plain in known:
        return plain
    lowered = {unit.lower(): unit for unit in known}
    plain = plain.lower()
    return lowered.get(plain) or lowered.get(_SYNONYMS.get(plain, "").lower())
