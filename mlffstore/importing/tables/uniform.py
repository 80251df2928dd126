"""Arrays of structures with the same atoms become `ReadSamples`, with units converted and uses noted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.batch import SampleBatch
from mlffstore.data.units import convert
from mlffstore.errors import DataError
from mlffstore.importing.samples import ReadSamples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.importing.account import Use
    from mlffstore.importing.tables.request import TableRequest

_CHECKED = ("energy", "forces")


@dataclass(slots=True)
class System:
    """F structures of N atoms each, or of up to N where arrays are filled up.

    Attributes
    ----------
    name : str
        Its name in the file, for messages. Empty if the file is one system.
    numbers : ndarray, shape (N,) or (F, N)
        Atoms of number 0 fill up and are left out.
    positions : ndarray, shape (F, N, 3)
        Angstrom.
    labels : dict of str to dict
        Teacher -> property -> values, shape (F, ...) or (F, N, ...), in the store's units. NaN where there is none.
    uses : list of (str, str, str, str, str)
        What became of the keys.
    cell : ndarray, shape (F, 3, 3), or None
    pbc : bool or ndarray of bool, shape (3,) or (F, 3)
    charge, multiplicity : int, ndarray of int of shape (F,), or None
    group : str or None
        What the structures descend from, if they belong together.
    splits : int or None
        Split of all of them.
    """

    name: str
    numbers: Any
    positions: Any
    labels: dict[str, dict[str, Any]]
    uses: list[Use] = field(default_factory=list)
    cell: Any = None
    pbc: Any = False
    charge: Any = None
    multiplicity: Any = None
    group: str | None = None

    def blocks(self, request: TableRequest) -> Iterator[ReadSamples]:
        """Yield the structures, some at a time."""
        n_frames, step = len(self.positions), request.options.batch_samples
        self._check(request)
        numbers = np.broadcast_to(self.numbers, self.positions.shape[:2])
        pbc = np.broadcast_to(self.pbc, (n_frames, 3))
        charge = self.charge if self.charge is not None else request.options.charge
        multiplicity = self.multiplicity if self.multiplicity is not None else request.options.multiplicity
        for low in range(0, n_frames, step):
            high = min(low + step, n_frames)
            there = numbers[low:high] != 0
            labels = {
                teacher: {
                    name: values[low:high][there] if axis_of(name) == "atom" else values[low:high]
                    for name, values in named.items()
                    if not np.isnan(values[low:high]).all()
                }
                for teacher, named in self.labels.items()
            }
            batch = SampleBatch(
                n_atoms=there.sum(axis=1),
                numbers=numbers[low:high][there],
                positions=np.asarray(self.positions[low:high], np.float64)[there],
                cell=None if self.cell is None else self.cell[low:high],
                pbc=pbc[low:high],
                charge=None if charge is None else np.broadcast_to(charge, n_frames)[low:high],
                multiplicity=None if multiplicity is None else np.broadcast_to(multiplicity, n_frames)[low:high],
                labels={teacher: named for teacher, named in labels.items() if named} or None,
                source=request.source,
                sampler="imported",
            )
            where = f"{self.name!r}, " if self.name else ""
            places = [f"{where}structure {i}" for i in range(low, high)]
            groups = None if self.group is None else [self.group] * (high - low)
            yield ReadSamples(batch, places, groups=groups, uses=tuple(self.uses))

    def _check(self, request: TableRequest) -> None:
        where = f"{request.path}" + (f", {self.name!r}" if self.name else "")
        n_frames, n_atoms = len(self.positions), np.shape(self.numbers)[-1]
        if self.positions.ndim != 3 or self.positions.shape[1:] != (n_atoms, 3):
            raise DataError(f"{where}: expected positions of shape (F, {n_atoms}, 3), got {self.positions.shape}")
        if np.ndim(self.numbers) == 2 and len(self.numbers) != n_frames:
            raise DataError(f"{where}: expected numbers of shape ({n_frames}, {n_atoms}), got {np.shape(self.numbers)}")
        for named in self.labels.values():
            for name, values in named.items():
                rows = (n_frames, n_atoms) if axis_of(name) == "atom" else (n_frames,)
                if values.shape[: len(rows)] != rows:
                    raise DataError(f"{where}: expected {name} of shape {(*rows, '...')}, got {values.shape}")


def axis_of(name: str) -> str:
    """Return whether a property has one row per sample or one row per atom."""
    from mlffstore.data.properties import property_of

    return property_of(name).axis


def converted(name: str, values: Any, unit: str) -> Any:
    """Return a label, positions or cell as float64 in the store's unit."""
    return convert(name, np.asarray(values, np.float64), unit)


def use(name: str, column: str, unit: str = "", note: str = "") -> Use:
    """Return that a key of a file was kept, renamed or converted."""
    if unit and unit not in ("eV", "eV/angstrom", "eV/angstrom^3", "angstrom"):
        return ("file", name, "converted", column, f"from {unit}" + (f", {note}" if note else ""))
    return ("file", name, "kept" if name == column else "renamed", column, note)


def left_out(name: str, value: Any) -> Use:
    """Return that a key of a file was left out. Tables have no user columns, so that nothing is offered to keep it."""
    shape = getattr(value, "shape", None)
    note = "text" if shape is None else f"numbers of shape {tuple(shape)}" if shape else "a value"
    return ("table", name, "left out", "", note)
