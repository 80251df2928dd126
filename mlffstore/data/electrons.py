"""Charge and spin multiplicity: the names under which frames hold them, and whether the electrons allow them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array

Role = Literal["charge", "multiplicity", "unpaired"]
#: Names in use, without case and separators: ASE, MACE (`total_charge`, `total_spin`), fairchem (`charge`, `spin`),
#: AIMNet, NequIP, xtb (`uhf`). All of them name the total of a sample; per-atom `charges` are another quantity.
_NAMES: dict[str, Role] = {
    **dict.fromkeys(
        ("charge", "totalcharge", "netcharge", "totcharge", "systemcharge", "molecularcharge", "molcharge"), "charge"
    ),
    **dict.fromkeys(("multiplicity", "spinmultiplicity", "mult", "totalspin", "spin"), "multiplicity"),
    **dict.fromkeys(("unpaired", "nunpaired", "unpairedelectrons", "numunpaired", "uhf"), "unpaired"),
}
_LIMITS = np.iinfo(np.int16)


@functools.lru_cache(maxsize=4096)
def role(name: Any) -> Role | None:
    """Return what a name stands for: the total charge, the multiplicity 2S+1, the unpaired electrons 2S, or nothing.

    Examples
    --------
    >>> role("total_charge"), role("Spin-Multiplicity"), role("charges")
    ('charge', 'multiplicity', None)
    """
    if not isinstance(name, str):
        return None
    return _NAMES.get(name.lower().replace("_", "").replace("-", "").replace(" ", ""))


def reads_as(name: str, what: str) -> str:
    """Return under which name `resolve` reads a value that a caller named as "charge" or "multiplicity".

    Where its own name says what it means (2S, 2S+1), that counts; else it is the quantity itself.
    """
    own = role(name)
    return name if own is not None and (own == "charge") == (what == "charge") else what


def whole(name: str, value: Any) -> int | None:
    """Return a whole number that a frame holds, None for a value that is None.

    Raises
    ------
    ValueError
        If it is not one whole number that fits int16; the message says what was expected and what was there.
    """
    if value is None:
        return None
    if type(value) is int and _LIMITS.min <= value <= _LIMITS.max:  # the usual case
        return value
    try:
        array = np.asarray(value)
        number = float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind != "b" else float("nan")
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer() or not _LIMITS.min <= number <= _LIMITS.max:
        raise ValueError(f"expected a whole number as {name}, got {str(value)[:40]!r}")
    return int(number)


def resolve(
    named: Iterable[tuple[str, Any]], spin: Literal["multiplicity", "unpaired"] = "multiplicity"
) -> tuple[int | None, int | None]:
    """Return the charge and the multiplicity that names and values give, None where none gives it.

    Parameters
    ----------
    named : iterable of (str, object)
        Names for which `role` returns something, with their values.
    spin : {"multiplicity", "unpaired"}, optional
        What a value under "spin" or "total_spin" is: 2S+1 (fairchem, MACE), or 2S.

    Raises
    ------
    ValueError
        If a value is not a whole number, two names disagree, or a multiplicity is below 1.
    """
    resolved: dict[str, tuple[str, int]] = {}
    for name, value in named:
        what, number = role(name), whole(name, value)
        if number is None or what is None:
            continue
        is_spin = "spin" in name.lower() and "mult" not in name.lower()
        if what == "unpaired" or (is_spin and spin == "unpaired"):
            what, number = "multiplicity", number + 1
        elif is_spin and number == 0:
            raise ValueError(
                f"expected the spin multiplicity 2S+1, at least 1, as {name}, got 0; in this data it may count unpaired "
                "electrons, or stand for a spin that was not recorded"
            )
        if what == "multiplicity" and number < 1:
            raise ValueError(f"expected a multiplicity of at least 1 as {name}, got {value}")
        first = resolved.setdefault(what, (name, number))
        if first[1] != number:
            raise ValueError(f"expected one {what}, got {first[1]} as {first[0]} and {number} as {name}")
    charge, multiplicity = resolved.get("charge"), resolved.get("multiplicity")
    return (charge[1] if charge else None), (multiplicity[1] if multiplicity else None)


def lowest_multiplicity(numbers: Array, charge: Array, starts: Ints) -> Array:
    """Return the lowest multiplicity that the number of electrons allows: 1 if it is even and 2 if it is odd.

    Parameters
    ----------
    numbers : ndarray, shape (A,)
        Atomic numbers.
    charge : ndarray, shape (S,)
        Total charges, e.
    starts : ndarray, shape (S+1,), int64
        Start of each sample in the atom axis.

    Returns
    -------
    ndarray, shape (S,), int16
    """
    if len(starts) == 1:
        return np.zeros(0, np.int16)
    electrons = np.add.reduceat(numbers.astype(np.int64), starts[:-1]) - charge
    return (1 + electrons % 2).astype(np.int16)


def forbidden(n_protons: int, charge: int, multiplicity: int) -> str:
    """Return why the electrons of a molecule forbid a multiplicity, or "".

    An even number of electrons has an odd multiplicity and the reverse, and there are no more unpaired electrons than
    electrons. It does not hold for the cell of a crystal, whose bands may be filled in part.
    """
    electrons = n_protons - charge
    if electrons < 0:
        return f"a charge of {charge} with {n_protons} protons leaves {electrons} electrons"
    if (multiplicity - 1) % 2 != electrons % 2 or multiplicity - 1 > electrons:
        return f"{electrons} electrons (charge {charge}) forbid the multiplicity {multiplicity}"
    return ""
