"""`Record`: one structure as a reader hands it over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms


@dataclass(frozen=True, slots=True)
class Record:
    """One structure of a file.

    Attributes
    ----------
    atoms : ase.Atoms
        In the units of the file, with whatever labels the reader attached.
    where : str
        Its place in the file for messages, such as "frame 12" (counted from 0, as ASE does).
    labels : mapping of str to array, or None
        Labels that are in the store's units already (then `atoms` is too); None if they must still be taken from
        `atoms`.
    molecule : str or None
        Records of a file with the same name here are conformations of one molecule and share a root.
    hydrogens : int
        Hydrogens that the reader added.
    """

    atoms: Atoms
    where: str
    labels: Mapping[str, Any] | None = None
    molecule: str | None = None
    hydrogens: int = 0
