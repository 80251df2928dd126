"""Crystals to start from: AFLOW prototypes with other elements in them, and elemental metals and semiconductors.

Volumes: a substituted prototype of a compound is scaled by pymatgen's `RLSVolumePredictor` from the real crystal that the
prototype was taken from; on ten rock salts it is within 20 % of experiment, where `DLSVolumePredictor` is off by up to
45 %. Compounds of metals follow Zen's law: the volumes of their elements add up (Am. Mineral. 41, 523 (1956)); of fifteen
that were measured, fourteen are within 20 % and one at 22 %, where the other predictor is off by up to 2 x. Elements have
their experimental lattice constants from ASE.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import missing_dependency
from mlffstore_generators.seeds.base import NoSeedError

if TYPE_CHECKING:
    from ase import Atoms

#: Not drawn: noble gases, elements without a stable isotope, and the lanthanides but La and Ce, whose fourteen
#: near-equal chemistries would take over every trivalent site.
_EXCLUDED = {2, 10, 18, 36, 43, 54, *range(59, 72)}
_SYMBOLS_UP_TO = 83
_STRUCTURES = ("fcc", "bcc", "hcp", "diamond")
#: `DLSVolumePredictor` scales the shortest bond to a typical one; of 50 measured crystals it gives this share of the volume.
_DLS = 0.87
#: Diamond has 5.7, caesium 115 angstrom^3 an atom; nothing is much denser than the one or sparser than the other.
_DENSEST, _SPARSEST = 4.5, 120.0
#: No two atoms come closer than this multiple of the sum of their covalent radii.
_CONTACT = 0.75


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
    structures = {entry["tags"]["aflow"]: entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY}
    return tuple((tag, structures[tag]) for tag in sorted(structures) if 2 <= len(structures[tag].composition) <= 4)


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
    NoSeedError
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
    raise NoSeedError("prototype without integer oxidation states")


def draw_compound(rng: np.random.Generator, max_atoms: int) -> tuple[Atoms, str]:
    """Return a prototype with other elements in it, scaled to a plausible volume, and its tag.

    Every element is replaced by one that has the same oxidation state among its common ones (so the compound stays
    neutral); in a compound of metals, by another metal.
    """
    from pymatgen.io.ase import AseAtomsAdaptor

    index = int(rng.integers(len(prototypes())))
    tag, prototype = prototypes()[index]
    if len(prototype) > max_atoms:
        raise NoSeedError("prototype larger than max_atoms")
    if not prototype.is_ordered:
        raise NoSeedError("prototype with partial occupation")
    states = _oxidation(index)
    by_state, metals = species()
    chosen: dict[str, str] = {}
    for symbol in [element.symbol for element in prototype.composition.elements]:
        pool = metals if states is None else by_state.get(dict(states)[symbol], ())
        free = [candidate for candidate in pool if candidate not in chosen.values()]
        if not free:
            raise NoSeedError("no element of that oxidation state")
        chosen[symbol] = free[int(rng.integers(len(free)))]
    structure = prototype.copy()
    structure.replace_species(chosen)
    structure.scale_lattice(metallic_volume(structure) if states is None else ionic_volume(structure, prototype))
    return plain(AseAtomsAdaptor.get_atoms(structure)), f"aflow:{tag}"


def metallic_volume(structure: Any) -> float:
    """Return the volume of a compound of metals, angstrom^3: those of its elements, which pymatgen knows, add up."""
    from ase.units import mol

    volume = sum(n * float(element.molar_volume) for element, n in structure.composition.items())  # cm^3
    return float(volume * 1e24 / mol)


def ionic_volume(structure: Any, prototype: Any) -> float:
    """Return the volume of a compound, angstrom^3, predicted from that of a crystal of the same prototype.

    Radii decide it (RLS); typical bond lengths (DLS) must agree within a factor of two, and an atom takes no less room than
    in diamond and no more than in caesium. Where that fails, elements were put into a prototype whose bonds they do not
    make, such as selenium into carbon dumbbells.

    Raises
    ------
    NoSeedError
        If there is no prediction.
    """
    from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor, RLSVolumePredictor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # missing radii fall back inside the predictors
        try:
            volume = float(RLSVolumePredictor(check_isostructural=False).predict(structure, prototype))
            bonds = float(DLSVolumePredictor(min_scaling=None, max_scaling=None).predict(structure)) / _DLS
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise NoSeedError("no volume prediction") from error
    if not np.isfinite(volume) or not 0.5 < volume / bonds < 2:
        raise NoSeedError("predictions of the volume disagree")
    if not _DENSEST < volume / len(structure) < _SPARSEST:
        raise NoSeedError("predicted volume of no solid")
    return volume


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
        raise NoSeedError("element without a bulk structure") from error
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


def supercell(atoms: Atoms, min_atoms: int) -> Atoms:
    """Repeat a crystal along its shortest vector until it has enough atoms."""
    while len(atoms) < min_atoms:
        repeats = [1, 1, 1]
        repeats[int(np.argmin(np.round(atoms.cell.lengths(), 6)))] = 2
        atoms = atoms * repeats
    return atoms


def too_close(atoms: Atoms) -> bool:
    """Return whether two atoms, or an atom and an image, are closer than `_CONTACT` times the sum of their radii."""
    import vesin
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    first, second, distance = vesin.NeighborList(cutoff=2 * _CONTACT * float(radii.max()), full_list=False).compute(
        points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijd", copy=True
    )
    return bool((distance < _CONTACT * (radii[first] + radii[second])).any())
