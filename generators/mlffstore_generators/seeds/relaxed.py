"""Seeds near the equilibrium of a teacher: others, relaxed for some steps, cell included; the path is kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import FollowingTeacher
from mlffstore.contracts.registry import shared_teacher
from mlffstore.data.batch import SampleBatch
from mlffstore.errors import DataError
from mlffstore_generators.calls import Asking
from mlffstore_generators.prototypes import supercell
from mlffstore_generators.rattle import rattled
from mlffstore_generators.seeds.base import NoSeedError, PathFrames, Seed, Seeds, check_sizes, get_seeds

if TYPE_CHECKING:
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
        from ase.units import GPa

        seed = self.source.draw(rng)
        teacher = shared_teacher(self.teacher, self.teacher_options)
        path = descend(rattled(seed.atoms, _START, rng), teacher, self.fmax, self.steps, cell=self.cell)
        atoms = path.frames[-1]
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
            atoms = supercell(atoms, self.min_atoms)
        if len(atoms) > self.max_atoms:
            raise NoSeedError("more than max_atoms")
        return dataclasses.replace(seed, atoms=atoms, path=path, origin=seed.root)

    def provenance(self) -> list[dict[str, str]]:
        """Return the sources."""
        return self.source.provenance()


def descend(atoms: Atoms, teacher: Teacher, fmax: float, steps: int, *, cell: bool) -> PathFrames:
    """Return the path of a relaxation of at most `steps` calls of the teacher; the last frame is the lowest point reached.

    Raises
    ------
    NoSeedError
        If the teacher refuses a structure on the way.
    """
    from ase.filters import UnitCellFilter
    from ase.optimize import BFGS

    recorder = _recorder(teacher)
    out = atoms.copy()
    out.calc = recorder
    target: Any = out
    if cell and out.pbc.all() and "stress" in teacher.info.properties:
        target = UnitCellFilter(out)  # the logarithm of FrechetCellFilter takes a fifth of the time, for the same steps
    with np.errstate(all="ignore"):
        BFGS(target, logfile=None, maxstep=_STEP).run(fmax=fmax, steps=steps - 1)
    return _path(teacher, recorder.frames, recorder.labels)


def _recorder(teacher: Teacher) -> Any:
    """Return an ASE calculator that asks a teacher and keeps each structure with its labels."""
    from ase.calculators.calculator import Calculator, all_changes

    class Recorder(Calculator):  # type: ignore[misc]  # ASE has no types
        implemented_properties = ("energy", "forces", "stress")

        def __init__(self) -> None:
            super().__init__()
            self.asking = Asking(teacher)
            self.frames: list[Atoms] = []
            self.labels: list[TeacherLabels] = []

        def calculate(
            self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            frame = self.atoms.copy()
            frame.positions = frame.positions.astype(np.float32)  # what is labelled is what is stored
            labels = self.asking.label(SampleBatch.from_ase([frame]), [0])
            if not labels.ok[0]:
                raise NoSeedError(f"teacher: {labels.reasons[0]}")
            self.frames.append(frame)
            self.labels.append(labels)
            self.results = {"energy": float(labels.energy[0]), "forces": labels.forces.astype(np.float64)}
            if labels.stress is not None and np.isfinite(labels.stress[0]).all():
                self.results["stress"] = labels.stress[0].astype(np.float64)

    return Recorder()


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
