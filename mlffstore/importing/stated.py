"""`StatedUnits`: units that a file states, against those in which it is read."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.properties import property_of
from mlffstore.data.units import factor, is_known, spellings
from mlffstore.errors import DataError
from mlffstore.importing.spelling import same_unit, unit_for
from mlffstore.importing.values import FieldText, as_text
from mlffstore.importing.wording import Interface, Wording

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class StatedUnits:
    """Compares units that a file states with those in which it is read.

    Parameters
    ----------
    units : mapping of str to str
        Column to its unit, where the caller gave one; else the unit of the store counts.
    wording : Wording
    """

    def __init__(self, units: Mapping[str, str], wording: Wording) -> None:
        self._units, self._wording = units, wording

    def obey(self, name: str, value: Any, read: Collection[str], problems: list[str]) -> str | None:
        """Return that a unit stated in the file agrees with how it is read, or note the problem; None if it is no unit.

        Parameters
        ----------
        name : str
            Key of the file.
        value : object
        read : collection of str
            Labels of the sample, of which a unit of everything may speak.
        problems : list of str
            To add to.
        """
        column = unit_for(name)
        if (
            column is None
            or not isinstance(value, str)
            or (isinstance(value, FieldText) and value.number() is not None)
        ):
            return None
        if column == "all":
            plain = value.strip().lower()
            given = {*self._units, *(("stress",) if "virial" in self._units else ())}
            silent = [label for label in read or ("positions",) if label not in given]
            if plain in ("ev", "ase", "metal", "ev/angstrom", "ev, angstrom", "ev-angstrom") or not silent:
                return value
            problem: str | None = (
                f"the file states {value!r} as its units; say which ones these are with "
                f"{self._wording.option('units', dict.fromkeys(silent, 'UNIT'))}, also if they are eV and angstrom"
            )
        else:
            problem = self.problem(column, value)
        if problem:
            problems.append(f"{name!r}: {problem}")
        return value

    def unit(self, column: str, stated: Any, usual: str, where: str) -> str:
        """Return the unit in which a column of a table is read: as given, else as the file states, else the usual one.

        Raises
        ------
        DataError
            If the file states another unit than the one that was given, or one that is not known.
        """
        given = self._units.get(column)
        text = "" if stated is None else as_text(stated).strip()
        if not text:
            return given or usual
        unit = _known_unit(column, text)
        if given is None and unit is not None:
            return unit
        if problem := self.problem(column, text):
            raise DataError(f"{where}: {problem}")
        return given or usual

    def problem(self, column: str, stated: str | None) -> str | None:
        """Return what is wrong with a unit that the file states for a column, or None."""
        if stated is None:
            return None
        return _unit_problem(column, stated, self._units.get(column), self._wording.interface)


def _known_unit(column: str, stated: str) -> str | None:
    """Return a unit that a file states as `mlffstore.data.units` spells it, None if it is not known."""
    dimension = "energy" if column == "virial" else column
    return same_unit(stated, spellings(dimension)) or (stated if is_known(dimension, stated) else None)


@functools.lru_cache(maxsize=1024)
def _unit_problem(column: str, stated: str, given: str | None, interface: Interface) -> str | None:
    wording = Wording(interface)
    dimension = "energy" if column == "virial" else column
    native = "eV" if column == "virial" else {"positions": "angstrom", "cell": "angstrom"}.get(column)
    native = native or property_of(column).unit
    unit = _known_unit(column, stated)
    if unit is None:
        if given is not None:
            return None
        known = ", ".join(spellings(dimension))
        return (
            f"the file states the unit {stated!r} of the {column}, which is none of {known}; if it is one "
            f"of them under another name, say so with {wording.option('units', {column: 'UNIT'})}, else convert the values"
        )
    if np.isclose(factor(dimension, unit), factor(dimension, given or native), rtol=1e-9):
        return None
    if given is not None:
        option = wording.option("units", {column: given})
        return f"the file states the unit {stated!r} of the {column}, but {option} was given"
    return f"the file states the unit {stated!r} of the {column}: pass {wording.option('units', {column: unit})}"
