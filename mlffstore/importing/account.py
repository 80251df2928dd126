"""`Account`: what became of every key of the files that were imported, so that nothing is left behind unnamed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlffstore.data.properties import known_properties
from mlffstore.importing.spelling import label_of
from mlffstore.importing.values import FieldText

if TYPE_CHECKING:
    from mlffstore.importing.wording import Wording

Fate = Literal["kept", "renamed", "converted", "obeyed", "left out"]
#: Place, name, fate, column and note of a key, see `KeyUse`.
Use = tuple[str, str, Fate, str, str]


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What became of one key.

    Attributes
    ----------
    name : str
        The key in the file.
    place : str
        Where ASE or the reader has it: "results", "info", "arrays", "data", "key_value_pairs", ...
    fate : {"kept", "renamed", "converted", "obeyed", "left out"}
        "converted" means that units, sign or form changed; "obeyed" that it told how to read something else.
    column : str
        Column of the store, "" if it was left out.
    samples : int
        Samples of which this is true.
    note : str
        What kind of value it is, or how it was converted.
    """

    name: str
    place: str
    fate: Fate
    column: str
    samples: int
    note: str


class Account:
    """Counts what became of the keys, sample by sample."""

    def __init__(self) -> None:
        self._counts: Counter[Use] = Counter()
        self._samples: Counter[tuple[Use, ...]] = Counter()

    def add(self, place: str, name: str, fate: Fate, column: str = "", note: str = "") -> None:
        """Note what became of a key of one sample."""
        self._counts[place, name, fate, column, note] += 1

    def add_all(self, uses: tuple[Use, ...], n_samples: int = 1) -> None:
        """Note what became of all keys of some samples: places, names, fates, columns and notes."""
        self._samples[uses] += n_samples

    def merge(self, other: Account) -> None:
        """Add the counts of another account."""
        self._counts.update(other._counts)
        self._samples.update(other._samples)

    def uses(self) -> tuple[KeyUse, ...]:
        """Return what became of every key, in the order in which the keys were met."""
        counts: Counter[Use] = Counter()
        for uses, n in self._samples.items():
            for use in uses:
                counts[use] += n
        counts.update(self._counts)
        return tuple(
            KeyUse(name, place, fate, column, n, note) for (place, name, fate, column, note), n in counts.items()
        )

    def warnings(self, wording: Wording) -> list[str]:
        """Return one warning that names every key that was left out and offers a way to keep it, or nothing."""
        parts = []
        for use in self.uses():
            if use.fate != "left out" or use.note.startswith("same as"):
                continue
            if use.place == "table":  # of which only labels are taken
                parts.append(f"{use.name} ({use.note} in {use.samples} samples)")
                continue
            offer, label = "", label_of(use.name)
            if label is not None and "number" in use.note and use.place != "file":  # labels of an HDF5 file have names
                offer = f", {wording.option('keys', {label: use.name})} takes it"
            elif use.name in known_properties() and "number" in use.note:
                offer = f", {wording.option('keys', {use.name: use.name})} takes it as a label"
            elif use.note in ("text", "texts") and use.name.isidentifier() and use.place != "file":
                offer = f", {wording.option('columns', {use.name: '1'})} keeps it"
            elif "number" in use.note and use.name.isidentifier():
                offer = f", {wording.option('columns', {use.name: 'UNIT'})} keeps it"
            parts.append(f"{use.name} ({use.note} in {use.samples} samples{offer})")
        return [f"left out: {'; '.join(parts)}"] if parts else []


def describe(value: Any, n_atoms: int) -> str:
    """Return what kind of value a key has, in words: "text", "number", "number per atom", "3x3 numbers", ..."""
    if isinstance(value, FieldText) and value.number() is not None:
        return "number"
    if isinstance(value, (str, bytes)):
        return "text"
    if isinstance(value, dict):
        return "a mapping"
    try:
        array = np.asarray(value)
    except ValueError:
        return "a nested list"
    if is_strings(array):
        return "text" if array.size <= 1 else "texts"
    if array.dtype.kind not in "biuf":
        return f"a {type(value).__name__}"
    if array.size == 1:
        return "flag" if array.dtype.kind == "b" else "number"
    kind = "flags" if array.dtype.kind == "b" else "numbers"
    if array.shape[0] == n_atoms:
        inner = "x".join(map(str, array.shape[1:]))
        return f"{inner} {kind} per atom" if inner else f"{kind.removesuffix('s')} per atom"
    return f"{'x'.join(map(str, array.shape))} {kind}"


def is_strings(array: Any) -> bool:
    """Return whether an array holds strings, of whatever dtype."""
    if array.dtype.kind == "O":
        return bool(array.size) and all(isinstance(value, str) for value in array.flat)
    return array.dtype.kind in "US"
