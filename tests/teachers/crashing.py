"""Calculators that misbehave, for the teacher ``ase:...``."""

from __future__ import annotations

import os

from ase.calculators.emt import EMT


class Crashing(EMT):
    """EMT that ends its process for gold, and raises for silver."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if 79 in atoms.numbers:
            os._exit(139)
        if 47 in atoms.numbers:
            raise ValueError("no silver")
        super().calculate(atoms, properties, system_changes)


def not_a_calculator():
    return 3
