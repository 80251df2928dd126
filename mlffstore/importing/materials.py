"""Reads JSON of the Materials Project and its kin, one structure at a time: MPtrj, MatPES, entries of pymatgen.

Structures are pymatgen's documents. Energies are eV; stresses are VASP's, in kBar and positive where the crystal is
compressed, so that they change their sign. Of an energy that was corrected and one that was not, the latter counts: forces
and stresses are its derivatives. The other ones are named as left out, and ``keys={"energy": "corrected_total_energy"}``
takes that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError, missing_dependency
from mlffstore.importing.packed import REPAIR, open_binary, reading
from mlffstore.importing.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ase import Atoms

#: Names of the energy of the cell without corrections, in the order in which they count.
_ENERGIES = ("uncorrected_total_energy", "uncorrected_energy", "energy")
_FORCES = ("forces", "force")
_MAGMOMS = ("magmoms", "magmom")
#: What names the material whose structures descend from each other.
_GROUPS = ("mp_id", "material_id", "matpes_id")
#: Members by which an entry or a structure is known.
_MEMBERS = frozenset(("structure", "sites", "lattice", "@class"))
_KNOWN = ("structure", "@module", "@class", "@version")


def read_materials(path: Path) -> Iterator[Record]:
    """Yield the structures of a file in their order.

    Raises
    ------
    DataError
        If the file is no JSON, or a document holds no structure of pymatgen.
    MissingDependencyError
        If the package ijson is not installed.
    """
    try:
        import ijson
    except ImportError as error:
        raise missing_dependency("ijson", "json", "Reading JSON of the Materials Project") from error
    where = "the beginning"
    with (
        reading(
            "JSON with structures of pymatgen",
            lambda: f"{path}, near {where}",
            ijson.JSONError,
            AttributeError,
            IndexError,
            remedy=REPAIR,
        ),
        open_binary(path) as file,
    ):
        documents: Iterator[tuple[tuple[str, ...], Any, dict[str, Any]]]
        first = file.peek(64).lstrip()[:1]  # type: ignore[attr-defined]
        if first == b"[":
            documents = (((f"entry {i}",), one, {}) for i, one in enumerate(ijson.items(file, "item", use_float=True)))
        else:
            documents = _named(ijson.kvitems(file, "", use_float=True), path)
        for names, document, beside in documents:
            where = names[-1]
            if not _holds(document):
                raise DataError(
                    f"{path}, {where}: expected structures of pymatgen, got {str(document)[:60]!r}; take it out of the list"
                )
            yield from _records(names, document, beside)


def _named(pairs: Iterator[tuple[str, Any]], path: Path) -> Iterator[tuple[tuple[str, ...], Any, dict[str, Any]]]:
    """Yield the documents of an object: its members, or the object itself if it is an entry or a structure.

    With each comes what holds no structure and stands before it; with the last, what stands after it too.
    """
    beside: dict[str, Any] = {}
    last: tuple[tuple[str, ...], Any, dict[str, Any]] | None = None
    single: dict[str, Any] = {}
    about: dict[str, Any] = {}  # all members without a structure, which an entry has beside its own
    for name, one in pairs:
        if single or name in _MEMBERS:
            single[name] = one
        elif not _holds(one):
            beside[name] = about[name] = one
        else:
            if last is not None:
                yield last
            last, beside = ((str(name),), one, beside), {}
    if {"structure", "sites"} & single.keys():
        before = {} if last is None else {last[0][0]: last[1]}
        yield (path.name,), {**about, **before, **single}, {}
    elif last is not None:
        last[2].update(beside | single)
        yield last


def _holds(document: Any) -> bool:
    """Return whether there is a structure somewhere in a document."""
    if isinstance(document, list):
        return any(_holds(one) for one in document)
    return isinstance(document, dict) and (_is_entry(document) or any(_holds(one) for one in document.values()))


def _is_entry(document: Mapping[str, Any]) -> bool:
    """Return whether this is a structure or an entry with one: Structure, Molecule, Slab, ... all have sites."""
    return "structure" in document or isinstance(document.get("sites"), list)


def _records(names: tuple[str, ...], document: Any, beside: dict[str, Any]) -> Iterator[Record]:
    """Yield the structures of a document, which may hold several by name or in a list, such as all frames of a material.

    What stands beside them and holds no structure belongs to each of them.
    """
    if isinstance(document, list):
        for i, one in enumerate(document):
            if not _holds(one):
                raise DataError(f"{', '.join(names)}, {i}: expected a structure as in the rest of the list, got none")
            yield from _records((*names, str(i)), one, beside)
    elif _is_entry(document):
        yield _record(names, document, beside)
    else:
        holding = {name for name, one in document.items() if _holds(one)}
        beside = beside | {name: one for name, one in document.items() if name not in holding}
        for name, one in document.items():
            if name in holding:
                yield from _records((*names, str(name)), one, beside)


def _record(names: tuple[str, ...], document: Mapping[str, Any], beside: Mapping[str, Any]) -> Record:
    bare = "structure" not in document
    structure = document if bare else document["structure"]
    problems: list[str] = []
    atoms, site_values = _atoms(structure, problems)
    given = (
        {} if bare else {name: value for name, value in document.items() if name not in _KNOWN and value is not None}
    )
    results: dict[str, Any] = {}
    energy = next((name for name in _ENERGIES if isinstance(given.get(name), (int, float))), None)
    if energy is not None:
        results["energy"] = float(given.pop(energy))
    for label, others in (("forces", _FORCES), ("magmoms", _MAGMOMS)):
        name = next((name for name in others if name in given), None)
        if name is not None:
            results[label] = np.asarray(given.pop(name), np.float64)
    magmoms = site_values.get("magmom")
    if "magmoms" not in results and magmoms is not None and magmoms.dtype.kind in "iuf" and np.isfinite(magmoms).all():
        results["magmoms"] = site_values.pop("magmom")
    if "stress" in given:
        results["stress"] = _stress(given.pop("stress"), problems)
    if results:
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results = results
    group = next((str(given[name]) for name in _GROUPS if name in given), names[0] if len(names) > 1 else None)
    further = {name: value for name, value in (structure.get("properties") or {}).items() if value is not None}
    for name in ("charge", "spin_multiplicity"):
        # 0 is what pymatgen writes of a structure of which nobody said a charge.
        if structure.get(name) and name not in given:
            further[name] = structure[name]
    more = {"entry": given, "structure": further, "sites": site_values, "beside": dict(beside)}
    return Record(atoms, ", ".join(names), more=more, problems=tuple(problems), group=group)


def _stress(value: Any, problems: list[str]) -> Any:
    """Return VASP's stress, kBar and compression positive, as eV/angstrom^3 and tension positive."""
    from ase import units

    array = np.asarray(value, np.float64)
    if array.shape not in ((3, 3), (6,)):
        problems.append(f"stress: expected shape (3, 3) or (6,), got {array.shape}")
    return array * (-0.1 * units.GPa)


