"""Reads the HDF5 of ANI-1, ANI-1x, ANI-1ccx and ANI-2x: several methods in one file become several teachers.

ANI-1x (Smith et al., Scientific Data 7, 134 (2020)): a group for each composition with `atomic_numbers` (N,),
`coordinates` (C, N, 3), and data sets such as ``wb97x_dz.energy``, hartree, ``wb97x_dz.forces``, hartree/angstrom; NaN
where a conformation was not computed. ANI-2x: groups by the number of atoms, with `species` (C, N), `energies`, `forces`.
ANI-1: `species` as texts, and nested groups. Conformations of a group share a root. A data set's attribute `units` is
believed first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.schema import TEACHER
from mlffstore.importing.packed import reading
from mlffstore.importing.tables.states import read_state
from mlffstore.importing.tables.uniform import System, converted, left_out, use

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlffstore.importing.samples import ReadSamples
    from mlffstore.importing.tables.request import TableRequest

#: Quantity of a data set -> property, and the unit in the file.
_LABELS = {
    "energy": ("energy", "hartree"), "energies": ("energy", "hartree"),
    "forces": ("forces", "hartree/angstrom"), "force": ("forces", "hartree/angstrom"),
    "dipole": ("dipole", "e*angstrom"), "dipoles": ("dipole", "e*angstrom"),
}  # fmt: skip
#: Data sets whose charges are those of the atoms; other partitions are columns that may be named.
_CHARGES = ("hirshfeld_charges",)
_STRUCTURE = ("coordinates", "atomic_numbers", "species")


def read_ani(request: TableRequest) -> Iterator[ReadSamples]:
    """Yield the conformations of one group after another.

    Raises
    ------
    DataError
        If the file is damaged or has another layout.
    """
    import h5py

    name = ""
    with reading("the layout of ANI", lambda: f"{request.path}, {name!r}"), h5py.File(request.path, "r") as file:
        for group in _groups(file):
            name = group.name
            for system in _systems(group, request):
                yield from system.blocks(request)


def _groups(group: Any) -> Iterator[Any]:
    """Yield the groups with coordinates."""
    if "coordinates" in group:
        yield group
        return
    for name in group:
        if hasattr(group[name], "keys"):
            yield from _groups(group[name])


def _systems(group: Any, request: TableRequest) -> Iterator[System]:
    """Yield the conformations of a group by their composition, which is one but in ANI-2x."""
    length = _unit(group, "coordinates", "positions", "angstrom", request)
    positions = converted("positions", group["coordinates"][...], length)
    species = group["species"][...] if "atomic_numbers" not in group else group["atomic_numbers"][...]
    numbers = _numbers(species)
    name = group.name.strip("/")
    charge, multiplicity, state = read_state(
        [key for key in group if hasattr(group[key], "dtype") and group[key].dtype.kind in "iuf"],
        lambda key: group[key][...], len(positions), request, f"{request.path}, {group.name!r}",
    )  # fmt: skip
    labels, uses = _labels(group, request, length, state)
    if numbers.ndim == 1:
        yield System(
            name, numbers, positions, labels, uses, charge=charge, multiplicity=multiplicity, group=f"ani {name}"
        )
        return
    kinds, which = np.unique(numbers, axis=0, return_inverse=True)
    for k, kind in enumerate(kinds):
        rows = np.flatnonzero(which.reshape(-1) == k)
        part = {teacher: {label: values[rows] for label, values in named.items()} for teacher, named in labels.items()}
        formula = "-".join(map(str, np.sort(kind).tolist()))
        states = [None if values is None else values[rows] for values in (charge, multiplicity)]
        yield System(
            f"{name} {k}", kind, positions[rows], part, uses, charge=states[0], multiplicity=states[1],
            group=f"ani {formula}",
        )  # fmt: skip


def _unit(group: Any, key: str, column: str, usual: str, request: TableRequest) -> str:
    """Return the unit of a data set: the one that was given, that of its attribute, or that of the layout."""
    attributes = group[key].attrs
    stated = attributes.get("units", attributes.get("unit"))
    return request.labels.stated.unit(column, stated, usual, f"{request.path}, {group[key].name!r}")


def _numbers(species: Any) -> Any:
    """Return atomic numbers; species are numbers, or symbols as text."""
    from ase.data import atomic_numbers

    if species.dtype.kind in "iu":
        return species.astype(np.int64)
    words = np.array([word.decode() if isinstance(word, bytes) else str(word) for word in species.reshape(-1)])
    return np.array([atomic_numbers[word] for word in words]).reshape(species.shape)


def _labels(
    group: Any, request: TableRequest, length: str, state: Mapping[str, str]
) -> tuple[dict[str, dict[str, Any]], list[Any]]:
    """Return the labels of each teacher, and what became of the data sets; `state` are those of charge and multiplicity."""
    labels: dict[str, dict[str, Any]] = {}
    uses: list[Any] = [use("coordinates", "positions", length), *(use(key, what) for key, what in state.items())]
    for key in group:
        if key in _STRUCTURE or key in state:
            continue
        method, _, quantity = key.rpartition(".")
        known = _LABELS.get(quantity)
        if quantity in _CHARGES:
            known = ("charges", "e")
        dataset = group[key]
        if known is None or not hasattr(dataset, "dtype") or dataset.dtype.kind != "f":
            uses.append(left_out(key, dataset))
            continue
        label, unit = known
        unit = _unit(group, key, label, unit, request)
        values = np.asarray(dataset[...], np.float64)
        labels.setdefault(teacher_name(method) or request.options.teacher, {})[label] = converted(label, values, unit)
        uses.append(use(key, label, unit))
    return labels, uses


def teacher_name(method: str) -> str:
    """Return a method as the name of a teacher: what cannot be part of one is left out.

    Examples
    --------
    >>> teacher_name("ccsd(t)_cbs")
    'ccsd-t-_cbs'
    """
    name = re.sub(r"[^A-Za-z0-9_+.-]", "-", method)
    return name if TEACHER.fullmatch(name) else ""
