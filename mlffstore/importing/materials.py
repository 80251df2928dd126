"""Reads JSON of the Materials Project and its kin, one structure at a time: MPtrj, MatPES, entries of pymatgen.

Structures are pymatgen's documents. Energies are eV; stresses are VASP's, in kBar and positive where the crystal is
compressed, so that they change their sign. Of an energy that was corrected and one that was not, the latter counts: forces
and stresses are its derivatives. The other ones are named as left out, and ``keys={"energy": "corrected_total_energy"}``
takes that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import missing_dependency
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
        documents: Iterator[tuple[tuple[str, ...], Any]]
        first = file.peek(64).lstrip()[:1]  # type: ignore[attr-defined]
        if first == b"[":
            documents = (((f"entry {i}",), one) for i, one in enumerate(ijson.items(file, "item", use_float=True)))
        else:
            documents = _named(ijson.kvitems(file, "", use_float=True), path)
        for names, document in documents:
            where = names[-1]
            yield from _records(names, document)


def _named(pairs: Iterator[tuple[str, Any]], path: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the documents of an object: its members, or the object itself if it is an entry or a structure."""
    single: dict[str, Any] = {}
    for name, one in pairs:
        if name in _MEMBERS or not isinstance(one, (dict, list)) or single.keys() & _MEMBERS:
            single[name] = one
        else:
            yield (str(name),), one
    if {"structure", "sites"} & single.keys():
        yield (path.name,), single


def _records(names: tuple[str, ...], document: Any) -> Iterator[Record]:
    """Yield the structures of a document, which may hold several by name or in a list, such as all frames of a material."""
    if isinstance(document, list):
        for i, one in enumerate(document):
            yield from _records((*names, str(i)), one)
        return
    if not isinstance(document, dict):
        return
    # The class may be Structure, Molecule, Slab, TransformedStructure, ...: all of them have sites.
    if "structure" in document or isinstance(document.get("sites"), list):
        yield _record(names, document)
        return
    for name, one in document.items():
        yield from _records((*names, str(name)), one)


def _record(names: tuple[str, ...], document: Mapping[str, Any]) -> Record:
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
    if "magmoms" not in results and "magmom" in site_values:
        results["magmoms"] = site_values.pop("magmom")
    if "stress" in given:
        results["stress"] = _stress(given.pop("stress"), problems)
    if results:
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results = results
    group = next((str(given[name]) for name in _GROUPS if name in given), names[0] if len(names) > 1 else None)
    if isinstance(structure.get("charge"), (int, float)) and structure["charge"] and "charge" not in given:
        given["charge"] = structure["charge"]
    return Record(
        atoms, ", ".join(names), more={"entry": given, "sites": site_values}, problems=tuple(problems), group=group
    )


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
        if all(value is not None for value in column):
            values[name] = np.asarray(column)
    if lattice is None:  # a molecule
        return Atoms(symbols, positions=[site["xyz"] for site in sites]), values
    cell, pbc = np.asarray(lattice["matrix"], np.float64), lattice.get("pbc", True)
    if all("abc" in site for site in sites):
        positions = np.array([site["abc"] for site in sites], np.float64) @ cell
    else:
        positions = np.array([site["xyz"] for site in sites], np.float64)
    return Atoms(symbols, positions=positions, cell=cell, pbc=pbc), values


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
