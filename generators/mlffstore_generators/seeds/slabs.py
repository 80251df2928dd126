"""Surfaces: slabs of elements and of prototypes, clean or with small molecules on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.prototypes import draw_compound, draw_element, plain, too_close
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_share, check_sizes, rotation

if TYPE_CHECKING:
    from ase import Atoms

#: Low-index surfaces that are cut.
_PLANES = ((1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 0))
#: Adsorbates, by their names in ASE's g2 collection; closed shells.
_ADSORBATES = ("CO", "H2O", "NH3", "CH4", "CO2", "N2", "H2", "CH3OH", "H2CO", "HCN", "C2H4", "C2H2", "SO2", "HCl")


@dataclass(frozen=True)
class Slabs:
    """Periodic in three directions, with vacuum between the slab and its image.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Adsorbate included.
    vacuum : float, optional
        Between the top of a slab and the bottom of its image, angstrom.
    adsorbed : float, optional
        Fraction of slabs with a molecule 1.6 to 2.8 angstrom above a random place of the surface.
    elemental : float, optional
        Fraction of slabs of one element.
    """

    min_atoms: int = 10
    max_atoms: int = 80
    vacuum: float = 12.0
    adsorbed: float = 0.5
    elemental: float = 0.6

    def __post_init__(self) -> None:
        check_sizes("slabs", self.min_atoms, self.max_atoms)
        check_share("slabs", "adsorbed", self.adsorbed)
        check_share("slabs", "elemental", self.elemental)
        if not self.vacuum >= 6:
            raise DataError(f"slabs: expected a vacuum of at least 6 angstrom, got {self.vacuum!r}")

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a slab."""
        from ase.build import surface

        bulk, source = draw_element(rng) if rng.random() < self.elemental else draw_compound(rng, 12)
        plane = _PLANES[int(rng.integers(len(_PLANES)))]
        layers = int(rng.integers(2, 5))
        try:
            slab = surface(bulk, plane, layers, vacuum=self.vacuum / 2, periodic=True)
        except (ValueError, ZeroDivisionError, np.linalg.LinAlgError) as error:
            raise NoSeedError("surface cannot be cut") from error
        wants = rng.random() < self.adsorbed
        room = self.max_atoms - (8 if wants else 0)
        while len(slab) < self.min_atoms or min(slab.cell.lengths()[:2]) < (5.0 if wants else 0.0):
            grown = slab * ((2, 1, 1) if slab.cell.lengths()[0] <= slab.cell.lengths()[1] else (1, 2, 1))
            if len(grown) > room:
                break
            slab = grown
        if not self.min_atoms <= len(slab) <= room:
            raise NoSeedError("slab outside the limits")
        if wants:
            slab = _adsorb(slab, rng)
            source += "+adsorbate"
        atoms = plain(slab)
        if too_close(atoms):
            raise NoSeedError("atoms too close")
        return Seed(atoms, f"slab:{source}")

    def provenance(self) -> list[dict[str, str]]:
        """Return the sources."""
        from mlffstore_generators.seeds.crystals import Crystals

        return [
            *Crystals().provenance(),
            {"name": "g2", "what": "geometries of adsorbates in ASE", "licence": "LGPL-2.1-or-later"},
        ]


def _adsorb(slab: Atoms, rng: np.random.Generator) -> Atoms:
    from ase.build import molecule

    guest = molecule(_ADSORBATES[int(rng.integers(len(_ADSORBATES)))])
    guest.positions = (guest.positions - guest.positions.mean(axis=0)) @ rotation(rng).T
    place = rng.random(2) @ slab.cell.array[:2]
    guest.positions += [*place[:2], 0.0]
    guest.positions[:, 2] += slab.positions[:, 2].max() + rng.uniform(1.6, 2.8) - guest.positions[:, 2].min()
    return slab + guest
