"""Particles of 13 to some hundred atoms, of metals, alloys and compounds, in a periodic box of vacuum."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.chemistry import check_classes
from mlffstore_generators.options import check_options
from mlffstore_generators.prototypes import draw_compound, identity, too_close, wide_supercell
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_share, check_sizes
from mlffstore_generators.seeds.crystals import Crystals

if TYPE_CHECKING:
    from ase import Atoms

#: Metals that crystallise in fcc, of which such particles are made and known.
_METALS = ("Al", "Ni", "Cu", "Rh", "Pd", "Ag", "Ir", "Pt", "Au", "Pb", "Ca", "Sr")


@dataclass(frozen=True)
class Nanoparticles:
    """Icosahedra, decahedra and truncated octahedra of metals; spheres of compounds, which keep their composition.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Fewest and most atoms of a particle.
    vacuum : float, optional
        Between a particle and its image, angstrom. 0 makes it a molecule, periodic nowhere.
    alloyed : float, optional
        Fraction of the particles of metals in which some atoms are another metal.
    compounds : float, optional
        Fraction of particles of compounds; they share a root with the crystal that they are cut from.
    classes : mapping of str to float, optional
        Shares of the classes of compounds, as of the seeds ``crystals``.
    """

    min_atoms: int = 13
    max_atoms: int = 80
    vacuum: float = 12.0
    alloyed: float = 0.4
    compounds: float = 0.0
    classes: dict[str, float] | None = None

    def __post_init__(self) -> None:
        check_options("nanoparticles", self)
        check_sizes("nanoparticles", self.min_atoms, self.max_atoms)
        check_share("nanoparticles", "alloyed", self.alloyed)
        check_share("nanoparticles", "compounds", self.compounds)
        object.__setattr__(self, "classes", check_classes("nanoparticles", self.classes))
        if self.vacuum != 0 and not self.vacuum >= 6:
            raise DataError(f"nanoparticles: expected a vacuum of at least 6 angstrom, or 0, got {self.vacuum!r}")

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a particle."""
        if rng.random() < self.compounds:
            atoms, source, family = self._compound(rng)
        else:
            atoms, source = self._metal(rng)
            family = f"particle {atoms.get_chemical_formula()}"  # two of one shape are copies
        if not self.min_atoms <= len(atoms) <= self.max_atoms:
            raise NoSeedError("particle outside the limits")
        if self.vacuum:
            atoms.center(vacuum=self.vacuum / 2)
            atoms.pbc = True
        if len(atoms) > 1 and self.vacuum and too_close(atoms):
            raise NoSeedError("atoms too close")
        return Seed(atoms, f"nanoparticle:{source}", family=family)

    def _metal(self, rng: np.random.Generator) -> tuple[Atoms, str]:
        """Return a particle of one metal or two, and its shape."""
        from ase import Atoms
        from ase.cluster import Decahedron, Icosahedron, Octahedron
        from ase.data import atomic_numbers

        symbol = _METALS[int(rng.integers(len(_METALS)))]
        shape = int(rng.integers(3))
        if shape == 0:
            made = Icosahedron(symbol, int(rng.integers(2, 6)))
        elif shape == 1:
            made = Decahedron(symbol, int(rng.integers(1, 5)), int(rng.integers(1, 5)), int(rng.integers(0, 2)))
        else:
            length = int(rng.integers(2, 9))
            made = Octahedron(symbol, length, int(rng.integers(0, max(1, (length - 1) // 2 + 1))))
        numbers, source = made.numbers.copy(), ("icosahedron", "decahedron", "octahedron")[shape]
        if rng.random() < self.alloyed:
            other = _METALS[int(rng.integers(len(_METALS)))]
            numbers[rng.random(len(numbers)) < rng.uniform(0.1, 0.6)] = atomic_numbers[other]
        return Atoms(numbers, made.positions), source

    def _compound(self, rng: np.random.Generator) -> tuple[Atoms, str, str]:
        """Return a sphere cut from a compound with its composition, its source and its family."""
        from ase import Atoms

        bulk, source = draw_compound(rng, 24, self.classes)
        target = int(np.exp(rng.uniform(np.log(self.min_atoms), np.log(self.max_atoms))))
        radius = (3 * target * bulk.get_volume() / len(bulk) / (4 * np.pi)) ** (1 / 3)
        large = wide_supercell(bulk, 2 * radius + 6.0)
        centre = rng.random(3) @ bulk.cell.array + large.cell.array.sum(axis=0) / 2
        moves = np.array(list(itertools.product((-1, 0), repeat=3))) @ large.cell.array
        positions = (large.positions[None] + moves[:, None]).reshape(-1, 3) + large.cell.array.sum(axis=0) / 2
        numbers = np.tile(large.numbers, len(moves))
        order = np.argsort(np.linalg.norm(positions - centre, axis=1), kind="stable")
        units = target * np.gcd.reduce(np.unique(bulk.numbers, return_counts=True)[1]) // len(bulk)
        if units < 1:
            raise NoSeedError("particle outside the limits")
        kept: list[int] = []
        for z, n in zip(*np.unique(bulk.numbers, return_counts=True), strict=True):
            share = units * n // np.gcd.reduce(np.unique(bulk.numbers, return_counts=True)[1])
            kept += order[numbers[order] == z][:share].tolist()
        return Atoms(numbers[kept], positions[kept]), f"sphere:{source}", identity(bulk)

    def provenance(self) -> list[dict[str, str]]:
        """Return the source."""
        sources = [
            {"name": "ase-cluster", "what": "shapes and lattice constants in ASE", "licence": "LGPL-2.1-or-later"}
        ]
        return sources + (Crystals().provenance() if self.compounds else [])
