"""Reads SDF, MOL and SMILES with RDKit, always with every hydrogen: ASE would read the heavy atoms alone."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError, missing_dependency
from mlffstore.importing.packed import open_binary, open_text
from mlffstore.importing.record import Record
from mlffstore.importing.values import FieldText

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seed of the embedding: the same file gives the same structures, so that a second import recognises them.
_SEED = 0xC0FFEE
#: The line that ends a record of an SDF file.
_END = b"$$$$"


def read_sdf(path: Path, *, add_hydrogens: bool) -> Iterator[Record]:
    """Yield the molecules of an SDF or MOL file, compressed or not, with missing hydrogens placed by RDKit.

    The file is cut into records here, so that none is lost that RDKit gives up on. Data fields of a record go to
    `atoms.info`, so that `keys` can name one as a label. A record that cannot be imported has its problem in
    `Record.problems`, with the atoms as they stand in the file if RDKit can read as much.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    Chem = _rdkit()
    for i, text in enumerate(_split(path)):
        where = f"record {i}"
        with _quiet():
            mol: Any = next(iter(Chem.ForwardSDMolSupplier(io.BytesIO(text), removeHs=False)), None)
        if mol is None:
            yield Record(
                _as_written(Chem, text), where, problems=("expected a molecule that RDKit accepts, got one it rejects",)
            )
            continue
        problems, missing = [], 0
        if not mol.GetNumAtoms() or not mol.GetNumConformers() or not mol.GetConformer().Is3D():
            problems.append(
                "expected 3D coordinates, got a 2D drawing; import its SMILES instead (or write '3D' in columns 21-22 "
                "of the record's second line if a planar molecule is meant)"
            )
        else:
            missing = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
        if missing and not add_hydrogens:
            problems.append(
                f"expected every hydrogen, got a molecule that lacks {missing}; add them, or let the import do it"
            )
        data = {name: FieldText(mol.GetProp(name)) for name in mol.GetPropNames()}
        if title := mol.GetProp("_Name") if mol.HasProp("_Name") else "":
            data.setdefault("name", FieldText(title))
        if missing and add_hydrogens:
            mol = Chem.AddHs(mol, addCoords=True)
        added = missing if add_hydrogens else 0
        atoms = _to_atoms(mol, n_paired=2 * _singlets(text))
        yield Record(atoms, where, more={"data": data}, hydrogens=added, problems=tuple(problems))


def _singlets(text: bytes) -> int:
    """Return how many atoms of a record are singlet radicals such as carbenes: two electrons that are paired.

    V2000 says it with pairs of atom and number in lines ``M  RAD``, V3000 with ``RAD=1``; RDKit keeps two electrons alone.
    """
    block = text.partition(b"M  END")[0].decode("utf-8", errors="replace")
    pairs = (line.split()[3:] for line in block.splitlines() if line.startswith("M  RAD"))
    return sum(words[1::2].count("1") for words in pairs) + len(re.findall(r"^M  V30 .*\bRAD=1\b", block, re.MULTILINE))


def _split(path: Path) -> Iterator[bytes]:
    """Yield the records of an SDF file, also one that its last line does not end."""
    lines: list[bytes] = []
    try:
        with open_binary(path) as file:
            for line in file:
                lines.append(line)
                if line.rstrip() == _END:
                    yield b"".join(lines)
                    lines = []
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: expected an SDF or MOL file, got one that cannot be read ({error})") from error
    if b"".join(lines).strip():
        yield b"".join(lines)


def _as_written(Chem: Any, text: bytes) -> Any:
    """Return the atoms of a record that RDKit rejects, or no atoms if it cannot read them either."""
    from ase import Atoms

    with _quiet():
        mol = Chem.MolFromMolBlock(text.decode("utf-8", errors="replace"), sanitize=False, removeHs=False)
    if mol is None or not mol.GetNumConformers():
        return Atoms()
    return Atoms([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.array(mol.GetConformer().GetPositions()))


def read_smiles(path: Path, *, add_hydrogens: bool) -> Iterator[Record]:
    """Yield one conformer of each molecule of a SMILES file (a SMILES string first on each line, then its name).

    Embedded by ETKDGv3 (Wang et al., J. Chem. Inf. Model. 60, 2044 (2020)) with a fixed seed, not relaxed. A line that
    cannot be imported gives a record without atoms and with its problem.

    Raises
    ------
    DataError
        If hydrogens may not be added, or the file cannot be read.
    """
    from ase import Atoms

    Chem = _rdkit()
    from rdkit.Chem import rdDistGeom

    if not add_hydrogens:
        raise DataError(
            f"{path}: expected hydrogens to be added, got add_hydrogens=False; SMILES leave them out, and they are needed"
        )
    with open_text(path) as file:
        for number, line in enumerate(_lines(path, file), start=1):
            words = line.split()
            if not words or words[0].startswith("#") or (number == 1 and words[0].lower() == "smiles"):
                continue
            smiles, where = words[0], f"line {number}"
            with _quiet():
                mol = Chem.MolFromSmiles(smiles)
            if mol is None or not mol.GetNumAtoms() or "." in smiles:
                problem = f"expected the SMILES of one molecule, got {smiles!r}; correct or remove it"
                yield Record(Atoms(), where, problems=(problem,))
                continue
            full = Chem.AddHs(mol)
            parameters: Any = rdDistGeom.ETKDGv3()
            parameters.randomSeed = _SEED
            parameters.maxIterations = 50
            with _quiet():
                failed = rdDistGeom.EmbedMolecule(full, parameters) != 0
            if failed:
                problem = f"RDKit finds no 3D structure for {smiles!r}; remove the line"
                yield Record(Atoms(), where, problems=(problem,))
                continue
            data = {"smiles": smiles} | ({"name": " ".join(words[1:])} if words[1:] else {})
            hydrogens = full.GetNumAtoms() - mol.GetNumAtoms()
            yield Record(_to_atoms(full), where, more={"data": data}, hydrogens=hydrogens)


def _lines(path: Path, file: Any) -> Iterator[str]:
    try:
        yield from file
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: expected lines of SMILES, got a file that cannot be read ({error})") from error


def _to_atoms(mol: Any, n_paired: int = 0) -> Any:
    """Return a molecule with its formal charge, and the multiplicity of its radical electrons but those that are paired."""
    from ase import Atoms
    from rdkit.Chem import rdmolops

    unpaired = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()) - n_paired
    state = {"charge": rdmolops.GetFormalCharge(mol), "multiplicity": 1 + unpaired}
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    positions = np.array(mol.GetConformer().GetPositions()) if mol.GetNumConformers() else np.zeros((len(numbers), 3))
    return Atoms(numbers, positions, info=state)


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
