"""Dimers and small clusters of molecules at sampled distances, from touching to nearly apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_sizes, rotation
from mlffstore_generators.seeds.molecules import Molecules
from mlffstore_generators.smiles import bond_table, embed, family, to_atoms, with_hydrogens

if TYPE_CHECKING:
    from ase import Atoms

#: Small molecules that solvate others, beside the drug-like ones.
_SOLVENTS = ("O", "CO", "N", "C(=O)N", "CC#N", "CS(C)=O", "ClCCl", "c1ccccc1", "O=C=O", "CC(=O)O", "S", "P", "F", "Cl")


@dataclass(frozen=True)
class Clusters:
    """A molecule and one to five others around it.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Range of the number of atoms in the whole cluster.
    molecules : tuple of int, optional
        Fewest and most molecules.
    contact : tuple of float, optional
        Range of the log-uniform distance of the closest atoms of two molecules, in sums of their van der Waals radii.
    solvent : float, optional
        Fraction of the added molecules that are small common solvents.
    """

    min_atoms: int = 10
    max_atoms: int = 80
    molecules: tuple[int, int] = (2, 6)
    contact: tuple[float, float] = (0.8, 1.6)
    solvent: float = 0.6

    def __post_init__(self) -> None:
        object.__setattr__(self, "molecules", tuple(int(n) for n in self.molecules))
        object.__setattr__(self, "contact", tuple(float(x) for x in self.contact))
        check_sizes("clusters", self.min_atoms, self.max_atoms)
        if len(self.molecules) != 2 or not 2 <= self.molecules[0] <= self.molecules[1]:
            raise DataError(f"clusters: expected molecules from 2 up, got {self.molecules}")
        if len(self.contact) != 2 or not 0.5 <= self.contact[0] <= self.contact[1]:
            raise DataError(f"clusters: expected contact from 0.5 up, got {self.contact}")

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a cluster."""
        low, high = self.molecules
        wanted = int(rng.integers(low, high + 1))
        drugs = Molecules(min_atoms=2, max_atoms=max(3, self.max_atoms // 2))
        parts = [drugs.draw(rng)]
        while len(parts) < wanted:
            room = self.max_atoms - sum(len(part.atoms) for part in parts)
            try:
                part = solvent(rng) if rng.random() < self.solvent else drugs.draw(rng)
            except NoSeedError:
                continue
            if len(part.atoms) > room:
                break
            parts.append(part)
        atoms, bonds, fragments = parts[0].atoms.copy(), [parts[0].bonds], [np.arange(len(parts[0].atoms))]
        charge = int(atoms.info.get("charge", 0))
        for part in parts[1:]:
            added = _dock(atoms, part.atoms, self.contact, rng)
            bonds.append(part.bonds + len(atoms))
            fragments.append(np.arange(len(atoms), len(atoms) + len(added)))
            atoms = atoms + added
            charge += int(part.atoms.info.get("charge", 0))
        if len(parts) < low or not self.min_atoms <= len(atoms) <= self.max_atoms:
            raise NoSeedError("cluster outside the limits")
        atoms.info = {"charge": charge, "multiplicity": 1}
        members = ".".join(sorted(part.family for part in parts))
        return Seed(atoms, "nci-cluster", np.concatenate(bonds), tuple(fragments), members)

    def provenance(self) -> list[dict[str, str]]:
        """Return the sources."""
        return [
            *Molecules().provenance(),
            {"name": "solvents", "what": "SMILES of 14 common small molecules", "licence": "facts"},
        ]


def solvent(rng: np.random.Generator) -> Seed:
    """Return a small molecule that solvates others."""
    mol = with_hydrogens(_SOLVENTS[int(rng.integers(len(_SOLVENTS)))])
    embed(mol, seed=int(rng.integers(1, 2**31)))
    return Seed(to_atoms(mol), "solvent", bond_table(mol), family=family(mol))


def _dock(atoms: Atoms, other: Atoms, contact: tuple[float, float], rng: np.random.Generator) -> Atoms:
    """Return the other molecule, turned at random, where its closest contact is as drawn."""
    from ase.data import vdw_radii

    other = other.copy()
    other.positions = (other.positions - other.positions.mean(axis=0)) @ rotation(rng).T
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    low, high = contact
    scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    radii = np.nan_to_num(vdw_radii, nan=2.0)  # elements that Bondi does not list
    needed = scale * (radii[atoms.numbers][:, None] + radii[other.numbers])
    # Along a line from the centre outwards, the smallest shift from which on no pair is closer than needed.
    gap = other.positions[None] + atoms.positions.mean(axis=0) - atoms.positions[:, None]
    along = gap @ way
    root = along**2 - (gap**2).sum(-1) + needed**2
    shift = np.where(root > 0, -along + np.sqrt(np.maximum(root, 0)), 0.0).max()
    other.positions += atoms.positions.mean(axis=0) + max(shift, 0.0) * way
    return other
