"""Random crystals of a space group: symmetric arrangements that no prototype has."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.errors import missing_dependency
from mlffstore_generators.chemistry import species
from mlffstore_generators.options import check_options
from mlffstore_generators.prototypes import identity, plain, supercell, too_close
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_sizes

if TYPE_CHECKING:
    from ase import Atoms

#: Compositions by number of elements: atoms of each in a formula unit.
_FORMULAS = (((1,),), ((1, 1), (1, 2), (1, 3), (2, 3)), ((1, 1, 2), (1, 1, 3), (1, 2, 4)))
#: Tries of pyxtal to place the atoms of one composition in one group.
_TRIES = 3
#: Space groups that are tried for a composition, and draws of a composition until it is neutral.
_GROUPS, _SALTS = 10, 50
#: Of the volume that pyxtal takes from the covalent radii: at 1.0 atoms of salts touch.
_LOOSE = 1.4


@dataclass(frozen=True)
class RandomCrystals:
    """Crystals with a random space group from 2 to 230, made by pyxtal, at the volume that the covalent radii suggest.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Range of the number of atoms in the (super)cell.
    elements : tuple of str, optional
        Allowed elements; all by default.

    Notes
    -----
    Fredericks et al., Comput. Phys. Commun. 261, 107810 (2021). Elements of one cell are neutral by common oxidation
    states where there are several.
    """

    min_atoms: int = 10
    max_atoms: int = 60
    elements: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_options("random-crystals", self)
        check_sizes("random-crystals", self.min_atoms, self.max_atoms)

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a crystal."""
        symbols, formula = self._composition(rng)
        for _ in range(_GROUPS):
            group, units = int(rng.integers(2, 231)), int(rng.integers(1, max(2, self.max_atoms // sum(formula) + 1)))
            atoms = _build(group, symbols, [n * units for n in formula], int(rng.integers(2**31)))
            if atoms is not None:
                break
        else:
            raise NoSeedError("composition fits none of some space groups")
        atoms = supercell(atoms, self.min_atoms)
        if len(atoms) > self.max_atoms:
            raise NoSeedError("supercell larger than max_atoms")
        if too_close(atoms):
            raise NoSeedError("atoms too close")
        return Seed(atoms, f"pyxtal:{group}", family=identity(atoms))

    def _composition(self, rng: np.random.Generator) -> tuple[list[str], tuple[int, ...]]:
        """Return elements and a formula; neutral by common oxidation states, or of metals alone."""
        states, metals = species()
        allowed = None if self.elements is None else set(self.elements)
        several = int(rng.choice([1, 2, 3], p=[0.15, 0.5, 0.35]))
        formulas = _FORMULAS[several - 1]
        if several == 1 or rng.random() < 0.3:
            pool = [symbol for symbol in metals if allowed is None or symbol in allowed]
            if len(pool) < several:
                raise NoSeedError("too few metals are allowed")
            chosen = [pool[k] for k in rng.choice(len(pool), several, replace=False)]
            return chosen, formulas[int(rng.integers(len(formulas)))]
        cations = [(s, q) for q, symbols in states.items() if q > 0 for s in symbols if s in metals]
        anions = [(s, q) for q, symbols in states.items() if q < 0 for s in symbols]
        if allowed is not None:
            cations, anions = ([(s, q) for s, q in some if s in allowed] for some in (cations, anions))
        if not cations or not anions:
            raise NoSeedError("no salt of the allowed elements")
        for _ in range(_SALTS):
            names = [cations[int(rng.integers(len(cations)))] for _ in range(several - 1)]
            names.append(anions[int(rng.integers(len(anions)))])
            formula = formulas[int(rng.integers(len(formulas)))]
            if len({s for s, _ in names}) == several and not sum(
                n * q for (_, q), n in zip(names, formula, strict=True)
            ):
                return [s for s, _ in names], formula
        raise NoSeedError("no neutral salt")

    def provenance(self) -> list[dict[str, str]]:
        """Return the source."""
        return [
            {"name": "pyxtal", "what": "random symmetric crystals, doi:10.1016/j.cpc.2020.107810", "licence": "MIT"}
        ]


def _build(group: int, symbols: list[str], counts: list[int], seed: int) -> Atoms | None:
    """Return a crystal of a space group, None if the composition does not fit it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pyxtal import pyxtal
            from pyxtal.msg import Comp_CompatibilityError, Symm_CompatibilityError
    except ImportError as error:
        raise missing_dependency("pyxtal", "sampling", "the seeds 'random-crystals'") from error
    crystal = pyxtal()
    rng = np.random.default_rng(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            crystal.from_random(3, group, symbols, counts, factor=_LOOSE, max_count=_TRIES, random_state=rng)
    except (Comp_CompatibilityError, Symm_CompatibilityError):
        return None
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError, TypeError) as error:
        raise NoSeedError("pyxtal failed") from error
    return plain(crystal.to_ase()) if crystal.valid else None
