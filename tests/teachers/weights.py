"""Calculators whose weights are one number in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase.calculators.emt import EMT


class _Weighted(EMT):
    """EMT, and a number of a file.

    Parameters
    ----------
    weights : str
        Path of the file.
    """

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.weight = float(Path(weights).read_text())


class Shifted(_Weighted):
    """EMT with the number added to the energy."""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        """Compute."""
        super().calculate(*args, **kwargs)
        self.results["energy"] += self.weight


class Scaled(_Weighted):
    """EMT whose forces are wrong by the factor, as a student's are."""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        """Compute."""
        super().calculate(*args, **kwargs)
        self.results["forces"] = self.weight * self.results["forces"]
