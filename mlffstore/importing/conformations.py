"""`Conformations`: structures of one molecule as a reader hands them over, stacked; cut and gathered into blocks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mlffstore.data.schema import Array
    from mlffstore.importing.account import Use


@dataclass(frozen=True, slots=True)
class Conformations:
    """C conformations of one molecule of N atoms.

    Attributes
    ----------
    name : str
        The molecule in the file. Its conformations share a root.
    numbers : ndarray, shape (N,), int64
        Atomic numbers.
    positions : ndarray, shape (C, N, 3), float64
        Angstrom.
    labels : mapping of str to ndarray
        "energy", shape (C,), eV, and "forces", shape (C, N, 3), eV/angstrom, float64; those that the file holds. NaN
        where a conformation has none.
    charge, multiplicity : int or None
        None where the file gives none.
    columns : mapping of str to ndarray, shape (C, ...)
        Numbers that were asked for as user columns.
    label_uses : mapping of str to (str, str, str, str, str)
        Label to what became of its key, for the conformations that have it.
    uses : tuple of (str, str, str, str, str)
        What became of the other keys of the molecule.
    problems : tuple of str
        Why none of the conformations can be imported.
    first : int
        Number of the first conformation within the molecule.
    """

    name: str
    numbers: Array
    positions: Array
    labels: Mapping[str, Array] = field(default_factory=dict)
    charge: int | None = None
    multiplicity: int | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)
    label_uses: Mapping[str, Use] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()
    problems: tuple[str, ...] = ()
    first: int = 0

    def __len__(self) -> int:
        return len(self.positions)

    def part(self, start: int, stop: int) -> Conformations:
        """Return the conformations from `start` up to `stop`, counted within these."""
        if (start, stop) == (0, len(self)):
            return self
        return dataclasses.replace(
            self,
            positions=self.positions[start:stop],
            labels={name: array[start:stop] for name, array in self.labels.items()},
            columns={name: array[start:stop] for name, array in self.columns.items()},
            first=self.first + start,
        )

    def places(self) -> list[str]:
        """Return the place of each conformation in the file, for messages."""
        return [f"molecule {self.name!r}, conformation {i}" for i in range(self.first, self.first + len(self))]


def in_blocks(molecules: Iterable[Conformations], size: int) -> Iterator[list[Conformations]]:
    """Yield lists with `size` conformations in all, the last one with fewer; a molecule may be cut."""
    block: list[Conformations] = []
    room = size
    for molecule in molecules:
        start = 0
        while start < len(molecule):
            stop = min(len(molecule), start + room)
            block.append(molecule.part(start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield block
                block, room = [], size
    if block:
        yield block
