"""Crystals to start from: AFLOW prototypes with other elements in them, and elemental metals and semiconductors.

Volumes: a substituted prototype is scaled by pymatgen's `RLSVolumePredictor` from the real crystal that the prototype was
taken from; on ten rock salts it is within 20 % of experiment, where `DLSVolumePredictor` is off by up to 37 %. Elements
have their experimental lattice constants from ASE.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import missing_dependency

if TYPE_CHECKING:
    from ase import Atoms

#: Not drawn: noble gases, elements without a stable isotope, and the lanthanides but La and Ce, whose fourteen
#: near-equal chemistries would take over every trivalent site.
_EXCLUDED = {2, 10, 18, 36, 43, 54, *range(59, 72)}
_SYMBOLS_UP_TO = 83
_STRUCTURES = ("fcc", "bcc", "hcp", "diamond")


class NoCrystalError(Exception):
    """A draw gives no crystal; the text is the reason under which it is counted."""


@functools.lru_cache(maxsize=1)
def prototypes() -> tuple[tuple[str, Any], ...]:
    """Return (tag, pymatgen structure) of the AFLOW prototypes with two to four elements, sorted by tag.

    Mehl et al., Comput. Mater. Sci. 136, S1 (2017), doi:10.1016/j.commatsci.2017.01.017.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen's own deprecations
            from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
    except ImportError as error:
        raise missing_dependency("pymatgen", "generators", "the generator 'crystals'") from error
    found = {entry["tags"]["aflow"]: entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY}
    return tuple((tag, found[tag]) for tag in sorted(found) if 2 <= len(found[tag].composition) <= 4)


@functools.lru_cache(maxsize=1)
def species() -> tuple[dict[int, tuple[str, ...]], tuple[str, ...]]:
    """Return the elements of each common oxidation state, and the metals, in order of atomic number."""
    from pymatgen.core import Element

    allowed = [Element.from_Z(z) for z in range(1, _SYMBOLS_UP_TO + 1) if z not in _EXCLUDED]
    states: dict[int, list[str]] = {}
    for element in allowed:
        for state in element.common_oxidation_states:
            states.setdefault(state, []).append(element.symbol)
    metals = tuple(element.symbol for element in allowed if element.is_metal)
    return {state: tuple(symbols) for state, symbols in states.items()}, metals


@functools.lru_cache(maxsize=512)
def _oxidation(index: int) -> tuple[tuple[str, int], ...] | None:
    """Return the oxidation state of each element of a prototype, None for a compound of metals.

    Raises
    ------
    NoCrystalError
        If no integer states make it neutral.
    """
    structure = prototypes()[index][1]
    symbols = [element.symbol for element in structure.composition.elements]
    if all(symbol in species()[1] for symbol in symbols):
        return None
    guesses = structure.composition.reduced_composition.oxi_state_guesses(max_sites=-50)
    for guess in guesses:
        if all(float(state).is_integer() and state != 0 for state in guess.values()):
            return tuple((symbol, int(guess[symbol])) for symbol in symbols)
    raise NoCrystalError("prototype without integer oxidation states")


def draw_compound(rng: np.random.Generator, max_atoms: int) -> tuple[Atoms, str]:
    """Return a prototype with other elements in it, scaled to a plausible volume, and its tag.

    Every element is replaced by one that has the same oxidation state among its common ones (so the compound stays
    neutral); in a compound of metals, by another metal.
    """
    from pymatgen.analysis.structure_prediction.volume_predictor import RLSVolumePredictor
    from pymatgen.io.ase import AseAtomsAdaptor

    index = int(rng.integers(len(prototypes())))
    tag, prototype = prototypes()[index]
    if len(prototype) > max_atoms:
        raise NoCrystalError("prototype larger than max_atoms")
    if not prototype.is_ordered:
        raise NoCrystalError("prototype with partial occupation")
    states = _oxidation(index)
    by_state, metals = species()
    chosen: dict[str, str] = {}
    for symbol in [element.symbol for element in prototype.composition.elements]:
        pool = metals if states is None else by_state.get(dict(states)[symbol], ())
        free = [candidate for candidate in pool if candidate not in chosen.values()]
        if not free:
            raise NoCrystalError("no element of that oxidation state")
        chosen[symbol] = free[int(rng.integers(len(free)))]
    structure = prototype.copy()
    structure.replace_species(chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # missing radii fall back inside the predictor
        try:
            volume = RLSVolumePredictor(check_isostructural=False).predict(structure, prototype)
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise NoCrystalError("no volume prediction") from error
    if not np.isfinite(volume) or volume <= 0:
        raise NoCrystalError("no volume prediction")
    structure.scale_lattice(float(volume))
    return plain(AseAtomsAdaptor.get_atoms(structure)), f"aflow:{tag}"


def draw_element(rng: np.random.Generator) -> tuple[Atoms, str]:
    """Return an elemental crystal: an element in its own structure, or a metal in fcc, bcc or hcp at its own density."""
    from ase.build import bulk
    from ase.data import chemical_symbols, reference_states

    known = [
        z
        for z in range(1, _SYMBOLS_UP_TO + 1)
        if z not in _EXCLUDED and (reference_states[z] or {}).get("symmetry") in _STRUCTURES
    ]
    z = known[int(rng.integers(len(known)))]
    symbol, own = chemical_symbols[z], reference_states[z]["symmetry"]
    try:
        atoms, structure = bulk(symbol), own
    except ValueError as error:  # ASE's reference state lacks the basis
        raise NoCrystalError("element without a bulk structure") from error
    if own != "diamond" and rng.random() < 0.5:
        structure = ("fcc", "bcc", "hcp")[int(rng.integers(3))]
        volume = atoms.get_volume() / len(atoms)
        # hcp with the ideal c/a: the volume of an atom is a^3 / sqrt(2), as in fcc with nearest neighbours at a.
        a = {"fcc": (4 * volume) ** (1 / 3), "bcc": (2 * volume) ** (1 / 3), "hcp": (np.sqrt(2) * volume) ** (1 / 3)}
        options = {"covera": np.sqrt(8 / 3)} if structure == "hcp" else {}
        atoms = bulk(symbol, structure, a=float(a[structure]), **options)
    return plain(atoms), f"ase-bulk:{structure}"


def plain(atoms: Atoms) -> Atoms:
    """Return a right-handed crystal without the tags and constraints of where it came from."""
    from ase import Atoms as Plain

    cell, numbers, scaled = atoms.cell.array, atoms.numbers, atoms.get_scaled_positions()
    if np.linalg.det(cell) < 0:
        cell, scaled = cell[[1, 0, 2]], scaled[:, [1, 0, 2]]
    return Plain(numbers, scaled_positions=scaled, cell=cell, pbc=True)
