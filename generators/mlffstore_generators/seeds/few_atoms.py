"""Isolated atoms, dimers, and small cells far from their volume: the ends of the energy surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlffstore.data.limits import MIN_DISTANCE
from mlffstore.errors import DataError
from mlffstore_generators.options import check_options
from mlffstore_generators.prototypes import draw_element, identity
from mlffstore_generators.seeds.base import NoSeedError, Seed

#: Of molecules: those that GFN2-xTB and ANI know and that occur in the other seeds.
_ELEMENTS = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I")


@dataclass(frozen=True)
class FewAtoms:
    """One or two atoms in vacuum, or a primitive cell of an element.

    Parameters
    ----------
    kinds : tuple of {"atom", "dimer", "cell"}, optional
        What is drawn, all equally often.
    distance : tuple of float, optional
        Range of a dimer's distance, in sums of the covalent radii.
    """

    kinds: tuple[str, ...] = ("atom", "dimer", "cell")
    distance: tuple[float, float] = (0.75, 3.0)

    def __post_init__(self) -> None:
        check_options("few-atoms", self)
        if not self.kinds or set(self.kinds) - {"atom", "dimer", "cell"}:
            raise DataError(f"few-atoms: expected kinds of atom, dimer, cell, got {self.kinds}")
        if len(self.distance) != 2 or not 0 < self.distance[0] <= self.distance[1]:
            raise DataError(f"few-atoms: expected two rising positive distances, got {self.distance}")

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a structure."""
        from ase import Atoms
        from ase.data import atomic_numbers, covalent_radii, ground_state_magnetic_moments

        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        if kind == "cell":
            atoms, source = draw_element(rng)
            return Seed(atoms, f"cell:{source}", family=identity(atoms))
        names = [_ELEMENTS[k] for k in rng.integers(len(_ELEMENTS), size=1 if kind == "atom" else 2)]
        electrons = sum(atomic_numbers[name] for name in names)
        positions = np.zeros((len(names), 3))
        if kind == "dimer":
            low, high = self.distance
            radii = sum(covalent_radii[atomic_numbers[name]] for name in names)
            positions[1, 0] = radii * np.exp(rng.uniform(np.log(low), np.log(high)))
            if positions[1, 0] < MIN_DISTANCE:
                raise NoSeedError(f"closer than {MIN_DISTANCE} angstrom")
        # Hund's rule decides the spin of an atom; bonds pair the electrons of most dimers.
        spin = round(ground_state_magnetic_moments[electrons]) if kind == "atom" else electrons % 2
        atoms = Atoms(names, positions, info={"charge": 0, "multiplicity": 1 + spin})
        return Seed(atoms, kind, family=f"{kind} {' '.join(sorted(names))}")

    def provenance(self) -> list[dict[str, str]]:
        """Return the source."""
        return [{"name": "ase-bulk", "what": "reference states of the elements in ASE", "licence": "LGPL-2.1-or-later"}]
