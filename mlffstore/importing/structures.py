"""`structures`: the structures of a file as an import reads them, without their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.errors import DataError
from mlffstore.importing.readers import choose_format, read_records
from mlffstore.importing.reading import Reading
from mlffstore.importing.state import StateReader
from mlffstore.importing.wording import Wording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ase import Atoms


def structures(path: Path) -> Iterator[Atoms]:
    """Yield the structures of a file that holds one or many.

    Parameters
    ----------
    path : Path
        A file that ASE reads, or one of ours but tables; see docs/reference/formats.md.

    Yields
    ------
    ase.Atoms
        Elements and geometry, with ``info["charge"]`` and ``info["multiplicity"]`` where the file gives them under any name
        in use.

    Raises
    ------
    DataError
        If the file cannot be parsed, a structure could not be imported, or its charge or multiplicity is no whole number.
    """
    from ase import Atoms

    wording = Wording()
    state = StateReader({}, "multiplicity", wording)
    for record in read_records(path, choose_format(path, None), add_hydrogens=False, elements=(), wording=wording):
        reading, fields = Reading(), list(record.fields())
        state.read(fields, {}, reading, {})
        problems = [*record.problems, *reading.problems]
        if problems or not len(record.atoms):
            text = "; ".join(problems) or "expected at least one atom, got none"
            raise DataError(f"{path}, {record.where}: {text}")
        known = {"charge": reading.charge, "multiplicity": reading.multiplicity}
        info = {name: value for name, value in known.items() if value is not None}
        atoms = record.atoms
        yield Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
