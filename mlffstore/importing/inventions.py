"""Where ASE's readers are known to make something up: what is refused, taken away or remarked on, format by format.

Examined with ASE 3.29: a LAMMPS dump gets the energy 0, LAMMPS types become hydrogen and helium, sites that are occupied
in part become whole atoms, space groups whose operations a file leaves out are not expanded, elements are guessed from
atom names and masses.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError
from mlffstore.importing.packed import open_binary, open_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlffstore.importing.record import Record
    from mlffstore.importing.wording import Wording

#: Formats whose elements ASE guesses from the names of atoms.
_GUESSED = frozenset(("gromacs", "gromos", "dlp4", "dlp-history", "proteindatabank"))
#: Names of a cell in a comment line that ASE does not take for one.
_CELL_NAMES = ("lattice", "cell", "unitcell", "unit_cell", "box", "latticevectors", "lattice_vectors")
#: Largest distance, atomic mass units, of a mass from that of the element it is taken for: natural abundances differ less.
_MASS_TOLERANCE = 0.3


@dataclass(frozen=True, slots=True)
class FormatFacts:
    """What was found out about a file before ASE reads it.

    Attributes
    ----------
    options : dict
        Keyword arguments of ASE's reader.
    more : dict of str to dict
        As `Record.more`, the same for all structures.
    warnings : tuple of str
    """

    options: dict[str, Any] = field(default_factory=dict)
    more: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def check_elements(path: Path, format: str, elements: Sequence[str], wording: Wording) -> None:
    """Raise `DataError` if elements of LAMMPS types were given for a file of another format."""
    if elements and not format.startswith("lammps"):
        raise DataError(
            f"{path}: expected a LAMMPS file with {wording.option('elements', tuple(elements))}, got {format}; leave "
            "it out"
        )


def examine(path: Path, format: str, elements: Sequence[str], wording: Wording) -> FormatFacts:
    """Look into a file of a format that ASE does not read faithfully.

    Parameters
    ----------
    path : Path
    format : str
        Name of `ase.io`.
    elements : sequence of str
        Element of each LAMMPS type, from type 1 on; empty if it was not given.
    wording : Wording

    Raises
    ------
    DataError
        If what the file lacks cannot be known, or the file says that ASE would read it wrong.
    """
    if format == "lammps-dump-text":
        return _lammps_dump(path, elements, wording)
    if format == "lammps-dump-binary":
        if not elements:
            raise DataError(_no_elements(path, "a binary LAMMPS dump", wording))
        return FormatFacts({"specorder": list(elements)})
    if format == "lammps-data":
        return _lammps_data(path, elements, wording)
    if format == "proteindatabank":
        return _pdb(path)
    if format == "res":
        _shelx(path)
    if format == "crystal":
        _fort34(path)
    if format in _GUESSED:
        return FormatFacts(warnings=("the elements were guessed from the names of the atoms; check them",))
    return FormatFacts()


def correct(record: Record, format: str) -> Record:
    """Return a record without what ASE made up, with problems for what cannot be mended."""
    atoms, problems = record.atoms, list(record.problems)
    if format.startswith("lammps-dump") and atoms.calc is not None:
        atoms.calc.results.pop("energy", None)  # a dump has none; ASE sets 0.0
    if format == "cif":
        problems += _cif_problems(atoms)
    if "occupancy" in atoms.arrays and atoms.arrays["occupancy"].dtype.kind == "f":
        occupancy = atoms.arrays["occupancy"]
        # Some programs write 0 for every atom where they know nothing of occupancies.
        if np.any(occupancy != 0) and np.any(occupancy < 1):
            problems.append(
                f"{int(np.sum(occupancy < 1))} atoms are occupied in part or have alternate locations, and would be "
                "read as whole atoms side by side; choose one location for each and write the file again"
            )
    problems += _cell_problems(atoms)
    return record if tuple(problems) == record.problems else dataclasses.replace(record, problems=tuple(problems))


def _no_elements(path: Path, what: str, wording: Wording) -> str:
    return (
        f"{path}: expected to learn the elements, got {what}, which numbers its types; name the element of each type "
        f"in order with {wording.option('elements', ('O', 'H'))}"
    )


def _lammps_dump(path: Path, elements: Sequence[str], wording: Wording) -> FormatFacts:
    more: dict[str, dict[str, Any]] = {}
    columns: list[str] = []
    warnings: list[str] = []
    with open_text(path) as file:
        n_atoms = 0
        for line in file:
            if line.startswith("ITEM: UNITS"):
                more = {"header": {"units": next(file, "").strip()}}
            elif line.startswith("ITEM: NUMBER OF ATOMS"):
                n_atoms = int(next(file, "0").split()[0])
            elif line.startswith("ITEM: ATOMS"):
                columns = line.split()[2:]
                break
        if columns and "element" not in columns:
            if "mass" in columns and not elements:
                at = columns.index("mass")
                _check_masses(path, {float(row.split()[at]) for row in itertools.islice(file, n_atoms)}, wording)
                warnings.append("the elements were guessed from the masses; check them")
            elif not elements:
                raise DataError(_no_elements(path, "a LAMMPS dump without the column 'element'", wording))
    options = {"specorder": list(elements)} if elements else {}
    return FormatFacts(options, more, tuple(warnings))


def _lammps_data(path: Path, elements: Sequence[str], wording: Wording) -> FormatFacts:
    from ase.data import atomic_numbers

    if elements:
        return FormatFacts({"Z_of_type": {i: atomic_numbers[symbol] for i, symbol in enumerate(elements, start=1)}})
    with open_text(path) as file:
        lines = [line.split("#")[0].split() for line in file]
    masses = _section(lines, "Masses")
    labels = _section(lines, "Atom", "Type", "Labels")
    if masses:
        _check_masses(path, {float(row[1]) for row in masses if len(row) > 1}, wording)
        return FormatFacts(warnings=("the elements were guessed from the masses; check them",))
    if labels and all(len(row) > 1 and row[1] in atomic_numbers for row in labels):
        return FormatFacts()
    raise DataError(_no_elements(path, "a LAMMPS data file without masses", wording))


def _section(lines: list[list[str]], *title: str) -> list[list[str]]:
    """Return the rows of a section of a LAMMPS data file."""
    if list(title) not in lines:
        return []
    rows = []
    for words in lines[lines.index(list(title)) + 1 :]:
        if words and not words[0].lstrip("-").isdigit():
            break
        if words:
            rows.append(words)
    return rows


def _check_masses(path: Path, masses: set[float], wording: Wording) -> None:
    from ase.data import atomic_masses

    for mass in sorted(masses):
        if np.abs(atomic_masses[1:] - mass).min() > _MASS_TOLERANCE:
            raise DataError(
                f"{path}: expected masses of elements, got {mass:g}, which is none (isotope, scaled hydrogen or "
                f"bead?); name the element of each type in order with {wording.option('elements', ('O', 'H'))}"
            )


def _pdb(path: Path) -> FormatFacts:
    warnings: list[str] = []
    with open_text(path) as file:
        for line in file:
            if line.startswith("CRYST1"):
                group = line[55:66].strip()
                if group.replace(" ", "") not in ("", "P1", "1"):
                    raise DataError(
                        f"{path}: expected all atoms of the cell (space group P 1), got {group!r}, whose symmetry is not "
                        "expanded; write the file with all atoms of the cell, or without CRYST1 for a molecule"
                    )
            elif line.startswith(("ATOM", "HETATM")) and not line[76:78].strip() and not warnings:
                warnings.append("the elements were guessed from the names of the atoms; check them")
    return FormatFacts(warnings=tuple(warnings))


def _shelx(path: Path) -> None:
    with open_text(path) as file:
        for line in file:
            words = line.upper().split()
            if words[:1] == ["SYMM"] or (words[:1] == ["LATT"] and words[1:2] not in (["-1"], [])):
                raise DataError(
                    f"{path}: expected all atoms of the cell (LATT -1, no SYMM), got {line.strip()!r}, whose symmetry "
                    "is not expanded; write the file in P 1"
                )


def _fort34(path: Path) -> None:
    with open_binary(path) as file:
        lines = [line.split() for line in itertools.islice(file, 5)]
    if len(lines) == 5 and lines[4] and int(lines[4][0]) > 1:
        raise DataError(
            f"{path}: expected all atoms of the cell, got {int(lines[4][0])} symmetry operations, which are not "
            "expanded; write the file without symmetry"
        )


def _cif_problems(atoms: Any) -> list[str]:
    problems = []
    sites = atoms.info.get("occupancy")
    if isinstance(sites, dict):
        partial = [site for site in sites.values() if len(site) > 1 or any(share < 1 for share in site.values())]
        if partial:
            problems.append(
                f"{len(partial)} sites are occupied in part ({partial[0]}), and would be read as whole atoms of one "
                "element; choose an ordered structure and write the file again"
            )
    group = atoms.info.get("spacegroup")
    if group is not None and getattr(group, "no", 1) > 1:
        from ase.spacegroup import Spacegroup

        given, full = (len(np.unique(g.get_op()[0], axis=0)) for g in (group, Spacegroup(group.no)))
        if given < full:
            problems.append(
                f"the file names the space group {group.symbol!r} and lists {given} of its {full} rotations, so atoms "
                "may be missing; list all operations, or name the space group P 1 if every atom is listed"
            )
    return problems


def _cell_problems(atoms: Any) -> list[str]:
    """Return problems for cells under other names."""
    return [
        f"{name!r} looks like the cell, but the structure was read without one; write it as "
        'Lattice="ax ay az bx by bz cx cy cz" in an extended XYZ file'
        for name in atoms.info
        if isinstance(name, str) and name.lower() in _CELL_NAMES and atoms.cell.rank == 0
    ]
