"""Takes labels out of the records of a file and converts them. It guesses nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.schema import LABELS
from mlffstore.data.units import convert, factor
from mlffstore.data.voigt import symmetric
from mlffstore.errors import DataError
from mlffstore.importing.account import describe
from mlffstore.importing.properties import PropertyReader, other_properties
from mlffstore.importing.reading import Reading
from mlffstore.importing.spelling import label_of, unit_for
from mlffstore.importing.state import STATE_KEYS, StateReader
from mlffstore.importing.stated import StatedUnits
from mlffstore.importing.values import numbers, shaped, voigt

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ase import Atoms

    from mlffstore.importing.account import Account, Use
    from mlffstore.importing.reading import Fates
    from mlffstore.importing.record import Record
    from mlffstore.importing.wording import Wording

#: What a value may be of, beside the labels of the store.
_COLUMNS = (*LABELS, "virial", "positions", "cell")
_LABEL_KEYS = (*LABELS, "virial")
#: Parts of the structure that can be named in tables and npz files.
STRUCTURE_KEYS = ("numbers", "positions", "cell", "pbc")
#: Energies that differ by less, eV, are the same: programs print 6 to 8 decimals of a hartree.
_SAME_ENERGY = 1e-6


class LabelReader:
    """Reads and converts the labels of one record after the other.

    Parameters
    ----------
    keys : mapping of str to str, sequence of str, or None
        Label ("energy", "forces", "stress", "virial", any other property), "charge" or "multiplicity" to the name that
        holds it, or to several names of which the first that a frame has counts. None for charge or multiplicity: whatever
        the file says of it is not used.
    units : mapping of str to str
        Column ("energy", "forces", "stress", "virial", "positions", "cell", any other property) to its unit in the file.
        The cell has the unit of the positions unless it is named too.
    stress_sign : {"tension", "compression"}
        What a positive normal stress means in the file.
    spin : {"multiplicity", "unpaired"}
        What a value under a name with "spin" means: 2S+1 or 2S.
    wording : Wording
        Of options in messages.
    assumed : collection of str, optional
        Labels of `keys` that files may lack, since a preset names them.

    Raises
    ------
    DataError
        If a column, the sign or the meaning of spin is not one of these, or both stress and virial are given.
    UnitError
        If a unit is unknown or does not fit its column.
    """

    def __init__(
        self,
        keys: Mapping[str, str | Sequence[str] | None],
        units: Mapping[str, str],
        stress_sign: str,
        spin: str,
        wording: Wording,
        assumed: Collection[str] = (),
    ) -> None:
        others = other_properties()
        known = {"keys": (*_LABEL_KEYS, *STATE_KEYS, *others, *STRUCTURE_KEYS), "units": (*_COLUMNS, *others)}
        for option, given in (("keys", set(keys)), ("units", set(units))):
            if given - set(known[option]):
                raise DataError(
                    f"{wording.name(option)}: expected some of {', '.join(known[option])}, got "
                    f"{', '.join(sorted(given - set(known[option])))}"
                )
        if stress_sign not in ("tension", "compression"):
            raise DataError(f"{wording.name('stress_sign')}: expected 'tension' or 'compression', got {stress_sign!r}")
        if spin not in ("multiplicity", "unpaired"):
            raise DataError(f"{wording.name('spin')}: expected 'multiplicity' or 'unpaired', got {spin!r}")
        if {"stress", "virial"} <= set(keys):
            raise DataError(
                f"{wording.name('keys')}: expected either stress or virial, got both; name the one to import"
            )
        self.keys = {label: _names(label, names, wording) for label, names in keys.items()}
        self.wording, self._assumed = wording, frozenset(assumed)
        self.units = dict(units)
        if "positions" in units:
            self.units.setdefault("cell", units["positions"])
        self.sign = 1.0 if stress_sign == "tension" else -1.0
        for column, unit in self.units.items():  # before the first file is opened
            factor("energy" if column == "virial" else column, unit)
        self.stated = StatedUnits(self.units, wording)
        self.state = StateReader(self.keys, spin, wording)
        self.properties = PropertyReader(self.keys, self.units, self.stated)
        self._met: Counter[str] = Counter()
        #: Largest difference, eV, of a free energy that was left out from the energy that was taken, since `remarks`.
        self._free_energy_gap = 0.0

    def convert_structure(self, record: Record) -> None:
        """Convert positions and cell in place."""
        atoms = record.atoms
        if "positions" in self.units:
            atoms.positions = convert("positions", atoms.positions, self.units["positions"])
        if "cell" in self.units:
            atoms.cell[:] = convert("cell", atoms.cell.array, self.units["cell"])

    def check_keys(self) -> None:
        """Raise if a key was named and no sample of the files had it.

        Raises
        ------
        DataError
        """
        for label, names in self.keys.items():
            met = any(self._met[name] + self.state.met[name] + self.properties.met[name] for name in names)
            if label not in (*self._assumed, *STRUCTURE_KEYS) and names and not met:
                raise DataError(
                    f"{self.wording.name('keys')}: expected {' or '.join(map(repr, names))} to hold the {label} of a "
                    "sample, got files in which no sample has it; correct the name, or leave the option out"
                )

    def absorb(self, other: LabelReader) -> None:
        """Count what another reader with the same options met, perhaps in another process."""
        self._met += other._met
        self.state.met += other.state.met
        self.properties.met += other.properties.met
        self._free_energy_gap = max(self._free_energy_gap, other._free_energy_gap)

    def remarks(self) -> list[str]:
        """Return what a person should know of the samples read since the last call."""
        gap, self._free_energy_gap = self._free_energy_gap, 0.0
        if not gap:
            return []
        return [
            f"the files hold 'energy' and 'free_energy', which differ by up to {gap:.3g} eV; 'energy' was taken. Where "
            "electrons are smeared the forces are the derivative of the free energy; "
            f"{self.wording.option('keys', {'energy': 'free_energy'})} takes that one"
        ]

    def read(self, record: Record, account: Account, columns: Collection[str] = ()) -> Reading:
        """Return what a record holds, in the store's units, and note what became of each of its keys.

        Parameters
        ----------
        record : Record
            With positions and cell in angstrom already.
        account : Account
        columns : collection of str, optional
            Keys that become user columns, of which nothing is noted here.

        Notes
        -----
        A virial W (eV, a 3x3 matrix) becomes the stress ``-W / V``: W is the strain derivative of the energy with a
        minus sign, ``-dE/d(strain)``, as QUIP, MACE and NequIP define it. Programs that write it with the other sign need
        `stress_sign="compression"`.
        """
        reading = Reading()
        fields = list(record.fields())
        # Of equal names in several places the first counts, as in `Record.find`.
        places: dict[str, tuple[str, Any]] = {}
        for place, name, value in fields:
            places.setdefault(name, (place, value))
        fates: Fates = {}
        for label in _LABEL_KEYS:
            self._read_label(label, record, places, reading, fates)
        if "stress" in reading.labels:
            reading.labels["stress"] = self.sign * reading.labels["stress"]
        self.state.read(fields, places, reading, fates)
        n_atoms = len(record.atoms)
        self.properties.read(places, record.stated_units, n_atoms, columns, reading, fates)
        for place, name, value in fields:
            if (place, name) in fates or name in columns:
                continue
            note = None
            if unit_for(name) is not None:
                note = self.stated.obey(name, value, reading.labels, reading.problems)
            if note is not None:
                fates[place, name] = ("obeyed", "", note)
                continue
            note = self._rival(name, value, reading, record.atoms) or describe(value, n_atoms)
            fates[place, name] = ("left out", "", note)
        uses = [(place, name, *fate) for (place, name), fate in fates.items()]
        rest: list[Use] = [(place, name, "left out", "", kind) for place, name, kind in record.remainder()]
        account.add_all((*uses, *rest))
        return reading

    # -- labels --------------------------------------------------------------------------------------------------

    def _read_label(
        self,
        label: str,
        record: Record,
        places: Mapping[str, tuple[str, Any]],
        reading: Reading,
        fates: Fates,
    ) -> None:
        """Look for one label: under the names that were given, else among the results that ASE attached."""
        names = self.keys.get(label)
        if names is None and (label == "virial" or (label == "stress" and "virial" in self.keys)):
            return
        for name in names or (label,):
            if name in places and (names or places[name][0] == "results"):
                break
        else:
            return
        self._met[name] += 1
        place, value = places[name]
        column = "stress" if label == "virial" else label
        reading.failed.add(column)
        array = numbers(value)
        if array is None:
            reading.problems.append(f"{name!r}: expected numbers, got {str(value)[:40]!r}")
            return
        if not array.size or np.isnan(array).all():  # some readers fill in what a file lacks
            reading.failed.discard(column)
            return
        fitting = shaped(label, array, len(record.atoms))
        if fitting is None:
            # Programs disagree on the order of six numbers of a virial (Voigt or LAMMPS), so six are refused.
            wanted = {"energy": "one number", "forces": f"({len(record.atoms)}, 3)", "stress": "(6,) or (3, 3)"}
            also = "; write all nine" if label == "virial" else ""
            reading.problems.append(
                f"{name!r}: expected {label} of shape {wanted.get(label, '(3, 3)')}, got {array.shape}{also}"
            )
            return
        problem = self.stated.problem(label, record.stated_units.get(name))
        if problem:
            reading.problems.append(f"{name!r}: {problem}")
        if label != "forces" and np.shape(fitting) == (3, 3):
            try:
                fitting = symmetric(fitting, repr(name))
            except ValueError as error:
                reading.problems.append(str(error))
                return
        unit = self.units.get(label, "eV" if label == "virial" else LABELS[column].unit)
        if label == "virial":
            atoms = record.atoms
            if not (atoms.pbc.all() and atoms.cell.rank == 3):
                reading.problems.append(
                    f"{name!r}: expected a sample that is periodic in three directions, since stress = -virial/V"
                )
                return
            reading.labels["stress"] = -convert("energy", fitting, unit) / atoms.get_volume()
        else:
            reading.labels[label] = convert(label, fitting, unit)
        scale = factor("energy" if label == "virial" else label, unit)
        changed = label == "virial" or scale != 1.0 or (label == "stress" and self.sign < 0)
        fates[place, name] = (
            "converted" if changed else "kept" if name == label else "renamed",
            column,
            ("-virial/V, " if label == "virial" else "") + (f"from {unit}" if scale != 1.0 else ""),
        )

    def _rival(self, name: str, value: Any, reading: Reading, atoms: Atoms) -> str | None:
        """Return that a key repeats what was taken; note a problem if it holds other values of a label nobody named."""
        label = label_of(name)
        if name == "free_energy":
            energy, free = reading.labels.get("energy"), numbers(value)
            if "energy" in self.keys or energy is None or free is None or free.size != 1:
                return None
            gap = abs(float(convert("energy", free, self.units.get("energy", "eV")).reshape(-1)[0]) - float(energy))
            if gap <= _SAME_ENERGY:
                return "same as energy"
            if np.isfinite(gap):
                self._free_energy_gap = max(self._free_energy_gap, gap)
            return None
        if label is None or (label == "stress" and "virial" in self.keys):
            return None
        named = label in self.keys
        if named and (label in reading.labels or label in reading.failed or label == "virial"):
            return None
        array = numbers(value)
        fitting = None if array is None or np.isnan(array).all() else shaped(label, array, len(atoms))
        if fitting is None:
            return None
        if label == "virial":
            if "stress" not in reading.labels:
                reading.hints.setdefault(label, name)
                return None
            if "stress" in self.keys or not (atoms.pbc.all() and atoms.cell.rank == 3):
                return None
            stress = -convert("energy", fitting, self.units.get(label, "eV")) / atoms.get_volume()
            ours = voigt(reading.labels["stress"])
            if any(np.allclose(sign * voigt(stress), ours, rtol=1e-4, atol=1e-6) for sign in (1, -1)):
                return "same as stress, as a virial"
            reading.problems.append(
                f"{name!r} and 'stress' differ (as -virial/volume); say which one the labels are: "
                f"{self.wording.option('keys', {'virial': name})} or {self.wording.option('keys', {'stress': 'stress'})}"
            )
            return None
        taken = reading.labels.get(label)
        if taken is None:
            reading.hints.setdefault(label, name)
            return None
        other = convert(label, fitting, self.units.get(label, LABELS[label].unit))
        other, taken = (self.sign * voigt(other), voigt(taken)) if label == "stress" else (other, taken)
        if np.allclose(other, taken, rtol=1e-6, atol=1e-6, equal_nan=True):
            return f"same as {label}"
        reading.problems.append(
            f"{name!r} and {label!r} both look like the {label} and differ; say which one the labels are: "
            f"{self.wording.option('keys', {label: name})} or {self.wording.option('keys', {label: label})}"
        )
        return None


def _names(label: str, names: str | Sequence[str] | None, wording: Wording) -> tuple[str, ...]:
    if names is None:
        if label in STATE_KEYS:
            return ()
        raise DataError(f"{wording.name('keys')}: expected a name for {label}, got none")
    given = (names,) if isinstance(names, str) else tuple(names)
    if not given or not all(isinstance(name, str) and name for name in given):
        raise DataError(f"{wording.name('keys')}: expected a name for {label}, or several in order, got {names!r}")
    return given
