"""Drug-like molecules of the NCI database, closed shells, ions and, if asked for, radicals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.options import check_options
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_share, check_sizes
from mlffstore_generators.smiles import bond_table, embed, family, nci_smiles, to_atoms, with_hydrogens

#: Sign of the charge and number of protons that each kind of ion has.
_IONS = {"anion": (-1, 1), "cation": (1, 1), "dication": (1, 2), "dianion": (-1, 2)}
#: Where protons leave (the atom that had one: of acids, phenols, thiols, sulfonamides) and where they go (amines that are
#: not amides, anilines or enamines; pyridines; amidines).
_ACIDS = ("[OX2;H1][CX3]=O", "[OX2;H1]c", "[OX2;H1][S,P]", "[SX2;H1]", "[NX3;H1,H2]S(=O)=O")
_BASES = ("[NX3;!$(N*=[O,N,S]);!$(N-[a]);!$(N=*);!$(N~[!#6;!#1])]", "[nX2;r6]", "[NX2]=[CX3][NX3]")


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
        Fraction of the draws that count only if the molecule has an element beyond H, C, N, O. A third of the database has
        one, so that 0.4 gives half of the seeds such an element, and 0.8 three quarters.
    neutral : bool, optional
        Whether molecules with a charge are passed over.
    ions : tuple of {"anion", "cation", "dication", "dianion"}, optional
        If given, molecules lose protons of acids or gain them at amines; each kind is drawn equally often, but
        few molecules can have two charges: about one seed in seven is a dication, one a dianion. An ion shares its root with
        its molecule.
    """

    min_atoms: int = 10
    max_atoms: int = 60
    radicals: float = 0.0
    heavy: float = 0.0
    neutral: bool = False
    ions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_options("molecules", self)
        check_sizes("molecules", self.min_atoms, self.max_atoms)
        check_share("molecules", "radicals", self.radicals)
        check_share("molecules", "heavy", self.heavy)
        if set(self.ions) - set(_IONS) or (self.ions and (self.neutral or self.radicals)):
            raise DataError(
                f"molecules: expected ions of {', '.join(_IONS)}, without neutral and radicals, got {self.ions}"
            )

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a molecule."""
        from rdkit import Chem

        smiles = nci_smiles()
        text = smiles[int(rng.integers(len(smiles)))]
        rare, radical = rng.random() < self.heavy, rng.random() < self.radicals
        mol = with_hydrogens(text)
        name, source = family(mol), "nci"
        if self.ions:
            kind = self.ions[int(rng.integers(len(self.ions)))]
            mol, source = ionised(mol, *_IONS[kind], rng), f"nci-{kind}"
        elif self.neutral and Chem.GetFormalCharge(mol):
            raise NoSeedError("molecule with a charge")
        if rare and all(atom.GetAtomicNum() in (1, 6, 7, 8) for atom in mol.GetAtoms()):
            raise NoSeedError("only H, C, N, O where another element was wanted")
        if not self.min_atoms + radical <= mol.GetNumAtoms() <= self.max_atoms + radical:
            raise NoSeedError("size outside the limits")
        embed(mol, seed=int(rng.integers(1, 2**31)))
        atoms, bonds = to_atoms(mol), bond_table(mol)
        if not radical:
            return Seed(atoms, source, bonds, family=name, molecule=mol)
        hydrogens = np.flatnonzero(atoms.numbers == 1)
        if not len(hydrogens):
            raise NoSeedError("no hydrogen to take away")
        gone = int(hydrogens[rng.integers(len(hydrogens))])
        del atoms[gone]
        bonds = bonds[(bonds != gone).all(axis=1)]
        atoms.info["multiplicity"] = 2
        return Seed(atoms, "nci-radical", bonds - (bonds > gone), family=name)

    def provenance(self) -> list[dict[str, str]]:
        """Return the source."""
        return [
            {
                "name": "nci",
                "what": "first 5,000 SMILES of the NCI Open Database, as shipped with RDKit; ETKDGv3, MMFF94",
                "licence": "public domain (US government work)",
            }
        ]


def ionised(mol: Any, sign: int, protons: int, rng: np.random.Generator) -> Any:
    """Return a neutral molecule that has lost (`sign` -1) or gained (+1) some protons at different places.

    Raises
    ------
    NoSeedError
        If it is charged already, or has too few acids or bases.
    """
    from rdkit import Chem

    bare = Chem.RemoveHs(mol)
    if Chem.GetFormalCharge(bare) or any(atom.GetFormalCharge() for atom in bare.GetAtoms()):
        raise NoSeedError("charged before it is ionised")
    patterns = [Chem.MolFromSmarts(text) for text in (_ACIDS if sign < 0 else _BASES)]
    places = sorted({match[0] for pattern in patterns for match in bare.GetSubstructMatches(pattern)})
    if len(places) < protons:
        raise NoSeedError("too few acids or bases to ionise")
    out = Chem.RWMol(bare)
    for k in rng.choice(len(places), size=protons, replace=False):
        atom = out.GetAtomWithIdx(places[int(k)])
        hydrogens = atom.GetTotalNumHs() + sign
        atom.SetFormalCharge(sign)
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(hydrogens)
    try:
        Chem.SanitizeMol(out)
    except (ValueError, RuntimeError) as error:  # RDKit's exceptions are of these
        raise NoSeedError("ion with a valence that does not exist") from error
    return Chem.AddHs(out.GetMol())
