"""Values of a file as numbers in the shape of a label."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from mlffstore.data.voigt import COMPONENTS, symmetric

#: Texts that are numbers: without leading zeros, which identifiers have.
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)")
_REAL = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)


class FieldText(str):
    """A text of a format whose fields are all texts: whether it is a number is decided for many records together."""

    __slots__ = ()

    def number(self) -> int | float | None:
        """Return the number that it is written as, None if it is none, or an identifier such as 00123."""
        plain = self.strip()
        if _INTEGER.fullmatch(plain):
            return int(plain) if abs(int(plain)) < 2**63 else None
        return float(plain) if _REAL.fullmatch(plain) else None


def as_text(value: Any) -> str:
    """Return the text of a unit, which may be bytes, or an array that holds one text."""
    array = np.ravel(np.asarray(value))
    one = array[0] if array.size == 1 else value
    return one.decode("utf-8", errors="replace") if isinstance(one, bytes) else str(one)


def numbers(value: Any) -> Any:
    """Return float64 numbers, or None where the value is not made of numbers (flags and texts are not)."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "U" and array.size == 1 and not str(array.reshape(-1)[0]).strip():
            return np.zeros(0)  # nothing is given
        if array.dtype.kind in "biuf" or array.dtype.kind == "O":
            return None if array.dtype.kind == "b" else array.astype(np.float64)
        return np.asarray(float(value)) if array.dtype.kind == "U" and array.size == 1 else None
    except (TypeError, ValueError):
        return None


def shaped(label: str, array: Any, n_atoms: int) -> Any:
    """Return a label in the store's shape (3x3 for stress and virial as matrices), or None if the shape is another."""
    if label == "energy":
        return array.reshape(-1)[0] if array.size == 1 else None
    if label == "forces":
        return array if array.shape == (n_atoms, 3) else None
    if array.size == 9 and array.shape in ((9,), (3, 3), (1, 9), (1, 3, 3)):
        return array.reshape(3, 3)
    return array.reshape(6) if label == "stress" and array.size == 6 and array.shape in ((6,), (1, 6)) else None


def voigt(stress: Any) -> Any:
    """Return a stress as six numbers xx yy zz yz xz xy, the mean of both halves of a matrix."""
    from ase.stress import full_3x3_to_voigt_6_stress

    return stress if stress.shape == (6,) else full_3x3_to_voigt_6_stress(stress)


def voigt_rows(matrices: Any, name: str = "stress") -> Any:
    """Return stresses, shape (S, 3, 3), as six numbers each, xx yy zz yz xz xy, shape (S, 6).

    Raises
    ------
    ValueError
        If a matrix is not symmetric, see `mlffstore.data.voigt.symmetric`.
    """
    half = symmetric(matrices, name)
    return np.stack([half[:, i, j] for i, j in COMPONENTS], axis=1)
