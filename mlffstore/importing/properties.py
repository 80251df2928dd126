"""`PropertyReader`: labels beside energy, forces and stress, of records and of arrays of conformations.

Results that ASE attaches (charges, dipole, magmoms, energies) are kept by themselves, since ASE defines what they are and in
which unit. Everything else has to be named.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ase import IN_RESULTS
from mlffstore.data.properties import known_properties, property_of
from mlffstore.data.schema import LABELS
from mlffstore.data.units import convert, factor
from mlffstore.data.voigt import symmetric
from mlffstore.importing.values import numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mlffstore.data.properties import Property
    from mlffstore.importing.account import Fate, Use
    from mlffstore.importing.reading import Fates, Reading
    from mlffstore.importing.stated import StatedUnits

#: Results of ASE calculators that are kept without being named: property -> ASE's name.
RESULTS = {name: ase_name for name, ase_name in IN_RESULTS.items() if name not in LABELS}


def other_properties() -> tuple[str, ...]:
    """Return the names of the properties that are built in or registered, beside energy, forces and stress."""
    return tuple(name for name in known_properties() if name not in LABELS)


class PropertyReader:
    """Reads and converts properties.

    Parameters
    ----------
    keys : mapping of str to tuple of str
        Property to the names that hold it; other keys are not looked at.
    units : mapping of str to str
        Property to its unit in the file, where it is another one than that of the property.
    stated : StatedUnits
        Compares them with units that the file states.
    """

    def __init__(self, keys: Mapping[str, tuple[str, ...]], units: Mapping[str, str], stated: StatedUnits) -> None:
        self.keys = {name: names for name, names in keys.items() if name in other_properties()}
        self._units, self._stated = units, stated
        #: How many samples had each of the names that were given.
        self.met: Counter[str] = Counter()

    def read(
        self,
        places: Mapping[str, tuple[str, Any]],
        stated: Mapping[str, str],
        n_atoms: int,
        columns: Collection[str],
        reading: Reading,
        fates: Fates,
    ) -> None:
        """Read the properties of one record.

        Parameters
        ----------
        places : mapping of str to (str, value)
            Name -> its place in the record, and its value.
        stated : mapping of str to str
            Units that the file states, by name.
        n_atoms : int
        columns : collection of str
            Names that become user columns.
        reading, fates
            Labels and problems, and what became of the names, are added.
        """
        for name in dict.fromkeys((*self.keys, *RESULTS)):
            given = self.keys.get(name)
            key = next((one for one in given or (RESULTS[name],) if one in places), None)
            if key is None or key in columns:
                continue
            place, value = places[key]
            if given is None and place != "results":
                continue
            self.met[key] += 1
            array = numbers(value)
            if array is not None and (
                not array.size or np.isnan(array).all()
            ):  # some readers fill in what a file lacks
                continue
            spec = property_of(name)
            try:
                fitting = None if array is None else _shaped(array, spec, n_atoms)
            except ValueError as error:
                reading.problems.append(f"{key!r}: {error}")
                continue
            if fitting is None:
                if given is None:  # left out, and named as such
                    continue
                reading.failed.add(name)
                got = f"{str(value)[:40]!r}" if array is None else f"shape {array.shape}"
                reading.problems.append(f"{key!r}: expected {name} of shape {_wanted(spec, n_atoms)}, got {got}")
                continue
            problem = self._stated.problem(name, stated.get(key))
            if problem:
                reading.problems.append(f"{key!r}: {problem}")
                continue
            unit = self._units.get(name, spec.unit)
            reading.labels[name] = convert(name, fitting, unit)
            fates[place, key] = _fate(name, key, unit)

    def of_conformations(
        self, name: str, key: str, values: Any, n_atoms: int, stated: str | None, problems: list[str]
    ) -> tuple[Any, Use] | None:
        """Return a property of C conformations of a molecule, shape (C, ...) or (C, N, ...), and what became of its key.

        Parameters
        ----------
        name : str
            The property.
        key : str
            Its name in the file.
        values : ndarray, shape (C, ...)
        n_atoms : int
        stated : str or None
            The unit that the file states.
        problems : list of str
            What is wrong is added here, and then None is returned.
        """
        spec = property_of(name)
        self.met[key] += 1
        array = numbers(values)
        try:
            rows = [] if array is None or not array.ndim else [_shaped(one, spec, n_atoms) for one in array]
        except ValueError as error:
            problems.append(f"{key!r}: {error}")
            return None
        if not rows or any(row is None for row in rows):
            problems.append(
                f"{key!r}: expected {name} of shape {_wanted(spec, n_atoms)} for each conformation, got another"
            )
            return None
        problem = self._stated.problem(name, stated)
        if problem:
            problems.append(f"{key!r}: {problem}")
            return None
        unit = self._units.get(name, spec.unit)
        return convert(name, np.stack(rows), unit), ("file", key, *_fate(name, key, unit))


def _fate(name: str, key: str, unit: str) -> tuple[Fate, str, str]:
    """Return what became of a key that holds a property."""
    if factor(name, unit) != 1:
        return "converted", name, f"from {unit}"
    return ("kept" if key == name else "renamed"), name, f"in {unit}"


def _shaped(array: Any, spec: Property, n_atoms: int) -> Any:
    """Return a property of one sample in its shape, or None if the shape is another.

    Raises
    ------
    ValueError
        If a matrix has to be symmetric and is not.
    """
    from ase.stress import full_3x3_to_voigt_6_stress

    if spec.shape == ("voigt",) and array.shape[-1:] == (9,):
        array = array.reshape(*array.shape[:-1], 3, 3)
    if spec.shape[-1:] == ("voigt",) and array.shape[-2:] == (3, 3):
        array = full_3x3_to_voigt_6_stress(symmetric(array, spec.name))
    rows = (n_atoms,) if spec.axis == "atom" else ()
    sizes = spec.sizes
    if spec.axis == "sample" and not sizes:
        return array.reshape(()) if array.size == 1 else None
    wanted = [*rows, *(size if size is not None else -1 for size in sizes)]
    if array.shape == (1, *wanted):
        array = array[0]
    elif spec.is_open and array.ndim == len(wanted):
        pass
    elif not spec.is_open and array.shape != tuple(wanted) and array.size == np.prod(wanted):
        flat_atoms = spec.axis == "atom" and array.shape[:1] == rows  # rows of matrices are written flat in text files
        if not (flat_atoms or (spec.axis == "sample" and array.ndim == 1)):
            return None
        array = array.reshape(wanted)
    fits = array.shape[: len(rows)] == rows and spec.fits(array.shape[len(rows) :])
    return array if fits else None


def _wanted(spec: Property, n_atoms: int) -> str:
    rows = (str(n_atoms),) if spec.axis == "atom" else ()
    inner = (str(spec.shape[i] if size is None else size) for i, size in enumerate(spec.sizes))
    return f"({', '.join((*rows, *inner))})" if rows or spec.sizes else "one number"
