"""Metal clusters of 13 to some hundred atoms, pure or alloyed, in a periodic box of vacuum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlffstore.errors import DataError
from mlffstore_generators.prototypes import too_close
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_share, check_sizes

if TYPE_CHECKING:
    import numpy as np

#: Metals that crystallise in fcc, of which such particles are made and known.
_METALS = ("Al", "Ni", "Cu", "Rh", "Pd", "Ag", "Ir", "Pt", "Au", "Pb", "Ca", "Sr")


@dataclass(frozen=True)
class Nanoparticles:
    """Icosahedra, decahedra and truncated octahedra.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
    vacuum : float, optional
        Between a particle and its image, angstrom. 0 makes it a molecule, periodic nowhere.
    alloyed : float, optional
        Fraction of clusters in which some atoms are another metal.
    """

    min_atoms: int = 13
    max_atoms: int = 80
    vacuum: float = 12.0
    alloyed: float = 0.4

    def __post_init__(self) -> None:
        check_sizes("nanoparticles", self.min_atoms, self.max_atoms)
        check_share("nanoparticles", "alloyed", self.alloyed)
        if self.vacuum != 0 and not self.vacuum >= 6:
            raise DataError(f"nanoparticles: expected a vacuum of at least 6 angstrom, or 0, got {self.vacuum!r}")

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a particle."""
        from ase import Atoms
        from ase.cluster import Decahedron, Icosahedron, Octahedron
        from ase.data import atomic_numbers

        symbol = _METALS[int(rng.integers(len(_METALS)))]
        shape = int(rng.integers(3))
        if shape == 0:
            made = Icosahedron(symbol, int(rng.integers(2, 5)))
        elif shape == 1:
            made = Decahedron(symbol, int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(0, 2)))
        else:
            length = int(rng.integers(2, 7))
            made = Octahedron(symbol, length, int(rng.integers(0, max(1, (length - 1) // 2 + 1))))
        if not self.min_atoms <= len(made) <= self.max_atoms:
            raise NoSeedError("particle outside the limits")
        numbers, source = made.numbers.copy(), ("icosahedron", "decahedron", "octahedron")[shape]
        if rng.random() < self.alloyed:
            other = _METALS[int(rng.integers(len(_METALS)))]
            numbers[rng.random(len(numbers)) < rng.uniform(0.1, 0.6)] = atomic_numbers[other]
        atoms = Atoms(numbers, made.positions)
        if self.vacuum:
            atoms.center(vacuum=self.vacuum / 2)
            atoms.pbc = True
        if len(atoms) > 1 and self.vacuum and too_close(atoms):
            raise NoSeedError("atoms too close")
        return Seed(atoms, f"nanoparticle:{source}")

    def provenance(self) -> list[dict[str, str]]:
        """Return the source."""
        return [{"name": "ase-cluster", "what": "shapes and lattice constants in ASE", "licence": "LGPL-2.1-or-later"}]
