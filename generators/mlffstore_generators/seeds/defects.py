"""Point defects and alloys: crystals with vacancies, substituted and added atoms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlffstore.errors import DataError
from mlffstore_generators.chemistry import check_classes, species
from mlffstore_generators.options import check_options
from mlffstore_generators.prototypes import bare_crystal, supercell, too_close, wide_supercell
from mlffstore_generators.seeds.base import NoSeedError, Seed, Seeds, check_host, check_share, check_sizes, get_seeds
from mlffstore_generators.seeds.crystals import Crystals
from mlffstore_generators.seeds.drawing import Drawing, draw_alone, drawing

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

_KINDS = ("vacancy", "substitution", "alloy", "interstitial")


@dataclass(frozen=True)
class Defects:
    """A supercell with one kind of defect.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Range of the number of atoms in the perfect supercell.
    distance : float, optional
        Between a defect and its images at least, angstrom.
    elemental : float, optional
        Fraction of hosts of one element.
    classes : mapping of str to float, optional
        Shares of the classes of compounds among the hosts, as of the seeds ``crystals``.
    elements : tuple of str, optional
        Allowed elements; all by default.
    host : str or mapping, optional
        Class of seeds of which the host is drawn, such as ``relaxed`` ones; by default crystals of the options above.

    Notes
    -----
    A defect shares its root with its host.
    """

    min_atoms: int = 16
    max_atoms: int = 160
    distance: float = 10.0
    elemental: float = 0.25
    classes: dict[str, float] | None = None
    elements: tuple[str, ...] | None = None
    host: Any = None

    def __post_init__(self) -> None:
        check_options("defects", self)
        check_sizes("defects", self.min_atoms, self.max_atoms)
        check_share("defects", "elemental", self.elemental)
        check_host("defects", self)
        object.__setattr__(self, "classes", check_classes("defects", self.classes))
        if self.distance < 0:
            raise DataError(f"defects: expected a distance of at least 0 angstrom, got {self.distance!r}")
        self.hosts  # noqa: B018  # a wrong host is told of now, not in a worker

    @cached_property
    def hosts(self) -> Seeds:
        """The class of seeds that the crystals are drawn from."""
        if self.host is not None:
            return get_seeds(self.host)
        return Crystals(1, 40, self.elemental, self.elements, self.classes)

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a crystal with a defect."""
        return draw_alone(self.drawing(rng))

    def drawing(self, rng: np.random.Generator) -> Drawing:
        """Return the draw of a crystal with a defect; its host may ask a teacher."""
        from ase import Atom
        from ase.data import atomic_numbers

        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        host = yield from drawing(self.hosts, rng)
        crystal = bare_crystal(host.atoms)
        if self.elements is not None and set(crystal.symbols) - set(self.elements):
            raise NoSeedError("element that is not allowed")
        atoms, metals = supercell(wide_supercell(crystal, self.distance), self.min_atoms), species()[1]
        if len(atoms) > self.max_atoms:
            raise NoSeedError("supercell larger than max_atoms")
        pool = [symbol for symbol in metals if self.elements is None or symbol in self.elements]
        if not pool:
            raise NoSeedError("no metal is allowed")
        other = pool[int(rng.integers(len(pool)))]
        if kind == "vacancy":
            n = min(int(rng.integers(1, 3)), len(atoms) - 1)
            if not n:
                raise NoSeedError("a cell of one atom has none to spare")
            gone = rng.choice(len(atoms), size=n, replace=False)
            del atoms[[int(i) for i in gone]]
        elif kind == "interstitial":
            best = max((rng.random(3) @ atoms.cell.array for _ in range(40)), key=lambda x: _gap(atoms, x))
            guest = "H" if rng.random() < 0.3 else "C" if rng.random() < 0.4 else other
            if self.elements is not None and guest not in self.elements:
                guest = other
            atoms.append(Atom(guest, best))
        else:
            sites = [i for i, symbol in enumerate(atoms.symbols) if symbol in metals and symbol != other]
            if not sites:
                raise NoSeedError("no metal to replace")
            n = 1 if kind == "substitution" else max(1, int(rng.uniform(0.1, 0.6) * len(sites)))
            atoms.numbers[rng.choice(sites, size=min(n, len(sites)), replace=False)] = atomic_numbers[other]
        if too_close(atoms):
            raise NoSeedError("atoms too close")
        return Seed(atoms, f"{kind}:{host.source}", family=host.family, origin=host.root)

    def provenance(self) -> list[dict[str, str]]:
        """Return the sources."""
        return self.hosts.provenance()


def _gap(atoms: Atoms, x: np.ndarray) -> float:
    """Return the distance of a place from the nearest atom or image, angstrom."""
    from ase.geometry import get_distances

    _, distance = get_distances([x], atoms.positions, cell=atoms.cell, pbc=True)
    return float(distance.min())
