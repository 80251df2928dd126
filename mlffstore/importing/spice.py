"""Reads the HDF5 layout of SPICE (Eastman et al., Scientific Data 10, 11 (2023)): one group for each molecule.

Groups hold `conformations` (C, N, 3) and `atomic_numbers` (N,) or an atom-mapped `smiles`; optionally
`dft_total_energy` (C,) and `dft_total_gradient` (C, N, 3), of which the forces are the negative, and a charge or
multiplicity under a name in use. The published files are in bohr and hartree, but others of the same layout are not: a
data set's attribute `units` is believed first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.limits import MIN_DISTANCE
from mlffstore.data.units import convert
from mlffstore.errors import DataError, MlffstoreError, missing_dependency
from mlffstore.importing.conformations import Conformations
from mlffstore.importing.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import h5py

    from mlffstore.data.schema import Array
    from mlffstore.importing.account import Use
    from mlffstore.importing.properties import PropertyReader
    from mlffstore.importing.reading import Fates
    from mlffstore.importing.state import StateReader

_ENERGY, _GRADIENT = "dft_total_energy", "dft_total_gradient"
_KNOWN = ("conformations", "atomic_numbers", "smiles", _ENERGY, _GRADIENT)
_UNITS = {"nanometers": "nm", "nanometer": "nm", "angstroms": "angstrom"}
#: Kinds of values that can be a user column.
_PER_CONFORMATION, _PER_MOLECULE = "numbers per conformation", "a number per molecule"
#: Closest two atoms of any molecule, angstrom. With hydrogen the largest is H-I, 1.61; H-H, 0.74, is the least.
_CLOSEST = (MIN_DISTANCE, 1.75)


def read_spice(
    path: Path, state: StateReader, properties: PropertyReader, columns: Collection[str] = ()
) -> Iterator[Conformations]:
    """Yield the conformations of one molecule after the other, with their state, and labels in the store's units.

    Parameters
    ----------
    path : Path
    state : StateReader
        Reads charge and multiplicity where data sets hold them; the formal charge of a SMILES counts too.
    properties : PropertyReader
        Reads labels that the layout has no names for, from the data sets that were named.
    columns : collection of str, optional
        Data sets to hand over as user columns.

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
        for name in list(file) or ["nothing"]:
            try:
                group = file.get(name)
                if not isinstance(group, h5py.Group) or "conformations" not in group:
                    raise DataError(
                        f"{path}: expected the SPICE layout (every group has 'conformations' and 'atomic_numbers' or "
                        f"'smiles'), got {name!r}; other HDF5 layouts are not read: convert the file to extxyz or an "
                        "ASE database first"
                    )
                molecule = _Group(path, name, group).read(state, properties, columns)
            except MlffstoreError:
                raise
            except (OSError, KeyError, RuntimeError) as error:  # what h5py raises where a file is damaged
                raise DataError(
                    f"{path}, molecule {name!r}: expected data sets, got one that h5py cannot read ({error}); download "
                    "or write the file again"
                ) from error
            yield molecule


