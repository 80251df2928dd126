"""Crystals: AFLOW prototypes with other elements in them, and elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlffstore_generators.chemistry import check_classes
from mlffstore_generators.options import check_options
from mlffstore_generators.prototypes import draw_compound, draw_element, identity, supercell, too_close
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_share, check_sizes

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Crystals:
    """Supercells of prototypes and of elements.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Sizes of the supercells.
    elemental : float, optional
        Fraction of crystals of one element.
    classes : mapping of str to float, optional
        Shares of the classes of compounds: oxide, chalcogenide, halide, nitride, hydride, carbide, intermetallic.
    elements : tuple of str, optional
        Allowed elements; all by default.
    """

    min_atoms: int = 10
    max_atoms: int = 60
    elemental: float = 0.06
    elements: tuple[str, ...] | None = None
    classes: dict[str, float] | None = None

    def __post_init__(self) -> None:
        check_options("crystals", self)
        check_sizes("crystals", self.min_atoms, self.max_atoms)
        check_share("crystals", "elemental", self.elemental)
        object.__setattr__(self, "classes", check_classes("crystals", self.classes))

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a supercell."""
        if rng.random() < self.elemental:
            atoms, source = draw_element(rng)
        else:
            atoms, source = draw_compound(rng, self.max_atoms, self.classes)
        if self.elements is not None and not set(atoms.get_chemical_symbols()) <= set(self.elements):
            raise NoSeedError("element that is not allowed")
        atoms = supercell(atoms, self.min_atoms)
        if len(atoms) > self.max_atoms:
            raise NoSeedError("supercell larger than max_atoms")
        if too_close(atoms):
            raise NoSeedError("atoms too close")
        return Seed(atoms, source, family=identity(atoms))

    def provenance(self) -> list[dict[str, str]]:
        """Return the sources."""
        return [
            {
                "name": "aflow",
                "what": "AFLOW prototypes in pymatgen, elements substituted at equal oxidation state",
                "licence": "MIT (pymatgen); cite doi:10.1016/j.commatsci.2017.01.017",
            },
            {"name": "ase-bulk", "what": "reference states of the elements in ASE", "licence": "LGPL-2.1-or-later"},
        ]
