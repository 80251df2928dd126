"""`Step`: one step of a choice of samples, as selections, the log and releases record it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a choice of samples.

    Attributes
    ----------
    kind : str
        Name of the method that made it: "select", "take", "diverse", "cover", "without_near_duplicates".
    options : mapping of str to JSON
        Its arguments; numbers of NumPy become those of Python.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain = {name: one.item() if isinstance(one, np.generic) else one for name, one in self.options.items()}
        object.__setattr__(self, "options", MappingProxyType(plain))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Step, (self.kind, dict(self.options)))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain types."""
        return {"kind": self.kind, **self.options}

    @classmethod
    def of(cls, document: Any) -> Step:
        """Return the step of a JSON object.

        Raises
        ------
        ValueError
            If it is not one.
        """
        if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
            raise ValueError("expected a step with its kind")
        return cls(document["kind"], {name: value for name, value in document.items() if name != "kind"})

    def __str__(self) -> str:
        options = self.options
        if self.kind == "select":
            parts = [f"where {options['where']}"] if options.get("where") else []
            if options.get("sample"):
                parts.append(f"{counted(options['sample'], 'sample')} drawn at random (seed {options.get('seed', 0)})")
            parts += [f"ordered by {options['order_by']}"] if options.get("order_by") else []
            parts += [f"the first {options['limit']:,}"] if options.get("limit") is not None else []
            return ", ".join(parts) or "all samples"
        if self.kind == "take":
            return f"{counted(options.get('samples', 0), 'sample')} by index"
        text = ", ".join(f"{name} {value}" for name, value in options.items())
        return f"{self.kind.replace('_', ' ')} ({text})"


def words(steps: Sequence[Step]) -> str:
    """Return steps in words, one after another.

    Examples
    --------
    >>> words([Step("select", {"where": "n_atoms < 50"}), Step("take", {"samples": 2})])
    'where n_atoms < 50; then 2 samples by index'
    """
    return "; then ".join(map(str, steps)) or "all samples"
