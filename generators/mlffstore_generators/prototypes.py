"""Crystals to start from: AFLOW prototypes with other elements in them, and elemental metals and semiconductors.

Volumes: a substituted prototype of a compound is scaled by pymatgen's `RLSVolumePredictor` from the real crystal that the
prototype was taken from; on ten rock salts it is within 20 % of experiment, where `DLSVolumePredictor` is off by up to
45 %. Compounds of metals follow Zen's law: the volumes of their elements add up (Am. Mineral. 41, 523 (1956)); of fifteen
that were measured, fourteen are within 20 % and one at 22 %, where the other predictor is off by up to 2 x. Elements have
their experimental lattice constants from ASE.
"""

from __future__ import annotations

import functools
import gzip
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import missing_dependency
from mlffstore_generators.chemistry import LAST_ELEMENT, draw_class, draw_metals, draw_salt, is_drawn, is_metallic
from mlffstore_generators.seeds.base import NoSeedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

#: Prototypes and elements that are tried for a compound of the class that was drawn.
_TRIES = 40
_STRUCTURES = ("fcc", "bcc", "hcp", "diamond")
#: `DLSVolumePredictor` scales the shortest bond to a typical one; of 50 measured crystals it gives this share of the volume.
_DLS = 0.87
#: Diamond has 5.7, caesium 115 angstrom^3 an atom; nothing is much denser than the one or sparser than the other.
_DENSEST, _SPARSEST = 4.5, 120.0
#: No two atoms come closer than this multiple of the sum of their covalent radii.
_CONTACT = 0.75
#: Where releases of pymatgen have the AFLOW prototypes, below `pymatgen.analysis`.
_AFLOW = ("prototypes/aflow_prototypes.json.gz", "aflow_prototypes.json.gz", "aflow_prototypes.json")


@functools.lru_cache(maxsize=1)
def prototypes() -> tuple[tuple[str, Any], ...]:
    """Return (tag, pymatgen structure) of the AFLOW prototypes with two to four elements, sorted by tag.

    Mehl et al., Comput. Mater. Sci. 136, S1 (2017), doi:10.1016/j.commatsci.2017.01.017.
    """
    try:
        import pymatgen.analysis
        from pymatgen.core import Structure
    except ImportError as error:
        raise missing_dependency("pymatgen", "generators", "the generator 'crystals'") from error
    files = [Path(folder) / file for folder in pymatgen.analysis.__path__ for file in _AFLOW]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        structures = imported_prototypes()
    else:
        data = file.read_bytes()
        entries = json.loads(gzip.decompress(data) if file.suffix == ".gz" else data)
        structures = {entry["tags"]["aflow"]: Structure.from_dict(entry["snl"]) for entry in entries}
    return tuple((tag, structures[tag]) for tag in sorted(structures) if 2 <= len(structures[tag].composition) <= 4)


