"""Calculators whose weights are one number in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase.calculators.emt import EMT


class Shifted(EMT):
    """EMT, with a number of a file added to the energy.

    Parameters
    ----------
    weights : str
        Path of the file.
    """

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.shift = float(Path(weights).read_text())

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        """Compute."""
        super().calculate(*args, **kwargs)
        self.results["energy"] += self.shift


class Scaled(EMT):
    """EMT whose forces are wrong by a factor of a file, as a student's weights are in a file.

    Parameters
    ----------
    weights : str
        Path of the file.
    """

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.scale = float(Path(weights).read_text())

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        """Scale the forces."""
        super().calculate(*args, **kwargs)
        self.results["forces"] = self.scale * self.results["forces"]
