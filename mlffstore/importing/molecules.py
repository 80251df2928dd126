"""Reads SDF, MOL and SMILES with RDKit, always with every hydrogen: ASE would read the heavy atoms alone."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError, missing_dependency
from mlffstore.importing.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seed of the embedding: the same file gives the same structures, so that a second import recognises them.
_SEED = 0xC0FFEE
_END = object()


def read_sdf(path: Path, *, add_hydrogens: bool) -> Iterator[Record]:
    """Yield the molecules of an SDF or MOL file, with missing hydrogens placed by RDKit.

    Data fields of a record go to `atoms.info`, so that `keys` can name one as a label.

    Raises
    ------
    DataError
        If a record is not understood, is a 2D drawing, or lacks hydrogens and they may not be added.
    """
    Chem = _rdkit()
    with path.open("rb") as file:
        supplier = Chem.ForwardSDMolSupplier(file, removeHs=False)
        for i in itertools.count():
            where = f"record {i}"
            with _quiet():
                mol: Any = next(supplier, _END)
            if mol is _END:
                return
            if mol is None:
                raise DataError(
                    f"{path}, {where}: expected a molecule that RDKit accepts, got one it rejects; repair it"
                )
            if not mol.GetNumAtoms() or not mol.GetNumConformers() or not mol.GetConformer().Is3D():
                raise DataError(
                    f"{path}, {where}: expected 3D coordinates, got a 2D drawing; import its SMILES instead (or write "
                    "'3D' in columns 21-22 of the record's second line if a planar molecule is meant)"
                )
            missing = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
            if missing and not add_hydrogens:
                raise DataError(
                    f"{path}, {where}: expected every hydrogen, got a molecule that lacks {missing}; add them, or let the "
                    "import do it with add_hydrogens=True"
                )
            info = mol.GetPropsAsDict()
            if missing:
                mol = Chem.AddHs(mol, addCoords=True)
            yield Record(_to_atoms(mol, info), where, hydrogens=missing)


def read_smiles(path: Path, *, add_hydrogens: bool) -> Iterator[Record]:
    """Yield one conformer of each molecule of a SMILES file (a SMILES string first on each line).

    Embedded by ETKDGv3 (Wang et al., J. Chem. Inf. Model. 60, 2044 (2020)) with a fixed seed, not relaxed.

    Raises
    ------
    DataError
        If a line is not understood, has several fragments, or cannot be embedded.
    """
    Chem = _rdkit()
    from rdkit.Chem import rdDistGeom

    if not add_hydrogens:
        raise DataError(
            f"{path}: expected add_hydrogens=True, got False; SMILES leave hydrogens out, and they are needed"
        )
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            words = line.split()
            if not words or words[0].startswith("#") or (number == 1 and words[0].lower() == "smiles"):
                continue
            smiles, where = words[0], f"line {number}"
            with _quiet():
                mol = Chem.MolFromSmiles(smiles)
            if mol is None or not mol.GetNumAtoms() or "." in smiles:
                raise DataError(
                    f"{path}, {where}: expected the SMILES of one molecule, got {smiles!r}; correct or remove it"
                )
            full = Chem.AddHs(mol)
            parameters: Any = rdDistGeom.ETKDGv3()
            parameters.randomSeed = _SEED
            parameters.maxIterations = 50
            with _quiet():
                failed = rdDistGeom.EmbedMolecule(full, parameters) != 0
            if failed:
                raise DataError(f"{path}, {where}: RDKit finds no 3D structure for {smiles!r}; remove the line")
            info = {"smiles": smiles}
            yield Record(_to_atoms(full, info), where, hydrogens=full.GetNumAtoms() - mol.GetNumAtoms())


def _to_atoms(mol: Any, info: dict[str, Any]) -> Any:
    from ase import Atoms
    from rdkit.Chem import rdmolops

    unpaired = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    state = {"charge": rdmolops.GetFormalCharge(mol), "multiplicity": 1 + unpaired}
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    return Atoms(numbers, np.array(mol.GetConformer().GetPositions()), info={**info, **state})


def _rdkit() -> Any:
    try:
        from rdkit import Chem
    except ImportError as error:
        raise missing_dependency("rdkit", "generators", "reading SDF and SMILES") from error
    return Chem


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep RDKit's remarks off stderr: what matters is in our errors."""
    from rdkit import rdBase

    block = rdBase.BlockLogs()
    try:
        yield
    finally:
        del block
