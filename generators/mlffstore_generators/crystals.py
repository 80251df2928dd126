"""Crystals: prototypes and elements, as supercells, strained and rattled."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.batch import SampleBatch, concatenate
from mlffstore.errors import DataError, missing_dependency
from mlffstore.protocols import Generated
from mlffstore_generators.prototypes import NoCrystalError, draw_compound, draw_element
from mlffstore_generators.rattle import log_uniform, rattled, strained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

#: No two atoms come closer than this multiple of the sum of their covalent radii.
_CONTACT = 0.75
#: Draws for every structure that is needed, before the options are called impossible.
_DRAWS = 50


@dataclass(frozen=True)
class CrystalGenerator:
    """Crystals of AFLOW prototypes and of elements, strained and rattled.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Sizes of the supercells.
    frames : int, optional
        Structures of a crystal.
    strain : float, optional
        Standard deviation of each of the six components of the strain.
    rattle : tuple of float, optional
        Range of the log-uniform amplitude of a Gaussian displacement of every coordinate, angstrom.
    elemental : float, optional
        Share of crystals of one element.
    elements : tuple of str, optional
        Allowed elements; all by default. Draws with others are skipped.
    """

    min_atoms: int = 10
    max_atoms: int = 60
    frames: int = 4
    strain: float = 0.02
    rattle: tuple[float, float] = (0.02, 0.12)
    elemental: float = 0.2
    elements: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rattle", tuple(float(a) for a in self.rattle))
        if self.elements is not None:
            object.__setattr__(self, "elements", tuple(self.elements))
        problems = []
        if not 1 <= self.min_atoms <= self.max_atoms:
            problems.append(f"1 <= min_atoms <= max_atoms, got {self.min_atoms} and {self.max_atoms}")
        if self.frames < 1:
            problems.append(f"at least one frame, got {self.frames}")
        if not 0 <= self.strain < 0.2:
            problems.append(f"a strain of 0 to 0.2, got {self.strain}")
        if not 0 <= self.elemental <= 1:
            problems.append(f"an elemental share of 0 to 1, got {self.elemental}")
        if len(self.rattle) != 2 or not 0 < self.rattle[0] <= self.rattle[1]:
            problems.append(f"a rattle range of two positive amplitudes, got {self.rattle}")
        if problems:
            raise DataError("crystals: expected " + "; ".join(problems))

    def generate(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` structures of about ``count / frames`` crystals."""
        batches: list[SampleBatch] = []
        skipped: Counter[str] = Counter()
        made = 0
        for _ in range(_DRAWS * count):
            if made >= count:
                break
            # One stream a crystal, drawn whatever becomes of it: a failure does not shift the others.
            own = np.random.default_rng(rng.integers(2**63, size=2))
            try:
                seed, source = self._seed(own)
                frames = [self._variant(seed, own) for _ in range(min(self.frames, count - made))]
            except NoCrystalError as error:
                skipped[str(error)] += 1
                continue
            made += len(frames)
            root = SampleBatch.from_ase([seed]).astype("float32").content_hash[0]
            batches.append(SampleBatch.from_ase(frames, source=source, sampler="strain-rattle").with_columns(root=root))
        if made < count:
            raise DataError(
                f"crystals: {_DRAWS * count} draws gave {made} of {count} structures ({dict(skipped)}); "
                "widen min_atoms, max_atoms or elements"
            )
        return Generated(concatenate(batches), dict(skipped))

    def provenance(self) -> Mapping[str, Any]:
        """Return options, sources and licences."""
        from importlib.util import find_spec

        if find_spec("pymatgen") is None:
            raise missing_dependency("pymatgen", "generators", "the generator 'crystals'")
        return {
            "generator": "crystals",
            "options": dataclasses.asdict(self),
            "seeds": [
                {
                    "name": "aflow",
                    "what": "AFLOW prototypes in pymatgen, elements substituted at equal oxidation state",
                    "licence": "MIT (pymatgen); cite doi:10.1016/j.commatsci.2017.01.017",
                },
                {"name": "ase-bulk", "what": "reference states of the elements in ASE", "licence": "LGPL-2.1-or-later"},
            ],
            "methods": ["pymatgen RLSVolumePredictor"],
        }

    def _seed(self, rng: np.random.Generator) -> tuple[Atoms, str]:
        """Return a supercell of a drawn crystal and where it came from."""
        atoms, source = draw_element(rng) if rng.random() < self.elemental else draw_compound(rng, self.max_atoms)
        if self.elements is not None and not set(atoms.get_chemical_symbols()) <= set(self.elements):
            raise NoCrystalError("element that is not allowed")
        atoms = supercell(atoms, self.min_atoms)
        if len(atoms) > self.max_atoms:
            raise NoCrystalError("supercell larger than max_atoms")
        if too_close(atoms):
            raise NoCrystalError("atoms too close")
        return atoms, source

    def _variant(self, seed: Atoms, rng: np.random.Generator) -> Atoms:
        atoms = rattled(strained(seed, self.strain, rng), log_uniform(rng, self.rattle), rng)
        if too_close(atoms):
            raise NoCrystalError("atoms too close after the rattle")
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
    import vesin
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    first, second, distance = vesin.NeighborList(cutoff=2 * _CONTACT * float(radii.max()), full_list=False).compute(
        points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijd", copy=True
    )
    return bool((distance < _CONTACT * (radii[first] + radii[second])).any())
