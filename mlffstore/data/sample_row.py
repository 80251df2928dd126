"""The layout of the numbers of a sample that records keep in one row of float64, beside positions and forces."""

from __future__ import annotations

import numpy as np

#: Energy (eV), cell (angstrom, rows are lattice vectors), stress (eV/angstrom^3, xx yy zz yz xz xy), pbc (0 or 1), charge
#: (e) and multiplicity. ``rows.view(SAMPLE_ROW)`` names the parts of an array of shape (S, `WIDTH`).
SAMPLE_ROW = np.dtype(
    [
        ("energy", "f8"),
        ("cell", "f8", (3, 3)),
        ("stress", "f8", (6,)),
        ("pbc", "f8", (3,)),
        ("charge", "f8"),
        ("multiplicity", "f8"),
    ]
)
#: Numbers of a row.
WIDTH = SAMPLE_ROW.itemsize // 8


def first_number(name: str) -> int:
    """Return the index of the first number of a part of the row.

    Examples
    --------
    >>> first_number("stress")
    10
    """
    assert SAMPLE_ROW.fields is not None
    return SAMPLE_ROW.fields[name][1] // 8
