"""`Options`: everything that decides what is stored of imported files, checked before the first file is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mlffstore.data import rules
from mlffstore.data.properties import known_properties
from mlffstore.data.schema import check_teacher_name
from mlffstore.errors import DataError
from mlffstore.importing.extra import ExtraColumns
from mlffstore.importing.labels import LabelReader
from mlffstore.importing.presets import Preset, find_preset
from mlffstore.importing.roots import check_root
from mlffstore.importing.splits import check_split
from mlffstore.importing.wording import Wording
from mlffstore.store.duplicates import check_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OnError = Literal["refuse", "quarantine"]
#: Largest tolerance of a join on structure, angstrom: less than half of the shortest bond, H-H.
MAX_TOLERANCE = 0.3


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `mlffstore.import_files`, which documents them, and the wording of messages about them."""

    teacher: str = "dft"
    format: str | None = None
    keys: Mapping[str, str | Sequence[str] | None] = field(default_factory=dict)
    columns: Mapping[str, str] | Sequence[str] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    stress_sign: str = "tension"
    charge: int | None = None
    multiplicity: int | None = None
    spin: str = "multiplicity"
    elements: Sequence[str] = ()
    root: str = "sample"
    source: str | None = None
    require: Sequence[str] = rules.REQUIRED
    batch_samples: int = 2048
    add_hydrogens: bool = True
    allow_no_hydrogen: bool = False
    check_stress: bool = True
    on_error: OnError = "refuse"
    on_duplicate: Literal["keep", "skip", "error"] = "keep"
    split: str | None = None
    match: Literal["structure"] | None = None
    tolerance: float = 0.0
    preset: str | None = None
    workers: int = 1
    wording: Wording = field(default_factory=Wording)
    #: Labels whose keys come from the preset, so that files may lack them.
    assumed: frozenset[str] = field(default=frozenset(), init=False)

    def __post_init__(self) -> None:
        from ase.data import atomic_numbers

        name = self.wording.name
        check_teacher_name(self.teacher)
        check_root(self.root, self.wording)
        check_split(self.split, self.wording)
        preset = find_preset(self.preset, self.wording)
        if preset is not None:
            self._apply(preset)
        if self.match not in (None, "structure"):
            raise DataError(f"{name('match')}: expected 'structure' or None, got {self.match!r}")
        if self.match is not None and self.columns:
            raise DataError(
                f"{name('columns')}: expected none with {self.wording.option('match', self.match)}, which adds labels to "
                f"structures and no columns, got {', '.join(self.columns)}; leave one of the two out"
            )
        if not 0 <= self.tolerance <= MAX_TOLERANCE:
            raise DataError(f"{name('tolerance')}: expected 0 to {MAX_TOLERANCE} angstrom, got {self.tolerance}")
        if self.workers < 1:
            raise DataError(f"{name('workers')}: expected 1 or more, got {self.workers}")
        if isinstance(self.require, str) or set(self.require) - set(known_properties()):
            raise DataError(
                f"{name('require')}: expected labels among {', '.join(known_properties())}, got "
                f"{', '.join(map(str, self.require))}"
            )
        if self.batch_samples < 1:
            raise DataError(f"{name('batch_samples')}: expected 1 or more, got {self.batch_samples}")
        if self.on_error not in ("refuse", "quarantine"):
            raise DataError(f"{name('on_error')}: expected 'refuse' or 'quarantine', got {self.on_error!r}")
        check_policy(self.on_duplicate)
        unknown = [symbol for symbol in self.elements if symbol not in atomic_numbers or symbol == "X"]
        if isinstance(self.elements, str) or unknown:
            raise DataError(
                f"{name('elements')}: expected the symbol of the element of each type, such as ('O', 'H'), got "
                f"{self.elements!r}"
            )
        if self.multiplicity is not None and self.multiplicity < 1:
            raise DataError(f"{name('multiplicity')}: expected 1 or more, got {self.multiplicity}")

    def _apply(self, preset: Preset) -> None:
        """Take over what a preset says and the caller does not."""
        held = set(self.keys) | ({"stress", "virial"} if {"stress", "virial"} & set(self.keys) else set())
        keys = {label: names for label, names in preset.keys.items() if label not in held}
        object.__setattr__(self, "keys", {**keys, **self.keys})
        object.__setattr__(self, "assumed", frozenset(keys))
        object.__setattr__(self, "units", {**preset.units, **self.units})
        if self.stress_sign == "tension":
            object.__setattr__(self, "stress_sign", preset.stress_sign)
        if self.spin == "multiplicity":
            object.__setattr__(self, "spin", preset.spin)

    def reader(self) -> LabelReader:
        """Return a reader of labels; raise `DataError` if keys, units, sign or the meaning of spin are wrong."""
        return LabelReader(self.keys, self.units, self.stress_sign, self.spin, self.wording, self.assumed)

    def extra(self) -> ExtraColumns:
        """Return a collector of the user columns; raise `DataError` if a name cannot be one."""
        return ExtraColumns(self.columns, self.wording)

    def accepts(self) -> dict[str, Any]:
        """Return, as JSON, the options that decide which samples are rejected."""
        return {"require": sorted(self.require), "allow_no_hydrogen": self.allow_no_hydrogen}

    def content(self, precision: str) -> dict[str, Any]:
        """Return, as JSON, the options that change what is stored of a file: they are part of its idempotency key."""
        return {
            "teacher": self.teacher,
            "keys": {
                label: names if isinstance(names, str | None) else list(names) for label, names in self.keys.items()
            },
            "columns": self.extra().units,
            "units": dict(self.units),
            "stress_sign": self.stress_sign,
            "charge": self.charge,
            "multiplicity": self.multiplicity,
            "spin": self.spin,
            "elements": list(self.elements),
            "root": self.root,
            "source": self.source,
            "add_hydrogens": self.add_hydrogens,
            "precision": precision,
            **({"split": self.split} if self.split is not None else {}),
            **({"match": self.match, "tolerance": self.tolerance} if self.match is not None else {}),
        }