def _atoms(structure: Mapping[str, Any], problems: list[str]) -> tuple[Atoms, dict[str, Any]]:
    """Return the atoms of a document of pymatgen, and what it says of every site."""
    from ase import Atoms

    sites = structure["sites"]
    symbols = [_symbol(site, problems) for site in sites]
    lattice = structure.get("lattice")
    values: dict[str, Any] = {}
    for name in dict.fromkeys(name for site in sites for name in (site.get("properties") or {})):
        column = [(site.get("properties") or {}).get(name) for site in sites]
        values[name] = _site_values(column)
    if lattice is None:  # a molecule
        return Atoms(symbols, positions=[site["xyz"] for site in sites]), values
    cell, pbc = np.asarray(lattice["matrix"], np.float64), lattice.get("pbc", True)
    if all("abc" in site for site in sites):
        positions = np.array([site["abc"] for site in sites], np.float64) @ cell
    else:
        positions = np.array([site["xyz"] for site in sites], np.float64)
    return Atoms(symbols, positions=positions, cell=cell, pbc=pbc), values


def _site_values(column: list[Any]) -> Any:
    """Return what the sites have of a property; numbers that some site lacks are NaN there."""
    there = [value for value in column if value is not None]
    try:
        array = np.asarray(there)
    except ValueError:  # of different lengths
        array = np.zeros(0, object)
    if len(there) == len(column) and array.dtype.kind in "biufUS":
        return array
    if array.dtype.kind in "iuf" and len(array) == len(there):
        out = np.full((len(column), *array.shape[1:]), np.nan)
        out[[i for i, value in enumerate(column) if value is not None]] = array
        return out
    values = np.empty(len(column), object)
    values[:] = column
    return values


def _symbol(site: Mapping[str, Any], problems: list[str]) -> str:
    """Return the element of a site; a site that is occupied in part, or by no element, is a problem."""
    from ase.data import atomic_numbers

    species = site["species"]
    symbol = str(species[0]["element"])
    if len(species) != 1 or species[0].get("occu", 1) != 1:
        text = "sites are occupied in part; choose an ordered structure"
        if text not in problems:
            problems.append(text)
    if symbol not in atomic_numbers:
        problems.append(f"expected an element, got {symbol!r}")
        return "X"
    return symbol
