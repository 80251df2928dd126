"""Limits beyond which a structure or a label is taken for an error, each with its unit and source.

They are the defaults of recipes, of the default policy (``analysis/validation/default.yaml``), of imports and of samplers.
A recipe or a policy may set others.
"""

from __future__ import annotations

#: Smallest distance of two atoms, over all periodic images, angstrom. The shortest bond is that of H2, 0.741 angstrom
#: (Huber and Herzberg, Constants of Diatomic Molecules, 1979); compressed structures need room below it.
MIN_DISTANCE = 0.5
#: Largest force on an atom, eV/angstrom. Forces of thermal structures stay below 15 (docs/explanation/validation.md).
MAX_FORCE = 50.0
#: Largest component of the stress, eV/angstrom^3: 480 GPa, above the 364 GPa at the centre of the Earth (Dziewonski and
#: Anderson, Phys. Earth Planet. Inter. 25, 297 (1981)).
MAX_STRESS = 3.0