class _Group:
    """The group of one molecule.

    Parameters
    ----------
    path : Path
    name : str
    group : h5py.Group
    """

    def __init__(self, path: Path, name: str, group: h5py.Group) -> None:
        self._path, self._name, self._group = path, name, group
        self._keys = tuple(group)
        self._uses: list[Use] = []
        self._problems: list[str] = []

    def read(self, state: StateReader, properties: PropertyReader, columns: Collection[str]) -> Conformations:
        """Return what the group holds; `read_spice` documents the parameters."""
        numbers, formal_charge = self._composition()
        positions, unit = self._values("conformations", "positions", "bohr")
        if positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3) or not len(positions):
            raise self._error(f"expected conformations of shape (C, {len(numbers)}, 3), got {positions.shape}")
        self._check_lengths(numbers, positions[0], unit)
        labels: dict[str, Array] = {}
        label_uses: dict[str, Use] = {}
        if _ENERGY in self._keys:
            energy, unit = self._values(_ENERGY, "energy", "hartree")
            if energy.size != len(positions):
                raise self._error(f"expected {_ENERGY!r} of shape ({len(positions)},), got {energy.shape}")
            labels["energy"] = energy.reshape(-1)
            label_uses["energy"] = ("file", _ENERGY, "converted", "energy", f"from {unit}")
        if _GRADIENT in self._keys:
            gradient, unit = self._values(_GRADIENT, "forces", "hartree/bohr")
            if gradient.shape != positions.shape:
                raise self._error(f"expected {_GRADIENT!r} of shape {positions.shape}, got {gradient.shape}")
            labels["forces"] = np.negative(gradient, out=gradient)
            label_uses["forces"] = ("file", _GRADIENT, "converted", "forces", f"-gradient, from {unit}")
        for name, keys in properties.keys.items():
            key = next((one for one in keys if one in self._keys and hasattr(self._group[one], "dtype")), None)
            if key is None or key in columns:
                continue
            unit = self._group[key].attrs.get("units")
            stated = None if unit is None else unit.decode() if isinstance(unit, bytes) else str(unit)
            found = properties.of_conformations(name, key, self._group[key][...], len(numbers), stated, self._problems)
            if found is not None and len(found[0]) == len(positions):
                labels[name], label_uses[name] = found
            elif found is not None:
                self._problems.append(f"{key!r}: expected {len(positions)} conformations, got {len(found[0])}")
        charge, multiplicity = self._state(state, formal_charge)
        taken = self._columns(columns, len(positions), {use[1] for use in label_uses.values()})
        return Conformations(
            self._name,
            numbers,
            positions,
            labels=labels,
            charge=charge,
            multiplicity=multiplicity,
            columns=taken,
            label_uses=label_uses,
            uses=tuple(self._uses),
            problems=tuple(self._problems),
        )

    def _error(self, text: str) -> DataError:
        return DataError(f"{self._path}, molecule {self._name!r}: {text}")

    def _values(self, name: str, column: str, unit: str) -> tuple[Array, str]:
        """Return a data set as float64 in the store's unit, and the unit in the file."""
        dataset = self._group[name]
        stated = dataset.attrs.get("units", unit)
        stated = stated.decode() if isinstance(stated, bytes) else str(stated)
        values = dataset[...]
        if values.dtype.kind not in "iuf":
            raise self._error(f"expected numbers as {name!r}, got {values.dtype}")
        try:
            return convert(column, values.astype(np.float64), _UNITS.get(stated, stated)), stated
        except DataError as error:
            raise type(error)(f"{self._path}, molecule {self._name!r}, {name!r}: {error}") from error

    def _composition(self) -> tuple[Array, int | None]:
        """Return atomic numbers in the order of the conformations, and the charge of the SMILES if there is one.

        Atom map numbers of the SMILES, where it has them, say which row of the conformations an atom is (from 1).
        """
        numbers: Array | None = None
        if "atomic_numbers" in self._keys:
            numbers = np.asarray(self._group["atomic_numbers"][...])
            if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
                raise self._error(
                    f"expected atomic numbers of shape (N,), got {numbers.dtype} of shape {numbers.shape}"
                )
            numbers = numbers.astype(np.int64)
        if "smiles" not in self._keys:
            if numbers is None:
                raise self._error(f"expected 'atomic_numbers' or 'smiles', got {', '.join(self._keys)}")
            return numbers, None
        raw = np.asarray(self._group["smiles"][()]).reshape(-1)[0]
        smiles = raw.decode() if isinstance(raw, bytes) else str(raw)
        try:
            from rdkit import Chem
        except ImportError as error:
            raise missing_dependency("rdkit", "generators", "reading the SMILES of a SPICE file") from error
        mol = Chem.MolFromSmiles(smiles, sanitize=False)
        if mol is None:
            raise self._error(f"expected a SMILES string, got {smiles!r}")
        charge = Chem.GetFormalCharge(mol)
        self._uses.append(("file", "smiles", "left out", "", "text"))
        if numbers is not None:
            return numbers, charge
        atoms = list(mol.GetAtoms())
        order = np.array([atom.GetAtomMapNum() for atom in atoms])
        if sorted(order.tolist()) != list(range(1, len(order) + 1)):
            raise self._error(
                f"expected 'atomic_numbers', or a SMILES whose atoms are mapped 1 to {len(order)}, got {smiles!r}; "
                "without it the order of the atoms is unknown"
            )
        return np.array([atom.GetAtomicNum() for atom in atoms])[np.argsort(order)], charge

    def _state(self, state: StateReader, formal_charge: int | None) -> tuple[int | None, int | None]:
        """Return charge and multiplicity; the charge of the SMILES and that of a data set must not differ."""
        fields = [
            ("file", key, _single(self._group[key][()])) for key in self._keys if key not in _KNOWN and state.reads(key)
        ]
        reading = Reading()
        if fields:
            fates: Fates = {}
            state.read(fields, {name: (place, value) for place, name, value in fields}, reading, fates)
            self._problems += reading.problems
            self._uses += [(place, name, *fate) for (place, name), fate in fates.items()]
        charge = reading.charge
        if formal_charge is not None and state.takes_any("charge"):
            if charge is None:
                charge = formal_charge
                self._uses.append(("smiles", "formal charge", "renamed", "charge", ""))
            elif charge != formal_charge:
                self._problems.append(f"expected one charge, got {charge} and {formal_charge} of the SMILES")
        return charge, reading.multiplicity

    def _columns(self, columns: Collection[str], n: int, labels: Collection[str]) -> dict[str, Array]:
        """Return the data sets that were asked for, one row for each of n conformations, and name the others.

        `labels` are data sets that were taken as labels.
        """
        accounted = {name for _, name, *_ in self._uses} | set(labels)
        taken: dict[str, Array] = {}
        for key in self._keys:
            if key in _KNOWN or (key in accounted and key not in columns):
                continue
            kind = _kind(self._group[key], n)
            if key not in columns:
                self._uses.append(("file", key, "left out", "", kind))
            elif kind == _PER_CONFORMATION:
                taken[key] = self._group[key][...]
            elif kind == _PER_MOLECULE:
                taken[key] = np.repeat(np.asarray(self._group[key][...]).reshape(-1), n)
            else:
                self._problems.append(
                    f"{key!r}: expected {_PER_CONFORMATION} for a column, got {kind}; a column cannot hold it, so "
                    "leave it out"
                )
        return taken

    def _check_lengths(self, numbers: Array, positions: Array, unit: str) -> None:
        """Refuse lengths that no molecule with hydrogen has: a wrong unit, which would spoil everything unseen."""
        if len(numbers) < 2 or not (numbers == 1).any():
            return
        distances = np.linalg.norm(positions[:, None] - positions, axis=2)
        closest = float(distances[np.triu_indices(len(numbers), 1)].min())
        if not _CLOSEST[0] < closest < _CLOSEST[1]:
            is_stated = "units" in self._group["conformations"].attrs
            stated = f"units={unit!r}" if is_stated else "the attribute 'units' is absent, so bohr was taken"
            raise self._error(
                f"expected the closest atoms {_CLOSEST[0]} to {_CLOSEST[1]} angstrom apart, got {closest:.3f}; {stated}: "
                "correct the attribute 'units' of 'conformations'"
            )


def _single(value: Any) -> Any:
    """Return the value of which an array holds copies, or what was given."""
    array = np.asarray(value)
    return array.flat[0] if array.size and (array == array.flat[0]).all() else value


def _kind(item: Any, n: int) -> str:
    """Return what kind of value a data set of a molecule with n conformations is, in words."""
    if not hasattr(item, "dtype"):
        return "a group"
    if item.dtype.kind not in "biuf":
        return "text" if item.dtype.kind in "OSU" else f"values of type {item.dtype}"
    if item.shape[:1] == (n,):
        return _PER_CONFORMATION
    return _PER_MOLECULE if item.size == 1 else "values per molecule"
