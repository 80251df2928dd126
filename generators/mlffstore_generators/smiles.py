"""Molecules from SMILES: explicit hydrogens always, ETKDGv3, MMFF94."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import missing_dependency
from mlffstore_generators.seeds.base import NoSeedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep RDKit's remarks on bad SMILES off stderr: they are counted as reasons."""
    from rdkit import rdBase

    block = rdBase.BlockLogs()
    try:
        yield
    finally:
        del block


@functools.lru_cache(maxsize=1)
def nci_smiles() -> tuple[str, ...]:
    """Return the SMILES of the first 5,000 records of the NCI Open Database, which come with RDKit (public domain)."""
    try:
        from rdkit import RDConfig
    except ImportError as error:
        raise missing_dependency("rdkit", "generators", "the generator 'molecules'") from error
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    return tuple(line.split()[0] for line in lines if line.strip())


def with_hydrogens(smiles: str) -> Any:
    """Return an RDKit molecule with every hydrogen explicit.

    Raises
    ------
    NoSeedError
        For several fragments, radicals, isotopes, dummy atoms, and SMILES that RDKit does not accept.
    """
    from rdkit import Chem

    if "." in smiles:
        raise NoSeedError("several fragments")
    with _quiet():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise NoSeedError("SMILES not understood")
    if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
        raise NoSeedError("radical")
    if any(atom.GetAtomicNum() == 0 or atom.GetIsotope() for atom in mol.GetAtoms()):
        raise NoSeedError("isotope or dummy atom")
    return Chem.AddHs(mol)


def family(mol: Any) -> str:
    """Return the canonical SMILES without stereochemistry: the same for all conformers and stereoisomers of a molecule."""
    from rdkit import Chem

    return str(Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False))


def embed(mol: Any, seed: int) -> Any:
    """Give a molecule one conformer by ETKDGv3, relaxed with MMFF94; return its MMFF94 properties.

    Parameters
    ----------
    mol : rdkit.Chem.Mol
        The molecule, with explicit hydrogens. It is changed in place.
    seed : int
        Seed of the embedding, positive, below 2**31.

    Raises
    ------
    NoSeedError
        If MMFF94 does not know an atom or the embedding fails.

    Notes
    -----
    ETKDGv3: Wang et al., J. Chem. Inf. Model. 60, 2044 (2020). MMFF94: Halgren, J. Comput. Chem. 17, 490 (1996).
    """
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    with _quiet():
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
        if properties is None:
            raise NoSeedError("no MMFF94 parameters")
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = seed
        parameters.maxIterations = 20
        if rdDistGeom.EmbedMolecule(mol, parameters) != 0:
            raise NoSeedError("embedding failed")
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties)
        if field.Minimize(maxIts=1000, forceTol=1e-3) < 0:
            raise NoSeedError("MMFF94 relaxation failed")
    return properties


def to_atoms(mol: Any) -> Atoms:
    """Return an embedded molecule as ASE atoms, with charge and multiplicity (closed shell) in `info`."""
    from ase import Atoms
    from rdkit.Chem import rdmolops

    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    positions = np.array(mol.GetConformer().GetPositions())
    return Atoms(numbers, positions, info={"charge": rdmolops.GetFormalCharge(mol), "multiplicity": 1})


def bond_table(mol: Any) -> np.ndarray:
    """Return the bonds as pairs of atom indices, shape (B, 2)."""
    return np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()], np.int64).reshape(-1, 2)
