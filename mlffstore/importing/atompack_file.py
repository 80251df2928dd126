"""Reads the files of atompack (LeMaterial), with its own reader.

Energies are eV, forces eV/angstrom, stress eV/angstrom^3 (tension positive), lengths angstrom: atompack takes them from
ASE as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import missing_dependency
from mlffstore.importing.frames import Results
from mlffstore.importing.packed import reading
from mlffstore.importing.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RESULTS = ("energy", "forces", "stress", "charges")
#: Molecules that are decompressed at a time.
_BLOCK = 1024
_NO_PBC = (
    "samples have a cell and do not say along which vectors they are periodic; they are taken as periodic along all"
)


def read_atompack(path: Path) -> Iterator[Record]:
    """Yield the molecules of a file in order.

    Raises
    ------
    DataError
        If the file is damaged.
    MissingDependencyError
        If the package atompack-db is not installed.
    """
    for i, molecule in enumerate(molecules_of(path)):
        yield _record(molecule, f"molecule {i}")


def molecules_of(path: Path) -> Iterator[Any]:
    """Yield the molecules of a file as atompack has them.

    Raises
    ------
    DataError
        If the file is damaged.
    MissingDependencyError
        If the package atompack-db is not installed.
    """
    try:
        import atompack
    except ImportError as error:
        raise missing_dependency("atompack-db", "atompack", "Reading .atp files") from error
    low = 0
    with reading("a file of atompack", lambda: f"{path}, molecule {low}", Exception):
        database = atompack.Database.open(str(path))
        for low in range(0, len(database), _BLOCK):
            yield from database.get_molecules(list(range(low, min(low + _BLOCK, len(database)))))


def _record(molecule: Any, where: str) -> Record:
    from ase import Atoms

    cell, pbc = molecule.cell, molecule.pbc
    atoms = Atoms(
        numbers=molecule.atomic_numbers, positions=molecule.positions, cell=cell, pbc=pbc if pbc is not None else False
    )
    warnings: tuple[str, ...] = ()
    if pbc is None and cell is not None and np.any(cell):
        atoms.pbc, warnings = True, (_NO_PBC,)
    results = {name: getattr(molecule, name) for name in _RESULTS}
    results = {name: np.asarray(value, np.float64) for name, value in results.items() if value is not None}
    if results:
        atoms.calc = Results(results)
    named = {name: molecule.get_property(name) for name in molecule.property_keys()}
    if molecule.velocities is not None:
        named.setdefault("velocities", molecule.velocities)
    per_atom = set(molecule.property_keys(scope="atom"))
    more = {
        "properties": {name: value for name, value in named.items() if name not in per_atom and value is not None},
        "atom properties": {name: value for name, value in named.items() if name in per_atom},
    }
    return Record(atoms, where, more=more, warnings=warnings)
