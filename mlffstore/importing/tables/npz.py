"""Reads npz files: MD17, rMD17 and sGDML by themselves, QM9-like padded arrays and others with a mapping.

A mapping names the arrays: ``keys={"positions": "R", "numbers": "z", "energy": "E", "forces": "F"}``, and ``units`` their
units. Charge and multiplicity are read under the names in use, as in other formats. Arrays are never unpickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.casting import exactly
from mlffstore.data.schema import LABELS
from mlffstore.errors import DataError
from mlffstore.importing.packed import reading
from mlffstore.importing.state import STATE_KEYS
from mlffstore.importing.tables.states import read_state
from mlffstore.importing.tables.uniform import System, converted, left_out, use
from mlffstore.importing.values import as_text, voigt_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlffstore.importing.account import Use
    from mlffstore.importing.samples import ReadSamples
    from mlffstore.importing.tables.request import TableRequest

#: Layouts that are known: what their arrays hold, and their units.
_RMD17 = {"numbers": "nuclear_charges", "positions": "coords", "energy": "energies", "forces": "forces"}
_MD17 = {"numbers": "z", "positions": "R", "energy": "E", "forces": "F"}
_KCAL = {"energy": "kcal/mol", "forces": "kcal/mol/angstrom"}
#: Arrays of sGDML and MD17 files that say units.
_STATED = {"r_unit": "positions", "e_unit": "energy"}


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
    layout, units, stated = _layout(file, request)
    arrays = {what: np.asarray(file[name]) for what, name in layout.items()}
    for what, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise DataError(
                f"{request.path}, {layout[what]!r}: expected numbers for {what}, got an array of {array.dtype}"
            )
    numbers = exactly("numbers", arrays.pop("numbers"), "int64", f"{request.path}, {layout['numbers']!r}")
    positions = converted("positions", arrays.pop("positions"), units.get("positions", "angstrom"))
    if positions.ndim != 3 or numbers.shape not in (positions.shape[1:2], positions.shape[:2]):
        raise DataError(
            f"{request.path}: expected numbers of shape (N,) or (S, N) beside positions of shape (S, N, 3), got "
            f"{numbers.shape} and {positions.shape}"
        )
    n = len(positions)
    uses = [use(layout[what], what, units.get(what, "")) for what in ("numbers", "positions")]
    cell, pbc = _lattice(arrays, layout, units, n, request, uses)
    given = {layout[what]: (what, arrays.pop(what)) for what in STATE_KEYS if what in layout}
    charge, multiplicity, state = read_state(file.files, file.__getitem__, n, request, str(request.path), given)
    uses += [use(name, what) for name, what in state.items()]
    uses += [("file", name, "obeyed", "", text) for name, text in stated.items()]
    labels: dict[str, Any] = {}
    for what, values in arrays.items():
        column = "stress" if what == "virial" else what
        labels[column] = _label(what, values, n, cell, pbc, units, request, layout[what])
        uses.append(use(layout[what], column, units.get(what, ""), "-virial/V" if what == "virial" else ""))
    taken = {*layout.values(), *state, *stated}
    uses += [left_out(name, file[name]) for name in file.files if name not in taken]
    # Structures with the same atoms are frames of one trajectory.
    group = f"{request.path.name} {request.path.stat().st_size}" if numbers.ndim == 1 else None
    system = System(
        "", numbers, positions, {request.options.teacher: labels} if labels else {}, uses, cell, pbc, charge, multiplicity,
        group,
    )  # fmt: skip
    yield from system.blocks(request)


def _lattice(
    arrays: dict[str, Any],
    layout: Mapping[str, str],
    units: Mapping[str, str],
    n: int,
    request: TableRequest,
    uses: list[Use],
) -> tuple[Any, Any]:
    """Take cell and pbc out of the arrays; return them for each structure. With a cell and no pbc all is periodic."""
    cell, pbc = arrays.pop("cell", None), arrays.pop("pbc", None)
    if cell is not None:
        if cell.shape not in ((3, 3), (n, 3, 3), (n, 9)):
            raise DataError(
                f"{request.path}, {layout['cell']!r}: expected a cell of shape (3, 3), ({n}, 3, 3) or ({n}, 9), got "
                f"{cell.shape}"
            )
        cell = converted("cell", cell.reshape(-1, 3, 3), units.get("cell", "angstrom"))
        cell = np.array(np.broadcast_to(cell, (n, 3, 3)))
        uses.append(use(layout["cell"], "cell", units.get("cell", "")))
    if pbc is None:
        return cell, cell is not None
    where = f"{request.path}, {layout['pbc']!r}"
    pbc = exactly("pbc", pbc, "bool", where)
    if pbc.shape not in ((), (1,), (3,), (n,), (n, 3)):
        raise DataError(f"{where}: expected pbc of shape (), (3,), ({n},) or ({n}, 3), got {pbc.shape}")
    # Three truth values are one for each vector, also where there are three structures.
    pbc = np.broadcast_to(pbc if pbc.shape in ((), (1,), (3,), (n, 3)) else pbc[:, None], (n, 3))
    uses.append(use(layout["pbc"], "pbc"))
    if cell is not None and (nowhere := ~pbc.any(axis=1) & cell.any(axis=(1, 2))).any():
        cell[nowhere] = 0.0
        uses.append(("file", layout["cell"], "left out", "", "cells of structures that are periodic nowhere"))
    return cell, pbc


def _label(
    what: str, values: Any, n: int, cell: Any, pbc: Any, units: Mapping[str, str], request: TableRequest, name: str
) -> Any:
    """Return a label of all structures in the store's unit, sign and shape."""
    where = f"{request.path}, {name!r}"
    values = np.asarray(values, np.float64)
    if what == "energy":
        if values.size != n:
            raise DataError(f"{where}: expected an energy for each of {n} structures, got shape {values.shape}")
        values = values.reshape(n)
    if what not in ("stress", "virial"):
        return converted(what, values, units[what]) if what in units else values
    shapes = ((n, 9), (n, 3, 3)) if what == "virial" else ((n, 6), (n, 9), (n, 3, 3))
    if values.shape not in shapes:
        raise DataError(f"{where}: expected a {what} of shape {' or '.join(map(str, shapes))}, got {values.shape}")
    values = converted(
        "energy" if what == "virial" else what, values, units.get(what, "eV" if what == "virial" else "eV/angstrom^3")
    )
    if what == "virial":
        if cell is None or not np.all(pbc):
            raise DataError(
                f"{where}: expected structures that are periodic in three directions, since stress = -virial/V"
            )
        values = -values.reshape(n, 3, 3) / np.abs(np.linalg.det(cell))[:, None, None]
    if values.shape != (n, 6):
        try:
            values = voigt_rows(values.reshape(n, 3, 3), what)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
    return request.labels.sign * values


