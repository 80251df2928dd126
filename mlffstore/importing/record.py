"""`Record`: one structure as a reader hands it over, and everything else that the file says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ase import Atoms

#: Arrays of `ase.Atoms` that are the structure itself.
_STRUCTURE = ("numbers", "positions")


@dataclass(slots=True)  # not frozen: one is made for each structure, and a frozen one takes twice the time
class Record:
    """One structure of a file.

    Attributes
    ----------
    atoms : ase.Atoms
        In the units of the file, with whatever labels the reader attached.
    where : str
        Its place in the file for messages, such as "frame 12" (counted from 0, as ASE does).
    more : mapping of str to mapping
        What the file holds beside `atoms`, by place ("data", "key_value_pairs" of a database) and name.
    stated_units : mapping of str to str
        Units that the file states for values, by their names.
    hydrogens : int
        Hydrogens that the reader added.
    converged : bool or None
        Whether the electronic structure behind the labels converged; None where the file does not say.
    problems : tuple of str
        Why the structure cannot be imported.
    warnings : tuple of str
        What a person should know about the file.
    group : str or None
        What the file says that the structure descends from together with others, such as the material of an entry.
    """

    atoms: Atoms
    where: str
    more: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stated_units: Mapping[str, str] = field(default_factory=dict)
    hydrogens: int = 0
    converged: bool | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    group: str | None = None

    def fields(self) -> Iterator[tuple[str, str, Any]]:
        """Yield place, name and value of everything that the file says of the structure beside elements and geometry.

        The places are, in the order in which a name is looked up, "results" (of ASE's calculator), "info", "arrays" and
        those of `more`.
        """
        atoms = self.atoms
        if atoms.calc is not None:
            for name, value in getattr(atoms.calc, "results", {}).items():
                if value is not None:
                    yield "results", name, value
        for name, value in atoms.info.items():
            yield "info", str(name), value
        for name, value in atoms.arrays.items():
            if name not in _STRUCTURE:
                yield "arrays", name, value
        for place, named in self.more.items():
            for name, value in named.items():
                yield place, name, value

    def find(self, name: str) -> tuple[str, Any] | None:
        """Return the place and the value of the first field with this name, or None."""
        return next(((place, value) for place, other, value in self.fields() if other == name), None)

    def remainder(self) -> Iterator[tuple[str, str, str]]:
        """Yield place, name and kind of what belongs to the structure and has no place in a store."""
        atoms = self.atoms
        if atoms.constraints:
            kinds = dict.fromkeys(type(constraint).__name__ for constraint in atoms.constraints)
            yield "atoms", "constraints", ", ".join(kinds)
        if not atoms.pbc.any() and atoms.cell.array.any():
            yield "atoms", "cell", "cell of a structure that is periodic nowhere"
