"""Drug-like molecules of the NCI database, closed shells, ions and, if asked for, radicals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlffstore_generators.seeds.base import NoSeedError, Seed, check_share, check_sizes
from mlffstore_generators.smiles import bond_table, embed, family, nci_smiles, to_atoms, with_hydrogens


@dataclass(frozen=True)
class Molecules:
    """NCI SMILES with every hydrogen, one conformer by ETKDGv3, relaxed by MMFF94.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Sizes, hydrogens included.
    radicals : float, optional
        Fraction of molecules that lose one hydrogen and become a doublet.
    heavy : float, optional
        Fraction that is drawn from molecules with an element beyond H, C, N, O only: a third of the database has one.
    """

    min_atoms: int = 10
    max_atoms: int = 60
    radicals: float = 0.0
    heavy: float = 0.0

    def __post_init__(self) -> None:
        check_sizes("molecules", self.min_atoms, self.max_atoms)
        check_share("molecules", "radicals", self.radicals)
        check_share("molecules", "heavy", self.heavy)

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a molecule."""
        smiles = nci_smiles()
        text = smiles[int(rng.integers(len(smiles)))]
        rare, radical = rng.random() < self.heavy, rng.random() < self.radicals
        mol = with_hydrogens(text)
        if rare and all(atom.GetAtomicNum() in (1, 6, 7, 8) for atom in mol.GetAtoms()):
            raise NoSeedError("only H, C, N, O where another element was wanted")
        if not self.min_atoms + radical <= mol.GetNumAtoms() <= self.max_atoms + radical:
            raise NoSeedError("size outside the limits")
        embed(mol, seed=int(rng.integers(1, 2**31)))
        atoms, bonds = to_atoms(mol), bond_table(mol)
        if not radical:
            return Seed(atoms, "nci", bonds, family=family(mol), molecule=mol)
        hydrogens = np.flatnonzero(atoms.numbers == 1)
        if not len(hydrogens):
            raise NoSeedError("no hydrogen to take away")
        gone = int(hydrogens[rng.integers(len(hydrogens))])
        del atoms[gone]
        bonds = bonds[(bonds != gone).all(axis=1)]
        atoms.info["multiplicity"] = 2
        return Seed(atoms, "nci-radical", bonds - (bonds > gone), family=family(mol))

    def provenance(self) -> list[dict[str, str]]:
        """Return the source."""
        return [
            {
                "name": "nci",
                "what": "first 5,000 SMILES of the NCI Open Database, as shipped with RDKit; ETKDGv3, MMFF94",
                "licence": "public domain (US government work)",
            }
        ]
