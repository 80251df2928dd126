"""Which elements make which kinds of compounds: classes by anion, oxidation states, electronegativities.

A compound of a class has one kind of anion, and cations that are less electronegative than it, in common oxidation states
that add up to zero. What it does NOT do: say whether a compound is stable.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.seeds.base import NoSeedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Not drawn: noble gases, elements without a stable isotope, and most lanthanides.
_EXCLUDED = {2, 10, 18, 36, 43, 54, 59, 61, 63, 65, 67, 69, 71}
#: Atomic number of the heaviest element that is drawn.
LAST_ELEMENT = 83
#: Nd, Sm, Gd, Dy, Er and Yb are drawn this often, compared with other elements: their near-equal chemistries would take over
#: every trivalent site.
_RARE_EARTHS, _RARE_WEIGHT = {60, 62, 64, 66, 68, 70}, 0.15
#: Anions of each class with their charges and weights.
ANIONS: dict[str, tuple[tuple[str, int, float], ...]] = {
    "oxide": (("O", -2, 1.0),),
    "chalcogenide": (("S", -2, 0.6), ("Se", -2, 0.25), ("Te", -2, 0.15)),
    "halide": (("F", -1, 0.35), ("Cl", -1, 0.35), ("Br", -1, 0.15), ("I", -1, 0.15)),
    "nitride": (("N", -3, 0.6), ("P", -3, 0.2), ("As", -3, 0.1), ("Sb", -3, 0.1)),
    "hydride": (("H", -1, 1.0),),
    "carbide": (("C", -4, 0.7), ("Si", -4, 0.3)),
}
#: Shares of the classes among compounds.
SHARES: dict[str, float] = {
    "oxide": 0.40, "chalcogenide": 0.14, "halide": 0.14, "nitride": 0.11, "hydride": 0.05, "carbide": 0.02,
    "intermetallic": 0.14,
}  # fmt: skip
#: A cation is less electronegative than the anion by this much (Pauling), or the bond is hardly ionic.
_CONTRAST = 0.2


def check_classes(what: str, classes: Mapping[str, float] | None) -> dict[str, float] | None:
    """Return shares of classes as numbers; raise `DataError` for classes that do not exist."""
    if classes is None:
        return None
    shares = {str(name): float(share) for name, share in dict(classes).items()}
    strange = [name for name in shares if name not in SHARES]
    if strange or not shares or min(shares.values()) < 0 or not sum(shares.values()) > 0:
        raise DataError(f"{what}: expected classes with shares, of {', '.join(SHARES)}, got {shares}")
    return shares


def draw_class(rng: np.random.Generator, classes: Mapping[str, float] | None) -> str:
    """Return a class of compounds, drawn by shares."""
    shares = SHARES if classes is None else classes
    names, weights = list(shares), np.array(list(shares.values()))
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def is_drawn(z: int) -> bool:
    """Return whether compounds may have the element of that atomic number."""
    return 1 <= z <= LAST_ELEMENT and z not in _EXCLUDED


@functools.lru_cache(maxsize=1)
def species() -> tuple[dict[int, tuple[str, ...]], tuple[str, ...]]:
    """Return the elements of each common oxidation state, and the metals, in order of atomic number."""
    from pymatgen.core import Element

    allowed = [Element.from_Z(z) for z in range(1, LAST_ELEMENT + 1) if z not in _EXCLUDED]
    states: dict[int, list[str]] = {}
    for element in allowed:
        for state in element.common_oxidation_states:
            states.setdefault(state, []).append(element.symbol)
    metals = tuple(element.symbol for element in allowed if element.is_metal)
    return {state: tuple(symbols) for state, symbols in states.items()}, metals


@dataclass(frozen=True, slots=True)
class _Element:
    """What decides where an element may sit."""

    symbol: str
    electronegativity: float
    metallic: bool
    weight: float


@functools.lru_cache(maxsize=1)
def _elements() -> dict[str, _Element]:
    from pymatgen.core import Element

    out = {}
    for z in range(1, LAST_ELEMENT + 1):
        if z not in _EXCLUDED:
            element = Element.from_Z(z)
            weight = _RARE_WEIGHT if z in _RARE_EARTHS else 1.0
            metallic = bool(element.is_metal or element.is_metalloid)
            out[element.symbol] = _Element(element.symbol, float(element.X), metallic, weight)
    return out


def is_metallic(symbol: str) -> bool:
    """Return whether an element is a metal or a metalloid."""
    from pymatgen.core import Element

    element = Element(symbol)
    return bool(element.is_metal or element.is_metalloid)


def draw_metals(rng: np.random.Generator, count: int) -> list[str]:
    """Return different metals."""
    return _pick(rng, species()[1], count)


def draw_salt(
    rng: np.random.Generator, kind: str, counts: Sequence[int], metallic: Sequence[bool]
) -> tuple[list[str], str]:
    """Return cations and the anion of a neutral compound.

    Parameters
    ----------
    rng : numpy.random.Generator
    kind : str
        One of `ANIONS`.
    counts : sequence of int
        Atoms of each cation in a formula unit, and last those of the anion.
    metallic : sequence of bool
        For each cation whether it must be a metal or metalloid; others may be the centres of oxoanions.

    Raises
    ------
    NoSeedError
        If there is none.
    """
    known, (by_state, _) = _elements(), species()
    anions = ANIONS[kind]
    weights = np.array([weight for _, _, weight in anions])
    anion, charge, _ = anions[int(rng.choice(len(anions), p=weights / weights.sum()))]
    limit = known[anion].electronegativity - _CONTRAST
    positive = sorted(state for state in by_state if state > 0)
    pools: list[dict[int, list[str]]] = []
    for must in metallic:
        pool = {
            state: [
                symbol
                for symbol in by_state[state]
                if symbol not in (anion, "H") and known[symbol].electronegativity < limit
                and (known[symbol].metallic or not must)
            ]
            for state in positive
        }  # fmt: skip
        pools.append({state: symbols for state, symbols in pool.items() if symbols})
    total = -charge * counts[-1]
    answers = [
        states
        for states in itertools.product(*(sorted(pool) for pool in pools))
        if sum(n * state for n, state in zip(counts, states, strict=False)) == total
    ]
    if not answers:
        raise NoSeedError(f"no {kind} of that stoichiometry")
    states = answers[int(rng.integers(len(answers)))]
    chosen: list[str] = []
    for pool, state in zip(pools, states, strict=True):
        free = [symbol for symbol in pool[state] if symbol not in chosen]
        if not free:
            raise NoSeedError("no element of that oxidation state")
        chosen += _pick(rng, free, 1)
    return chosen, anion


def _pick(rng: np.random.Generator, symbols: Sequence[str], count: int) -> list[str]:
    weights = np.array([_elements()[symbol].weight for symbol in symbols])
    picked = rng.choice(len(symbols), size=count, replace=False, p=weights / weights.sum())
    return [symbols[int(k)] for k in picked]
