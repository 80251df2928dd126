"""Reads the Zarr stores of nvalchemi-toolkit (NVIDIA ALCHEMI), as its `AtomicDataZarrWriter` makes them.

Layout (nvalchemi-toolkit 0.2, ``nvalchemi/data/datapipes/backends/zarr.py``): `meta` with the first atom of each sample and
the mask of samples that were not deleted; `core` with the fields of AtomicData, one row per atom or sample; `custom`
with other arrays. Energies are eV, forces eV/angstrom, stress eV/angstrom^3 (tension positive), lengths angstrom. Neighbour
lists are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.importing.frames import Results
from mlffstore.importing.packed import reading
from mlffstore.importing.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STRUCTURE = ("atomic_numbers", "positions", "cell", "pbc")
#: Fields that ASE knows as results. `charges` are those of the atoms, `charge` that of the sample.
_RESULTS = ("energy", "forces", "stress", "dipole", "charges")
#: Fields that AtomicData fills in by itself: standard masses, no velocities, one category.
_FILLED_IN = ("atom_categories", "atomic_masses", "velocities")
#: Samples that are read at a time.
_BLOCK = 1024


def is_nvalchemi(path: Path) -> bool:
    """Return whether a folder is such a store."""
    return (path / "meta" / "atoms_ptr").is_dir() and (path / "core").is_dir()


def read_nvalchemi(path: Path) -> Iterator[Record]:
    """Yield the samples of a store in order, without those that were deleted.

    Raises
    ------
    DataError
        If the store is damaged or has another layout.
    """
    import zarr

    number = 0
    with reading("a Zarr store of nvalchemi", lambda: f"{path}, sample {number}", Exception):
        group: Any = zarr.open_group(path, mode="r")
        levels = _levels(group)
        starts, there = np.asarray(group["meta/atoms_ptr"][:]), np.asarray(group["meta/samples_mask"][:])
        edges = sorted(name for (_, name), level in levels.items() if level == "edge")
        notes = (f"neighbour lists and what belongs to them are left out: {', '.join(edges)}",) if edges else ()
        for low in range(0, len(there), _BLOCK):
            high = min(low + _BLOCK, len(there))
            span = {"system": slice(low, high), "atom": slice(int(starts[low]), int(starts[high]))}
            block = {
                (place, name): np.asarray(group[f"{place}/{name}"][span[level]])
                for (place, name), level in levels.items()
                if level != "edge"
            }
            for number in range(low, high):
                if there[number]:
                    rows = {
                        "system": slice(number - low, number - low + 1),
                        "atom": slice(int(starts[number] - starts[low]), int(starts[number + 1] - starts[low])),
                    }
                    fields = {key: values[rows[levels[key]]] for key, values in block.items()}
                    yield _record(fields, levels, f"sample {number}", notes)


def _levels(group: Any) -> dict[tuple[str, str], str]:
    """Return for each array whether it has one row per atom, edge or sample ("system")."""
    stated = group.attrs.get("fields", {})
    out = {}
    for place, default in (("core", "atom"), ("custom", "system")):
        for name, _ in group[place].arrays() if place in group else ():
            out[place, name] = str(stated.get(place, {}).get(name, default))
    return out


def _record(
    fields: dict[tuple[str, str], Any], levels: dict[tuple[str, str], str], where: str, warnings: tuple[str, ...]
) -> Record:
    from ase import Atoms

    core = {name: values for (place, name), values in fields.items() if place == "core"}
    cell, pbc = core.get("cell"), core.get("pbc")
    atoms = Atoms(
        numbers=core["atomic_numbers"], positions=core["positions"], cell=None if cell is None else cell.reshape(3, 3),
        pbc=None if pbc is None else pbc.reshape(3),
    )  # fmt: skip
    if cell is not None and pbc is None:
        atoms.pbc = bool(cell.any())
    results = {name: _plain(core[name], per_atom=name in ("forces", "charges")) for name in _RESULTS if name in core}
    results = {name: value for name, value in results.items() if not np.isnan(value).all()}
    if results:
        atoms.calc = Results(results)
    taken = {*_STRUCTURE, *_RESULTS, *(name for name in _FILLED_IN if _is_filled_in(name, core))}
    more: dict[str, dict[str, Any]] = {"core": {}, "custom": {}}
    for (place, name), values in fields.items():
        missing = values.dtype.kind == "f" and np.isnan(values).all()
        if not missing and (place == "custom" or name not in taken):
            more[place][name] = _plain(values, per_atom=levels[place, name] == "atom")
    return Record(atoms, where, more=more, warnings=warnings)


def _is_filled_in(name: str, core: dict[str, Any]) -> bool:
    """Return whether a field says nothing: AtomicData fills it in where the data have none."""
    return name in core and (name == "atomic_masses" or not core[name].any())


def _plain(values: Any, *, per_atom: bool) -> Any:
    """Return the value of one sample without the dimension of samples."""
    if per_atom or values.ndim == 0:
        return values
    value = values[0]
    return value.reshape(()) if value.size == 1 else value
