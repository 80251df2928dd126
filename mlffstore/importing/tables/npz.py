"""Reads npz files: MD17, rMD17 and sGDML by themselves, QM9-like padded arrays and others with a mapping.

A mapping names the arrays: ``keys={"positions": "R", "numbers": "z", "energy": "E", "forces": "F"}``, and ``units`` their
units. Arrays are never unpickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.batch import SampleBatch
from mlffstore.errors import DataError
from mlffstore.importing.packed import reading
from mlffstore.importing.samples import ReadSamples
from mlffstore.importing.spelling import same_unit
from mlffstore.importing.tables.uniform import System, axis_of, converted, left_out, use

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlffstore.importing.tables.request import TableRequest

#: Layouts that are known: what their arrays hold, and their units.
_RMD17 = {"numbers": "nuclear_charges", "positions": "coords", "energy": "energies", "forces": "forces"}
_MD17 = {"numbers": "z", "positions": "R", "energy": "E", "forces": "F"}
_KCAL = {"energy": "kcal/mol", "forces": "kcal/mol/angstrom"}
#: Arrays of sGDML and MD17 files that say units.
_STATED = {"r_unit": "positions", "e_unit": "energy"}
_STRUCTURE = ("numbers", "positions", "cell", "pbc")


def read_npz(request: TableRequest) -> Iterator[ReadSamples]:
    """Yield the structures of a file in order.

    Raises
    ------
    DataError
        If the file is damaged, an array that was named is not there, or the layout is not known and nothing was named.
    """
    with (
        reading("an npz file of plain arrays", lambda: str(request.path)),
        np.load(request.path, allow_pickle=False) as file,
    ):
        yield from _read(file, request)


def _read(file: Any, request: TableRequest) -> Iterator[ReadSamples]:
    layout, units = _layout(file, request)
    arrays = {what: np.asarray(file[name]) for what, name in layout.items()}
    positions = converted("positions", arrays["positions"], units.get("positions", "angstrom"))
    numbers = arrays["numbers"].astype(np.int64)
    uses = [use(name, what, units.get(what, "")) for what, name in layout.items()]
    uses += [left_out(name, file[name]) for name in file.files if name not in layout.values() and name not in _STATED]
    labels: dict[str, Any] = {}
    for what, values in arrays.items():
        if what in _STRUCTURE:
            continue
        numeric = np.asarray(values, np.float64)
        if what == "energy":
            numeric = numeric.reshape(len(positions))
        labels[what] = converted(what, numeric, units[what]) if what in units else numeric
    cell = arrays.get("cell")
    if numbers.ndim == 1 and positions.ndim == 3:
        if cell is not None:
            cell = np.broadcast_to(converted("cell", cell, units.get("cell", "angstrom")), (len(positions), 3, 3))
        system = System(
            "", numbers, positions, {request.options.teacher: labels} if labels else {}, uses, cell, cell is not None,
            group=f"{request.path.name} {request.path.stat().st_size}",
        )  # fmt: skip
        yield from system.blocks(request)
        return
    if numbers.shape != positions.shape[:2]:
        raise DataError(
            f"{request.path}: expected numbers of shape (N,) or (S, N) beside positions of shape (S, N, 3), got "
            f"{numbers.shape} and {positions.shape}"
        )
    yield from _padded(request, numbers, positions, labels, tuple(uses))


def _padded(
    request: TableRequest, numbers: Any, positions: Any, labels: Mapping[str, Any], uses: tuple[Any, ...]
) -> Iterator[ReadSamples]:
    """Yield structures of different size from arrays that are filled up with atoms of number 0."""
    step = request.options.batch_samples
    for low in range(0, len(numbers), step):
        rows = slice(low, low + step)
        there = numbers[rows] > 0
        named = {
            name: values[rows][there] if axis_of(name) == "atom" else values[rows] for name, values in labels.items()
        }
        batch = SampleBatch(
            n_atoms=there.sum(axis=1), numbers=numbers[rows][there], positions=positions[rows][there],
            labels={request.options.teacher: named} if named else None, source=request.source, sampler="imported",
        )  # fmt: skip
        yield ReadSamples(batch, [f"structure {i}" for i in range(low, low + len(batch))], uses=uses)


def _layout(file: Any, request: TableRequest) -> tuple[dict[str, str], dict[str, str]]:
    """Return which array holds what, and the units."""
    held = set(file.files)
    given = {label: names[0] for label, names in request.labels.keys.items() if names}
    layout: dict[str, str] = {}
    units: dict[str, str] = {}
    for known in (_RMD17, _MD17):
        if {known["numbers"], known["positions"]} <= held:
            layout, units = {what: name for what, name in known.items() if name in held}, dict(_KCAL)
            break
    for name, column in _STATED.items():
        if name in held:
            stated = str(file[name][()])
            unit = same_unit(stated, ["eV", "kcal/mol", "kJ/mol", "hartree", "angstrom", "bohr", "nm"])
            if unit is not None:
                units[column] = unit
    if "energy" in units and "e_unit" in held:
        units["forces"] = f"{units['energy']}/{units.get('positions', 'angstrom')}"
    layout |= given
    missing = [name for name in layout.values() if name not in held]
    lacking = [what for what in ("numbers", "positions") if what not in layout]
    if missing or lacking:
        named = request.options.wording.option("keys", {"positions": "NAME", "numbers": "NAME", "energy": "NAME"})
        raise DataError(
            f"{request.path}: expected arrays for {' and '.join(lacking or layout)}, got {', '.join(sorted(held))}; "
            f"name them with {named}"
        )
    return layout, {**units, **request.options.units}


__all__ = ["read_npz"]
