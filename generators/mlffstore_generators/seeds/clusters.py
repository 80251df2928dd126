"""Dimers and small clusters of molecules at sampled distances, from touching to nearly apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.options import check_options
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_share, check_sizes, rotation
from mlffstore_generators.seeds.molecules import Molecules
from mlffstore_generators.smiles import bond_table, embed, family, to_atoms, with_hydrogens

if TYPE_CHECKING:
    from ase import Atoms

#: Small molecules that solvate others, beside the drug-like ones.
_SOLVENTS = ("O", "CO", "N", "C(=O)N", "CC#N", "CS(C)=O", "ClCCl", "c1ccccc1", "O=C=O", "CC(=O)O", "S", "P", "F", "Cl")


#: Solvents of clusters and boxes of one kind, with weights: most of all water.
_PURE = {
    "O": 5.0, "CO": 2.0, "CCO": 2.0, "CC(C)O": 1.0, "OCCO": 1.0, "CC#N": 1.0, "CS(C)=O": 1.0, "CN(C)C=O": 1.0,
    "CC(C)=O": 1.0, "C1CCOC1": 1.0, "CCOC(C)=O": 0.5, "ClC(Cl)Cl": 0.5, "ClCCl": 0.5, "c1ccccc1": 1.0, "Cc1ccccc1": 0.5,
    "CCCCCC": 0.5, "C1CCCCC1": 0.5, "CC(=O)O": 0.5, "N": 1.0, "C(=O)N": 0.5,
}  # fmt: skip
#: Ions that MMFF94 knows, with their charges.
_CATIONS = {
    "[Li+]": 1, "[Na+]": 1, "[K+]": 1, "[Mg+2]": 2, "[Ca+2]": 2, "[Zn+2]": 2, "[NH4+]": 1, "C[NH3+]": 1,
    "C[N+](C)(C)C": 1, "CC[NH+](CC)CC": 1,
}  # fmt: skip
_ANIONS = {
    "[F-]": 1, "[Cl-]": 1, "[Br-]": 1, "CC(=O)[O-]": 1, "C(=O)[O-]": 1, "[N+](=O)([O-])[O-]": 1, "[O-]S(=O)(=O)C": 1,
}  # fmt: skip
_KINDS = ("mixed", "pure", "salt")


@dataclass(frozen=True)
class Clusters:
    """Some molecules around each other.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Range of the number of atoms in the whole cluster.
    molecules : tuple of int, optional
        Fewest and most molecules; of ``pure`` clusters up to four times as many. Of a ``salt`` that of the molecules of the
        solvent, one less to twice as many.
    contact : tuple of float, optional
        Range of the log-uniform distance of the closest atoms of two molecules, in sums of their van der Waals radii.
    solvent : float, optional
        Fraction of the added molecules that are small common solvents.
    kind : {"mixed", "pure", "salt"}, optional
        A drug-like molecule with others; one solvent; or a cation with its counter-ions, neutral together, in a solvent.
    neutral : bool, optional
        Whether clusters with a charge are passed over.
    """

    min_atoms: int = 10
    max_atoms: int = 80
    molecules: tuple[int, int] = (2, 6)
    contact: tuple[float, float] = (0.8, 1.6)
    solvent: float = 0.6
    kind: str = "mixed"
    neutral: bool = False

    def __post_init__(self) -> None:
        check_options("clusters", self)
        check_sizes("clusters", self.min_atoms, self.max_atoms)
        if len(self.molecules) != 2 or not 2 <= self.molecules[0] <= self.molecules[1]:
            raise DataError(f"clusters: expected molecules from 2 up, got {self.molecules}")
        check_share("clusters", "solvent", self.solvent)
        if len(self.contact) != 2 or not 0.5 <= self.contact[0] <= self.contact[1]:
            raise DataError(f"clusters: expected contact from 0.5 up, got {self.contact}")
        if self.kind not in _KINDS:
            raise DataError(f"clusters: expected the kind {', '.join(_KINDS)}, got {self.kind!r}")

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a cluster."""
        parts = {"mixed": self._mixed, "pure": self._pure, "salt": self._salt}[self.kind](rng)
        atoms, bonds, fragments = parts[0].atoms.copy(), [parts[0].bonds], [np.arange(len(parts[0].atoms))]
        charge = int(atoms.info.get("charge", 0))
        for part in parts[1:]:
            added = _dock(atoms, part.atoms, self.contact, rng)
            bonds.append(part.bonds + len(atoms))
            fragments.append(np.arange(len(atoms), len(atoms) + len(added)))
            atoms = atoms + added
            charge += int(part.atoms.info.get("charge", 0))
        if len(parts) < self.molecules[0] or not self.min_atoms <= len(atoms) <= self.max_atoms:
            raise NoSeedError("cluster outside the limits")
        if charge and self.neutral:
            raise NoSeedError("cluster with a charge")
        atoms.info = {"charge": charge, "multiplicity": 1}
        members = ".".join(sorted(part.family for part in parts))
        source = {"mixed": "nci-cluster", "pure": "solvent-cluster", "salt": "ion-cluster"}[self.kind]
        return Seed(
            atoms,
            source,
            np.concatenate(bonds),
            tuple(fragments),
            members,
            together([part.molecule for part in parts], atoms),
        )

    def _mixed(self, rng: np.random.Generator) -> list[Seed]:
        wanted = int(rng.integers(self.molecules[0], self.molecules[1] + 1))
        drugs = Molecules(min_atoms=2, max_atoms=max(3, self.max_atoms // 2), neutral=self.neutral)
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
        return parts

    def _pure(self, rng: np.random.Generator) -> list[Seed]:
        first = pure_solvent(rng)
        most = min(self.max_atoms // len(first.atoms), 4 * self.molecules[1])
        fewest = max(self.molecules[0], -(-self.min_atoms // len(first.atoms)))
        if most < fewest:
            raise NoSeedError("cluster outside the limits")
        smiles = first.family
        return [first] + [of_smiles(smiles, "solvent", rng) for _ in range(int(rng.integers(fewest, most + 1)) - 1)]

    def _salt(self, rng: np.random.Generator) -> list[Seed]:
        cation, anion = (list(ions)[int(rng.integers(len(ions)))] for ions in (_CATIONS, _ANIONS))
        parts = [of_smiles(cation, "ion", rng)]
        parts += [of_smiles(anion, "ion", rng) for _ in range(_CATIONS[cation] // _ANIONS[anion])]
        around = pure_solvent(rng)
        for _ in range(int(rng.integers(self.molecules[0] - 1, 2 * self.molecules[1] + 1))):
            if sum(len(part.atoms) for part in parts) + len(around.atoms) > self.max_atoms:
                break
            parts.append(of_smiles(around.family, "solvent", rng))
        return parts

    def provenance(self) -> list[dict[str, str]]:
        """Return the sources."""
        return [
            *Molecules().provenance(),
            {"name": "solvents", "what": "SMILES of common small molecules and ions", "licence": "facts"},
        ]


def of_smiles(smiles: str, source: str, rng: np.random.Generator) -> Seed:
    """Return a molecule or ion by its SMILES, with a conformer of its own."""
    mol = with_hydrogens(smiles)
    embed(mol, seed=int(rng.integers(1, 2**31)))
    return Seed(to_atoms(mol), source, bond_table(mol), family=family(mol), molecule=mol)


def solvent(rng: np.random.Generator) -> Seed:
    """Return a small molecule that solvates others."""
    return of_smiles(_SOLVENTS[int(rng.integers(len(_SOLVENTS)))], "solvent", rng)


def pure_solvent(rng: np.random.Generator) -> Seed:
    """Return a molecule of a common solvent, water most often."""
    weights = np.array(list(_PURE.values()))
    return of_smiles(list(_PURE)[int(rng.choice(len(weights), p=weights / weights.sum()))], "solvent", rng)


def together(molecules: list[Any], atoms: Atoms) -> Any:
    """Return several RDKit molecules as one, where the atoms are; None if one of them is unknown."""
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    if any(one is None for one in molecules):
        return None
    out = molecules[0]
    for one in molecules[1:]:
        out = Chem.CombineMols(out, one)
    out = Chem.Mol(out)
    Chem.SanitizeMol(out)
    conformer = out.GetConformer()
    for i, (x, y, z) in enumerate(atoms.positions):
        conformer.SetAtomPosition(i, Point3D(float(x), float(y), float(z)))
    return out


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
