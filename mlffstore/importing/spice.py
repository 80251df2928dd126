"""Reads the HDF5 layout of SPICE (Eastman et al., Scientific Data 10, 11 (2023)): a group a molecule, conformations stacked.

Groups hold `conformations` (C, N, 3) and `atomic_numbers` (N,) or an atom-mapped `smiles`; optionally
`dft_total_energy` (C,) and `dft_total_gradient` (C, N, 3), of which the forces are the negative. The published files
are in bohr and hartree, but others of the same layout are not: a data set's attribute `units` is believed first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.limits import MIN_DISTANCE
from mlffstore.data.units import convert
from mlffstore.errors import DataError, missing_dependency
from mlffstore.importing.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import h5py

_KNOWN = ("conformations", "atomic_numbers", "smiles", "dft_total_energy", "dft_total_gradient")
_UNITS = {"nanometers": "nm", "nanometer": "nm", "angstroms": "angstrom", "hartree/bohr": "hartree/bohr"}
#: Closest two atoms of any molecule, angstrom. With hydrogen the largest is H-I, 1.61; H-H, 0.74, is the least.
_CLOSEST = (MIN_DISTANCE, 1.75)


def read_spice(path: Path) -> Iterator[Record]:
    """Yield every conformation of every molecule, with charge, and labels in eV and eV/angstrom where there are any.

    Raises
    ------
    DataError
        If the file is no HDF5, has another layout, or its lengths cannot be in the unit that it names.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: expected an HDF5 file, got something h5py cannot open ({error})") from error
    with file:
        groups = [name for name, item in file.items() if isinstance(item, h5py.Group) and "conformations" in item]
        if not groups or len(groups) != len(file):
            odd = next((name for name in file if name not in groups), "nothing")
            raise DataError(
                f"{path}: expected the SPICE layout (every group has 'conformations' and 'atomic_numbers' or 'smiles'), "
                f"got {odd!r}; other HDF5 layouts are not read: convert the file to extxyz or an ASE database first"
            )
        for name in groups:
            yield from _molecule(path, name, file[name])


def _molecule(path: Path, name: str, group: h5py.Group) -> Iterator[Record]:
    from ase import Atoms

    where = f"molecule {name!r}"
    numbers, charge = _composition(path, where, group)
    shape = group["conformations"].shape
    if len(shape) != 3 or shape[1:] != (len(numbers), 3):
        raise DataError(f"{path}, {where}: expected conformations of shape (C, {len(numbers)}, 3), got {shape}")
    positions = _read(path, where, group, "conformations", "positions", "bohr")
    _check_lengths(path, where, numbers, positions[0], group["conformations"].attrs.get("units"))
    left_out = {
        key: "numbers per conformation" if group[key].shape[:1] == positions.shape[:1] else "a value per molecule"
        for key in group
        if key not in _KNOWN
    }
    energy = _read(path, where, group, "dft_total_energy", "energy", "hartree")
    gradient = _read(path, where, group, "dft_total_gradient", "forces", "hartree/bohr")
    for i, x in enumerate(positions):
        labels: dict[str, Any] = {}
        if energy is not None:
            labels["energy"] = energy[i]
        if gradient is not None:
            labels["forces"] = -gradient[i]
        atoms = Atoms(numbers=numbers, positions=x)
        yield Record(atoms, f"{where}, conformation {i}", labels, charge=charge, molecule=name, left_out=left_out)


def _read(path: Path, where: str, group: h5py.Group, name: str, column: str, unit: str) -> Any:
    """Return a data set as float64 in the store's unit, or None if it is not there."""
    if name not in group:
        return None
    stated = group[name].attrs.get("units", unit)
    stated = stated.decode() if isinstance(stated, bytes) else str(stated)
    try:
        return convert(column, group[name][:].astype(np.float64), _UNITS.get(stated, stated))
    except DataError as error:
        raise type(error)(f"{path}, {where}, {name!r}: {error}") from error


def _composition(path: Path, where: str, group: h5py.Group) -> tuple[Any, int]:
    """Return atomic numbers in the order of the conformations, and the charge.

    Atom map numbers of the SMILES, where it has them, say which row of the conformations an atom is (from 1).
    """
    smiles = None
    if "smiles" in group:
        raw = np.asarray(group["smiles"][()]).reshape(-1)[0]
        smiles = raw.decode() if isinstance(raw, bytes) else str(raw)
    if smiles is None:
        if "atomic_numbers" not in group:
            raise DataError(f"{path}, {where}: expected 'atomic_numbers' or 'smiles', got {', '.join(group)}")
        return np.asarray(group["atomic_numbers"][:], dtype=np.int64), 0
    try:
        from rdkit import Chem
    except ImportError as error:
        raise missing_dependency("rdkit", "generators", "reading the SMILES of a SPICE file") from error
    mol = Chem.MolFromSmiles(smiles, sanitize=False)
    if mol is None:
        raise DataError(f"{path}, {where}: expected a SMILES string, got {smiles!r}")
    charge = Chem.GetFormalCharge(mol)
    if "atomic_numbers" in group:
        return np.asarray(group["atomic_numbers"][:], dtype=np.int64), charge
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    order = np.array([atom.GetAtomMapNum() for atom in mol.GetAtoms()])
    if sorted(order.tolist()) != list(range(1, len(order) + 1)):
        raise DataError(
            f"{path}, {where}: expected 'atomic_numbers', or a SMILES whose atoms are mapped 1 to {len(order)}, got "
            f"{smiles!r}; without it the order of the atoms is unknown"
        )
    return numbers[np.argsort(order)], charge


def _check_lengths(path: Path, where: str, numbers: Any, positions: Any, unit: Any) -> None:
    """Refuse lengths that no molecule with hydrogen has: a wrong unit, which would spoil everything unseen."""
    if len(numbers) < 2 or not (numbers == 1).any():
        return
    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    closest = float(distances[np.triu_indices(len(numbers), 1)].min())
    if not _CLOSEST[0] < closest < _CLOSEST[1]:
        stated = "the attribute 'units' is absent, so bohr was taken" if unit is None else f"units={unit!r}"
        raise DataError(
            f"{path}, {where}: expected the closest atoms {_CLOSEST[0]} to {_CLOSEST[1]} angstrom apart, got "
            f"{closest:.3f}; {stated}: correct the attribute 'units' of 'conformations'"
        )