def _layout(file: Any, request: TableRequest) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Return which array holds what, the units, and what the file states of them."""
    held = set(file.files)
    given = {
        label: next((name for name in names if name in held), names[0])
        for label, names in request.labels.keys.items() if names
    }  # fmt: skip
    layout: dict[str, str] = {}
    units: dict[str, str] = {}
    for known in (_RMD17, _MD17):
        if {known["numbers"], known["positions"]} <= held:
            layout, units = {what: name for what, name in known.items() if name in held}, dict(_KCAL)
            break
    stated = {name: as_text(file[name]) for name in _STATED if name in held}
    for name, text in stated.items():
        column = _STATED[name]
        usual = units.get(column, LABELS[column].unit if column in LABELS else "angstrom")
        units[column] = request.labels.stated.unit(column, text, usual, f"{request.path}, {name!r}")
    if stated:
        units["forces"] = f"{units.get('energy', 'eV')}/{units.get('positions', 'angstrom')}"
    layout |= given
    missing = [name for name in layout.values() if name not in held]
    lacking = [what for what in ("numbers", "positions") if what not in layout]
    if missing or lacking:
        named = request.options.wording.option("keys", {"positions": "NAME", "numbers": "NAME", "energy": "NAME"})
        raise DataError(
            f"{request.path}: expected arrays for {' and '.join(lacking or layout)}, got {', '.join(sorted(held))}; "
            f"name them with {named}"
        )
    return layout, {**units, **request.labels.units}, stated


__all__ = ["read_npz"]