def imported_prototypes() -> dict[str, Any]:
    """Return the structure of each AFLOW prototype as pymatgen's own module has it.

    It parses 288 BibTeX entries with them: eight seconds of processor time for each process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen's own deprecations
        from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
    return {entry["tags"]["aflow"]: entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY}


@dataclass(frozen=True, slots=True)
class _Sites:
    """The elements of a prototype, the anion last: how many atoms of each, and whether each cation is a metal."""

    symbols: tuple[str, ...]
    counts: tuple[int, ...]
    metallic: tuple[bool, ...]
    intermetallic: bool


@functools.lru_cache(maxsize=512)
def _sites(index: int) -> _Sites:
    composition = prototypes()[index][1].composition.reduced_composition
    elements = sorted(composition.elements, key=lambda element: (element.X, element.symbol))
    symbols = tuple(element.symbol for element in elements)
    counts = tuple(int(composition[element]) for element in elements)
    return _Sites(
        symbols, counts, tuple(is_metallic(symbol) for symbol in symbols[:-1]),
        all(element.is_metal for element in elements),
    )  # fmt: skip


@functools.lru_cache(maxsize=2)
def _prototypes_of(intermetallic: bool) -> tuple[int, ...]:
    """Return the indices of the ordered prototypes that are, or are not, of metals alone."""
    return tuple(
        k for k, (_, one) in enumerate(prototypes()) if one.is_ordered and _sites(k).intermetallic == intermetallic
    )


def draw_compound(
    rng: np.random.Generator, max_atoms: int, classes: Mapping[str, float] | None = None
) -> tuple[Atoms, str]:
    """Return a prototype with other elements in it, scaled to a plausible volume, and its tag.

    The most electronegative element of the prototype becomes the anion of a class that is drawn, the others become cations
    that are less electronegative and neutralise it; in a compound of metals every element becomes another metal.

    Parameters
    ----------
    rng : numpy.random.Generator
    max_atoms : int
        Atoms in the cell of the prototype, at most.
    classes : mapping of str to float, optional
        Shares of the classes of compounds; `mlffstore_generators.chemistry.SHARES` by default.
    """
    kind = draw_class(rng, classes)
    reason = NoSeedError("no compound")
    for _ in range(_TRIES):  # in the class that was drawn, or classes that fail seldom would have more than their share
        try:
            return _draw_of(kind, rng, max_atoms)
        except NoSeedError as error:
            reason = error
    raise NoSeedError(f"{kind}: {reason}")


def _draw_of(kind: str, rng: np.random.Generator, max_atoms: int) -> tuple[Atoms, str]:
    """Return a compound of a class and the tag of its prototype."""
    from pymatgen.io.ase import AseAtomsAdaptor

    pool = _prototypes_of(kind == "intermetallic")
    index = pool[int(rng.integers(len(pool)))]
    tag, prototype = prototypes()[index]
    if len(prototype) > max_atoms:
        raise NoSeedError("prototype larger than max_atoms")
    sites = _sites(index)
    if kind == "intermetallic":
        chosen = draw_metals(rng, len(sites.symbols))
    else:
        cations, anion = draw_salt(rng, kind, sites.counts, sites.metallic)
        chosen = [*cations, anion]
    structure = prototype.copy()
    structure.replace_species(dict(zip(sites.symbols, chosen, strict=True)))
    volume = metallic_volume(structure) if kind == "intermetallic" else ionic_volume(structure, prototype)
    structure.scale_lattice(volume)
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
        for z in range(1, LAST_ELEMENT + 1)
        if is_drawn(z) and (reference_states[z] or {}).get("symmetry") in _STRUCTURES
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


def bare_crystal(atoms: Atoms) -> Atoms:
    """Return a crystal that may be repeated, cut and made defective: without a charge, and with the lowest multiplicity.

    Raises
    ------
    NoSeedError
        If it is not periodic in three directions, or has a charge or a spin: that of what is made of it is not known.
    """
    if not atoms.pbc.all():
        raise NoSeedError("the host is no crystal")
    charge, multiplicity = (int(atoms.info.get(name, 0) or 0) for name in ("charge", "multiplicity"))
    if charge or multiplicity > 1 + int(atoms.numbers.sum()) % 2:
        raise NoSeedError("the host has a charge or a spin, which cannot be told for what is made of it")
    atoms = atoms.copy()
    atoms.info = {name: value for name, value in atoms.info.items() if name not in ("charge", "multiplicity")}
    return atoms


def supercell(atoms: Atoms, min_atoms: int) -> Atoms:
    """Repeat a crystal along its shortest vector until it has enough atoms."""
    while len(atoms) < min_atoms:
        repeats = [1, 1, 1]
        repeats[int(np.argmin(np.round(atoms.cell.lengths(), 6)))] = 2
        atoms = atoms * repeats
    return atoms


def too_close(atoms: Atoms) -> bool:
    """Return whether two atoms, or an atom and an image, are closer than `_CONTACT` times the sum of their radii."""
    from ase.data import covalent_radii

    from mlffstore.data.geometry import pairs

    radii = covalent_radii[atoms.numbers]
    near = pairs(
        np.array([0, len(atoms)]), atoms.positions, atoms.cell.array[None], np.ones((1, 3), bool),
        2 * _CONTACT * float(radii.max()),
    )  # fmt: skip
    return bool((near.distance < _CONTACT * (radii[near.first] + radii[near.second])).any())


def identity(atoms: Atoms) -> str:
    """Return what a crystal is, whatever its supercell, strain or defects: its reduced composition.

    Supercells, slabs and defects of one crystal have the same, so that they share a root and never straddle splits. So have
    all arrangements of a composition: relaxation makes one of another.
    """
    from math import gcd

    counts: dict[str, int] = {}
    for symbol in atoms.get_chemical_symbols():
        counts[symbol] = counts.get(symbol, 0) + 1
    unit = gcd(*counts.values())
    return "crystal " + " ".join(f"{symbol}{n // unit}" for symbol, n in sorted(counts.items()))


def wide_supercell(atoms: Atoms, distance: float) -> Atoms:
    """Repeat a crystal until opposite faces of its cell are `distance` (angstrom) apart, so that images are too."""
    faces = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    return atoms * [max(1, int(np.ceil(distance / face - 1e-6))) for face in faces]
