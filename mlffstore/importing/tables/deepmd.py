"""Reads folders of DeePMD-kit, ``deepmd/npy`` and the mixed type, with dpdata.

Energies are eV, forces eV/angstrom, unless the caller names other units. A virial W (eV, ``-dE/d(strain)``) becomes the
stress ``-W / V``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError, missing_dependency
from mlffstore.importing.tables.uniform import System, converted, left_out, use
from mlffstore.importing.values import voigt_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlffstore.importing.account import Use
    from mlffstore.importing.samples import ReadSamples
    from mlffstore.importing.tables.request import TableRequest

_KNOWN = {"energies": ("energy", "eV"), "forces": ("forces", "eV/angstrom")}
#: Files of a set that are taken; what others hold is left out, and named.
_STRUCTURE_FILES = ("coord", "box", "real_atom_types")
_FILES = (*_STRUCTURE_FILES, "energy", "force", "virial")
_STRUCTURE = (
    "atom_names",
    "atom_numbs",
    "atom_types",
    "orig",
    "coords",
    "cells",
    "nopbc",
    "virials",
    "real_atom_names",
)


def read_deepmd(request: TableRequest) -> Iterator[ReadSamples]:
    """Yield the frames of each system below a folder.

    Raises
    ------
    DataError
        If a system cannot be read.
    MissingDependencyError
        If the package dpdata is not installed.
    """
    try:
        import dpdata
    except ImportError as error:
        raise missing_dependency("dpdata", "deepmd", "Reading folders of DeePMD-kit") from error
    for folder in sorted({path.parent for path in request.path.rglob("type.raw")}):
        mixed = any(folder.glob("set.*/real_atom_types.npy"))
        has_labels = any(folder.glob("set.*/energy.npy"))
        try:
            if mixed:
                several = dpdata.MultiSystems()
                several.load_systems_from_file(str(folder), fmt="deepmd/npy/mixed", labeled=has_labels)
                systems = list(several)
            else:
                kind = dpdata.LabeledSystem if has_labels else dpdata.System
                systems = [kind(str(folder), fmt="deepmd/npy")]
        except Exception as error:  # dpdata raises whatever a damaged folder makes it raise
            raise DataError(
                f"{folder}: expected a system of DeePMD-kit, got an error while dpdata read it ({type(error).__name__}: "
                f"{error})"
            ) from error
        for i, system in enumerate(systems):
            name = str(folder.relative_to(request.path)) + (f" {i}" if mixed else "")
            yield from _system(folder, name, system.data, request).blocks(request)


def _system(folder: Path, name: str, data: dict[str, Any], request: TableRequest) -> System:
    from ase.data import atomic_numbers

    symbols = [data["atom_names"][kind] for kind in data["atom_types"]]
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise DataError(f"{folder}: expected elements in type_map.raw, got {unknown[0]!r}; name the elements there")
    units = request.labels.units
    length = units.get("positions", "angstrom")
    cell = converted("cell", data["cells"], units.get("cell", "angstrom"))
    periodic = not data.get("nopbc", False)
    labels: dict[str, Any] = {}
    uses: list[Use] = [use("coords", "positions", length)]
    for key, (label, unit) in _KNOWN.items():
        if key in data:
            unit = units.get(label, unit)
            labels[label] = converted(label, data[key], unit)
            uses.append(use(key, label, unit))
    if "virials" in data and periodic:
        virial = converted("energy", data["virials"], units.get("virial", "eV"))
        try:
            stress = voigt_rows(-virial / np.abs(np.linalg.det(cell))[:, None, None], "virial")
        except ValueError as error:
            raise DataError(f"{folder}: {error}") from None
        labels["stress"] = request.labels.sign * stress
        uses.append(("file", "virials", "converted", "stress", "-virial/V"))
    elif "virials" in data:
        uses.append(("file", "virials", "left out", "", "virials of structures that are periodic nowhere"))
    uses += [left_out(key, value) for key, value in data.items() if key not in _STRUCTURE and key not in _KNOWN]
    named = {name for _, name, *_ in uses}
    # dpdata takes forces and virials only where there are energies.
    taken = {*_FILES, *named} if "energies" in data else {*_STRUCTURE_FILES, *named}
    others = {file.stem: file for file in sorted(folder.glob("set.*/*.npy")) if file.stem not in taken}
    uses += [left_out(stem, np.load(file, mmap_mode="r", allow_pickle=False)) for stem, file in others.items()]
    return System(
        name, [atomic_numbers[symbol] for symbol in symbols], converted("positions", data["coords"], length),
        {request.options.teacher: labels} if labels else {}, uses, cell if periodic else None, periodic, group=None,
    )  # fmt: skip
