"""Surfaces: slabs of elements and of prototypes, with all terminations, clean or with small molecules on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.chemistry import check_classes
from mlffstore_generators.options import check_options
from mlffstore_generators.prototypes import bare_crystal, plain, too_close
from mlffstore_generators.seeds.base import (
    NoSeedError,
    Seed,
    Seeds,
    check_host,
    check_share,
    check_sizes,
    get_seeds,
    rotation,
)
from mlffstore_generators.seeds.crystals import Crystals
from mlffstore_generators.seeds.drawing import Drawing, draw_alone, drawing

if TYPE_CHECKING:
    from ase import Atoms

#: Low-index surfaces that are cut.
_PLANES = ((1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 0))
#: Planes of atoms that are farther apart than this, angstrom, can be cut apart.
_PLANE = 0.4
#: The widest gap between planes of atoms that is expected, angstrom.
_WIDEST = 4.0
#: Adsorbates, by their names in ASE's g2 collection; closed shells.
_ADSORBATES = ("CO", "H2O", "NH3", "CH4", "CO2", "N2", "H2", "CH3OH", "H2CO", "HCN", "C2H4", "C2H2", "SO2", "HCl")


@dataclass(frozen=True)
class Slabs:
    """Periodic in three directions, with vacuum between the slab and its image.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Adsorbate included.
    thickness : float, optional
        Of the slab at least, angstrom, between the centres of its outermost atoms.
    vacuum : float, optional
        Between the top of a slab and the bottom of its image, angstrom.
    adsorbed : float, optional
        Fraction of slabs with a molecule above a random place of the surface, 0.8 to 1.4 sums of covalent radii
        above its topmost atoms; the nearest one may be farther to the side.
    elemental : float, optional
        Fraction of slabs of one element.
    classes : mapping of str to float, optional
        Shares of the classes of compounds, as of the seeds ``crystals``.
    host : str or mapping, optional
        Class of seeds of which the crystal that is cut is drawn, such as ``relaxed`` ones; by default crystals of the
        options above.

    Notes
    -----
    The cut between two planes of atoms is drawn, so that compounds have all their terminations. A slab shares its root with
    the crystal that it is cut from.
    """

    min_atoms: int = 10
    max_atoms: int = 120
    thickness: float = 8.0
    vacuum: float = 12.0
    adsorbed: float = 0.5
    elemental: float = 0.25
    classes: dict[str, float] | None = None
    host: Any = None

    def __post_init__(self) -> None:
        check_options("slabs", self)
        check_sizes("slabs", self.min_atoms, self.max_atoms)
        check_share("slabs", "adsorbed", self.adsorbed)
        check_share("slabs", "elemental", self.elemental)
        check_host("slabs", self)
        object.__setattr__(self, "classes", check_classes("slabs", self.classes))
        if not self.thickness > 0:
            raise DataError(f"slabs: expected a positive thickness, got {self.thickness!r}")
        if not self.vacuum >= 6:
            raise DataError(f"slabs: expected a vacuum of at least 6 angstrom, got {self.vacuum!r}")
        self.hosts  # noqa: B018  # a wrong host is told of now, not in a worker

    @cached_property
    def hosts(self) -> Seeds:
        """The class of seeds that the crystals are drawn from."""
        if self.host is not None:
            return get_seeds(self.host)
        return Crystals(1, 12, self.elemental, None, self.classes)

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a slab."""
        return draw_alone(self.drawing(rng))

    def drawing(self, rng: np.random.Generator) -> Drawing:
        """Return the draw of a slab; its host may ask a teacher."""
        host = yield from drawing(self.hosts, rng)
        bulk, source = bare_crystal(host.atoms), host.source
        slab = self._cut(bulk, _PLANES[int(rng.integers(len(_PLANES)))], rng)
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
            slab = _spaced(_adsorb(slab, rng), self.vacuum)
            source += "+adsorbate"
        atoms = plain(slab)
        if too_close(atoms):
            raise NoSeedError("atoms too close")
        return Seed(atoms, f"slab:{source}", family=host.family, origin=host.root)

    def _cut(self, bulk: Atoms, plane: tuple[int, int, int], rng: np.random.Generator) -> Atoms:
        """Return a slab of a crystal, cut between two of its planes, with vacuum along the third vector."""
        from ase.build import surface

        try:
            unit = surface(bulk, plane, 1, periodic=True)
            height = float(unit.cell.array[2, 2])  # ASE turns the normal into z
            layers = 1 + max(1, int(np.ceil((self.thickness + _WIDEST) / height)))
            if len(unit) * (layers - 1) > self.max_atoms:
                raise NoSeedError("slab outside the limits")
            # ASE makes the third vector the normal whatever the crystal's period, so layers cannot be added by repeating.
            slab = surface(bulk, plane, layers, periodic=True)
        except (ValueError, ZeroDivisionError, np.linalg.LinAlgError) as error:
            raise NoSeedError("surface cannot be cut") from error
        z = slab.positions[:, 2]
        levels = np.unique(np.round(z, 2))
        gaps = np.diff(levels)
        wide = np.flatnonzero((gaps > _PLANE) & (levels[:-1] < levels[0] + height - 0.01))
        if not len(wide):
            raise NoSeedError("no gap between the planes of atoms")
        below = int(wide[int(rng.integers(len(wide)))])
        low = levels[below] + gaps[below] / 2
        count = max(1, int(np.ceil((self.thickness + gaps[below]) / height)))
        count = min(count, layers - 1)
        inside = (z > low) & (z < low + count * height)
        if np.count_nonzero(inside) != count * len(unit):
            raise NoSeedError("no gap between the planes of atoms")
        return _spaced(slab[inside], self.vacuum)

    def provenance(self) -> list[dict[str, str]]:
        """Return the sources."""
        return [
            *self.hosts.provenance(),
            {"name": "g2", "what": "geometries of adsorbates in ASE", "licence": "LGPL-2.1-or-later"},
        ]


def _spaced(slab: Atoms, vacuum: float) -> Atoms:
    """Return a slab whose third vector is its normal, with that much vacuum (angstrom) between it and its image.

    The normal may not be a period of the crystal, but there is nothing beyond the vacuum that it would have to match.
    """
    out = slab.copy()
    normal = np.cross(*out.cell.array[:2])
    normal /= np.linalg.norm(normal)
    heights = out.positions @ normal
    cell = out.cell.array.copy()
    cell[2] = normal * (np.ptp(heights) + vacuum)
    out.set_cell(cell)
    out.positions += (vacuum / 2 - heights.min()) * normal
    out.wrap(pbc=[True, True, False])
    out.pbc = True
    return out


def _adsorb(slab: Atoms, rng: np.random.Generator) -> Atoms:
    from ase.build import molecule
    from ase.data import covalent_radii

    guest = molecule(_ADSORBATES[int(rng.integers(len(_ADSORBATES)))])
    guest.positions = (guest.positions - guest.positions.mean(axis=0)) @ rotation(rng).T
    normal = slab.cell.array[2] / np.linalg.norm(slab.cell.array[2])
    levels, lowest = slab.positions @ normal, int(np.argmin(guest.positions @ normal))
    top = levels.max()
    largest = covalent_radii[slab.numbers[levels > top - _PLANE]].max()
    # From touching to hardly: a height that fits lithium is inside a caesium atom.
    gap = rng.uniform(0.8, 1.4) * float(largest + covalent_radii[guest.numbers[lowest]])
    guest.positions += rng.random(2) @ slab.cell.array[:2]
    guest.positions += (top + gap - guest.positions[lowest] @ normal) * normal
    return slab + guest
