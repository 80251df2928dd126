"""Takes labels out of ASE frames and converts them: keys, units, virials and the sign of the stress. It guesses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError
from mlffstore.schema import LABELS
from mlffstore.units import convert, factor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

_COLUMNS = (*LABELS, "virial", "positions", "cell")
_KEYS = (*LABELS, "virial")
#: Parts of names under which other programs keep a label in a frame's `info` and `arrays`.
_HINTS = {"energy": ("energy",), "forces": ("force",), "stress": ("stress",), "virial": ("virial",)}


class LabelReader:
    """Reads and converts the labels of one frame after the other.

    Parameters
    ----------
    keys : mapping of str to str
        Label ("energy", "forces", "stress" or "virial") to the name that holds it in the calculator's results, in
        `atoms.info` or in `atoms.arrays`.
    units : mapping of str to str
        Column ("energy", "forces", "stress", "virial", "positions", "cell") to its unit in the file. The cell has the
        unit of the positions unless it is named too.
    stress_sign : {"tension", "compression"}
        What a positive normal stress means in the file.

    Raises
    ------
    DataError
        If a column or the sign is not one of these, or both stress and virial are given.
    UnitError
        If a unit is unknown or does not fit its column.
    """

    def __init__(self, keys: Mapping[str, str], units: Mapping[str, str], stress_sign: str) -> None:
        for option, given, known in (("keys", keys, _KEYS), ("units", units, _COLUMNS)):
            if set(given) - set(known):
                raise DataError(f"{option}: expected some of {', '.join(known)}, got {sorted(set(given) - set(known))}")
        if stress_sign not in ("tension", "compression"):
            raise DataError(f"stress_sign: expected 'tension' or 'compression', got {stress_sign!r}")
        if {"stress", "virial"} <= set(keys):
            raise DataError("keys: expected either stress or virial, got both; name the one to import")
        self.keys, self.units = dict(keys), dict(units)
        if "positions" in units:
            self.units.setdefault("cell", units["positions"])
        self.sign = 1.0 if stress_sign == "tension" else -1.0
        for column, unit in self.units.items():  # before the first file is opened
            factor("energy" if column == "virial" else column, unit)

    def convert_structure(self, atoms: Atoms) -> None:
        """Convert positions and cell in place."""
        if "positions" in self.units:
            atoms.positions = convert("positions", atoms.positions, self.units["positions"])
        if "cell" in self.units:
            atoms.cell[:] = convert("cell", atoms.cell.array, self.units["cell"])

    def read(self, atoms: Atoms) -> tuple[dict[str, Any], list[str]]:
        """Return the labels in the store's units, and what is wrong with them.

        Parameters
        ----------
        atoms : ase.Atoms
            With positions and cell in angstrom already.

        Notes
        -----
        A virial W (eV, a 3x3 matrix) becomes the stress ``-W / V``: W is the strain derivative of the energy with a
        minus sign, ``-dE/d(strain)``, as QUIP, MACE and NequIP define it. Programs that write it with the other sign need
        `stress_sign="compression"`.
        """
        results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
        problems: list[str] = []
        labels: dict[str, Any] = {}
        for name in LABELS:
            value = self._find(atoms, results, self.keys[name]) if name in self.keys else results.get(name)
            if value is None or (name == "stress" and "virial" in self.keys):
                continue
            array = self._numbers(value, self.keys.get(name, name), problems)
            if array is not None:
                labels[name] = convert(name, array, self.units.get(name, _native(name)))
        if "virial" in self.keys:
            self._read_virial(atoms, results, labels, problems)
        if "stress" in labels:
            if labels["stress"].size == 9:
                labels["stress"] = labels["stress"].reshape(3, 3)
            labels["stress"] = self.sign * labels["stress"]
        return labels, problems

    def _read_virial(
        self, atoms: Atoms, results: Mapping[str, Any], labels: dict[str, Any], problems: list[str]
    ) -> None:
        key = self.keys["virial"]
        value = self._find(atoms, results, key)
        if value is None:
            return
        virial = self._numbers(value, key, problems)
        if virial is None:
            return
        if virial.size != 9:
            # Programs disagree on the order of six numbers (Voigt or LAMMPS), so six are refused.
            problems.append(f"{key!r}: expected a virial of 3x3 numbers, got shape {virial.shape}; write all nine")
        elif not (atoms.pbc.all() and atoms.cell.rank == 3):
            problems.append(
                f"{key!r}: expected a sample that is periodic in three directions, since stress = -virial/V"
            )
        else:
            energy = convert("energy", virial.reshape(3, 3), self.units.get("virial", "eV"))
            labels["stress"] = -energy / atoms.get_volume()

    @staticmethod
    def _find(atoms: Atoms, results: Mapping[str, Any], key: str) -> Any:
        for place in (results, atoms.info, atoms.arrays):
            if key in place:
                return place[key]
        return None

    @staticmethod
    def _numbers(value: Any, key: str, problems: list[str]) -> Any:
        try:
            return np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            problems.append(f"{key!r}: expected numbers, got {str(value)[:40]!r}")
            return None

    def hints(self, atoms: Atoms) -> dict[str, str]:
        """Return names that look like labels and are not used, ``{"energy": "REF_energy"}``: for messages only."""
        results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
        used = set(self.keys.values()) | {"energy", "forces", "stress", "energies", "stresses"}
        found: dict[str, str] = {}
        for label, parts in _HINTS.items():
            places = (atoms.arrays,) if label == "forces" else (results, atoms.info)
            for name in (name for place in places for name in place if isinstance(name, str) and name not in used):
                if any(part in name.lower() for part in parts):
                    found.setdefault(label, name)
        return found


def missing_message(missing: Sequence[str], hints: Mapping[str, str]) -> str:
    """Say which labels a frame lacks and what to do about it."""
    usable = {k: v for k, v in hints.items() if k in missing or (k == "virial" and "stress" in missing)}
    what = f"expected {' and '.join(missing)} in its calculator results, got none"
    if usable:
        return f"{what}; it holds {', '.join(map(repr, usable.values()))}: pass keys={usable!r} if that is meant"
    return (
        f"{what}; name what holds them with keys={{'energy': ...}}, or import bare structures with require=() "
        "(--require none)"
    )


def _native(name: str) -> str:
    return LABELS[name].unit
