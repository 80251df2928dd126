"""Reads the HDF5 that MACE prepares (mace/tools/...; `mace_prepare_data`): groups config_batch_*, in them config_*.

Energies are eV, forces eV/angstrom, stress eV/angstrom^3 (tension positive, as ASE), lengths angstrom, charges e. The files
do not say the unit of dipoles, and MACE's models disagree: Debye in `compute_fixed_charge_dipole`, e*angstrom in the one
for polarizabilities. A dipole counts where the file says its unit, as an export of this library does; elsewhere it has to
be named.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.units import convert
from mlffstore.importing.packed import reading
from mlffstore.importing.record import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

#: Labels under the names of MACE -> results of ASE.
_RESULTS = {
    "energy": "energy", "forces": "forces", "stress": "stress", "charges": "charges", "magmoms": "magmoms",
    "atomic_energies": "energies",
}  # fmt: skip
_DIPOLE_UNITS = "dipole_units"
_NO_UNIT = "dipoles are left out, since the file does not say their unit; name them, and their unit, if they are meant"
#: Attributes of a file of this library's export.
_ORIGIN = {"root", "source", "source_meanings", "sampler", "sampler_meanings"}
_STRUCTURE = ("atomic_numbers", "positions", "cell", "pbc", "properties", "property_weights")


def read_mace(path: Path, *, takes_dipole: bool = False) -> Iterator[Record]:
    """Yield the configurations of a file in the order of their numbers.

    Parameters
    ----------
    path : Path
    takes_dipole : bool, optional
        Whether the caller named what holds dipoles; else a warning says that they are left out.

    Raises
    ------
    DataError
        If the file is damaged or has another layout.
    """
    import h5py

    name = ""
    with reading("a configuration of MACE", lambda: f"{path}, {name!r}"), h5py.File(path, "r") as file:
        batches = sorted((key for key in file if key.startswith("config_batch_")), key=_number)
        names = ((batch, key) for batch in batches for key in sorted(file[batch], key=_number))
        origins, about, dipole_unit = _origins(file.attrs), set(file.attrs), file.attrs.get(_DIPOLE_UNITS)
        for at, (batch, key) in enumerate(names):
            name = f"{batch}/{key}"
            origin = {column: values[at] for column, values in origins.items()}
            record = _record(file[batch][key], name, dipole_unit, about, origin)
            if "dipole" in record.more["file"] and not takes_dipole:
                record.warnings = (_NO_UNIT,)
            yield record


def _number(name: str) -> int:
    found = re.search(r"(\d+)$", name)
    return int(found[1]) if found else -1


def _origins(about: Any) -> dict[str, list[str]]:
    """Return root, source and sampler of all configurations of an export of this library, whose attributes have them."""
    if not set(about) >= _ORIGIN:
        return {}
    out = {"root": [f"{root:016x}" for root in about["root"].tolist()]}
    for name in ("source", "sampler"):
        words = json.loads(about[f"{name}_meanings"])
        out[name] = [words[code] for code in about[name].tolist()]
    return out


def _record(
    group: Any, where: str, dipole_unit: str | None, about: Collection[str], origin: Mapping[str, str]
) -> Record:
    """Return a configuration; `about` are the names of the attributes of its file."""
    from ase import Atoms

    from mlffstore.importing.frames import Results

    atoms = Atoms(
        numbers=group["atomic_numbers"][()], positions=group["positions"][()], cell=_given(group, "cell"),
        pbc=_given(group, "pbc"),
    )  # fmt: skip
    properties = group.get("properties", group)
    given = {name: _given(properties, name) for name in properties if hasattr(properties[name], "dtype")}
    given = {name: value for name, value in given.items() if value is not None and name not in _STRUCTURE}
    results = {_RESULTS[name]: given.pop(name) for name in list(given) if name in _RESULTS}
    ours = bool(origin)
    if dipole_unit is not None and "dipole" in given:
        results["dipole"] = convert("dipole", np.asarray(given.pop("dipole"), np.float64), str(dipole_unit))
    weights, weighed = group.get("property_weights", {}), {}
    for name in weights:
        value = _given(weights, name)
        result = _RESULTS.get(name, name)
        place, key = (results, result) if result in results else (given, name)
        if value is None or key not in place:
            continue
        if not np.any(value) and not np.any(place[key]):  # MACE fills in zeros and weighs them with zero
            del place[key]
        elif np.any(np.asarray(value) != 1):
            weighed[f"property_weights/{name}"] = value
    if results:
        atoms.calc = Results({name: np.asarray(value, np.float64) for name, value in results.items()})
    for name in itertools.chain(group):
        # What an export of ours has not been given, it fills in as MACE wants it: a weight of 1, the type "Default".
        filled_in = ours and f"{name}_units" not in about and name in ("weight", "config_type")
        if name not in _STRUCTURE and hasattr(group[name], "dtype") and not filled_in:
            value = _given(group, name)
            if value is not None and not (ours and name == "weight" and "weight" not in properties):
                given.setdefault(name, value)
    return Record(atoms, where, more={"file": {**given, **weighed, **origin}})


def _given(group: Any, name: str) -> Any:
    """Return a value, text decoded; None where MACE wrote that there is none."""
    if name not in group:
        return None
    value = group[name][()]
    if isinstance(value, bytes):
        return None if value == b"None" else value.decode("utf-8", "replace")
    return value
