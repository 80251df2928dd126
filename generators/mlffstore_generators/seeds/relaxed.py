"""Seeds near the equilibrium of a teacher: others, relaxed for some steps, cell included; the path is kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import FollowingTeacher
from mlffstore.contracts.registry import shared_teacher
from mlffstore.errors import DataError
from mlffstore_generators.options import check_options
from mlffstore_generators.prototypes import bare_crystal, supercell
from mlffstore_generators.rattle import rattled
from mlffstore_generators.seeds.base import NoSeedError, PathFrames, Seed, Seeds, check_sizes, get_seeds
from mlffstore_generators.seeds.drawing import Drawing, Question, draw_alone, drawing

if TYPE_CHECKING:
    from collections.abc import Generator

    from ase import Atoms

    from mlffstore.contracts.protocols import Teacher, TeacherLabels

#: Displacement with which a relaxation starts, angstrom: symmetric sites have no forces.
_START = 0.03
#: No atom moves farther in a step, angstrom.
_STEP = 0.15
#: The volume may change by this factor, or it is another crystal.
_SWELL = 2.5


@dataclass(frozen=True)
class Relaxed:
    """Seeds of another class, on their way to a minimum of a teacher's energy.

    Parameters
    ----------
    seeds : str or mapping
        The class of seeds that are relaxed.
    teacher : str, optional
        Teacher whose energy is lowered.
    teacher_options : mapping, optional
        Options of the teacher.
    steps : int, optional
        Calls of the teacher for a seed, at most.
    fmax : float, optional
        The largest force at which a relaxation ends, eV/angstrom; the stress times the volume, per atom, counts as a force.
    force, pressure : float, optional
        Seeds whose forces (eV/angstrom) or whose pressure (GPa, either sign) are larger at the end are passed over.
    cell : bool, optional
        Whether the cell of a structure that is periodic in all directions relaxes too.
    min_atoms : int, optional
        Crystals are repeated afterwards until they have so many atoms: large cells at the price of small ones.
    max_atoms : int, optional
        Seeds that have more atoms then are passed over.

    Notes
    -----
    BFGS of ASE, with the cell as in Tadmor et al., Phys. Rev. B 59, 235 (1999). The seed keeps its root.
    """

    seeds: Any = "crystals"
    teacher: str = "chgnet"
    teacher_options: dict[str, Any] = field(default_factory=dict)
    steps: int = 40
    fmax: float = 0.05
    force: float = 0.5
    pressure: float = 3.0
    cell: bool = True
    min_atoms: int = 1
    max_atoms: int = 500

    def __post_init__(self) -> None:
        check_options("relaxed", self)
        if self.steps < 1 or min(self.fmax, self.force, self.pressure) <= 0:
            raise DataError("relaxed: expected positive steps, fmax, force and pressure")
        check_sizes("relaxed", self.min_atoms, self.max_atoms)
        self.source  # noqa: B018  # wrong seeds are told of now, not in a worker

    @cached_property
    def source(self) -> Seeds:
        """The class of seeds that are relaxed."""
        return get_seeds(self.seeds)

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a seed near its equilibrium, with the path that led there."""
        return draw_alone(self.drawing(rng))

    def drawing(self, rng: np.random.Generator) -> Drawing:
        """Return the draw of a seed near its equilibrium; it asks for the labels of each step."""
        from ase.units import GPa

        from mlffstore_generators.samplers.base import sound

        seed = yield from drawing(self.source, rng)
        teacher = shared_teacher(self.teacher, self.teacher_options)
        path = yield from descent(rattled(seed.atoms, _START, rng), teacher, self.fmax, self.steps, cell=self.cell)
        atoms = path.frames[-1]
        if len(seed.bonds) and not sound(atoms, seed):
            raise NoSeedError("bonds changed in the relaxation")
        if seed.atoms.pbc.all() and not 1 / _SWELL < atoms.get_volume() / seed.atoms.get_volume() < _SWELL:
            raise NoSeedError("relaxed to another volume altogether")
        if np.linalg.norm(path.forces[-1], axis=1).max() > self.force:
            raise NoSeedError("relaxation is far from its end")
        stress = path.stress[-1]
        if self.cell and np.isfinite(stress).all() and abs(stress[:3].mean()) > self.pressure * GPa:
            raise NoSeedError("relaxation is far from its end")
        atoms = atoms.copy()
        if len(atoms) < self.min_atoms:
            if not atoms.pbc.all() or len(seed.bonds):
                raise NoSeedError("too few atoms, and no crystal to repeat")
            atoms = supercell(bare_crystal(atoms), self.min_atoms)
        if len(atoms) > self.max_atoms:
            raise NoSeedError("more than max_atoms")
        return dataclasses.replace(seed, atoms=atoms, path=path, origin=seed.root)

    def provenance(self) -> list[dict[str, str]]:
        """Return the sources."""
        return self.source.provenance()


def descent(
    atoms: Atoms, teacher: Teacher, fmax: float, steps: int, *, cell: bool
) -> Generator[Question, TeacherLabels, PathFrames]:
    """Relax a structure by at most `steps` labels, and return the path; its last frame is the lowest point reached.

    Raises
    ------
    NoSeedError
        If the teacher refuses a structure on the way.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.filters import UnitCellFilter
    from ase.optimize import BFGS

    out = atoms.copy()
    target: Any = out
    if cell and out.pbc.all() and "stress" in teacher.info.properties:
        target = UnitCellFilter(out)  # the logarithm of FrechetCellFilter takes a fifth of the time, for the same steps
    optimizer = BFGS(target, logfile=None, maxstep=_STEP)
    structure = object()
    frames: list[Atoms] = []
    answers: list[TeacherLabels] = []
    while True:
        frame = out.copy()
        frame.positions = frame.positions.astype(np.float32)  # what is labelled is what is stored
        labels = yield Question(teacher, frame, structure)
        if not labels.ok[0]:
            raise NoSeedError(f"teacher: {labels.reasons[0]}")
        frames.append(frame)
        answers.append(labels)
        results = {"energy": float(labels.energy[0]), "forces": labels.forces.astype(np.float64)}
        if labels.stress is not None and np.isfinite(labels.stress[0]).all():
            results["stress"] = labels.stress[0].astype(np.float64)
        out.calc = SinglePointCalculator(out, **results)
        with np.errstate(all="ignore"):
            at_rest = np.linalg.norm(target.get_forces(), axis=1).max() < fmax
            if at_rest or len(frames) == steps:
                return _path(teacher, frames, answers)
            optimizer.step()


def _path(teacher: Teacher, frames: list[Atoms], labels: list[TeacherLabels]) -> PathFrames:
    nan = np.full((1, 6), np.nan, np.float32)
    energy = np.concatenate([one.energy for one in labels])
    lowest = int(np.argmin(energy)) + 1
    if isinstance(teacher, FollowingTeacher):
        energy = np.full(len(energy), np.nan)
    stress = np.concatenate([nan if one.stress is None else one.stress for one in labels])
    forces = tuple(one.forces for one in labels[:lowest])
    more = tuple(dict(one.more) for one in labels[:lowest])
    return PathFrames(teacher.info, tuple(frames[:lowest]), energy[:lowest], forces, stress[:lowest], more)
