"""Normal modes: thermal displacements of a relaxed structure in its harmonic well, of molecules and crystals."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlffstore.contracts.registry import shared_teacher
from mlffstore.errors import DataError, missing_dependency
from mlffstore_generators.samplers.base import SeedSampler, sound
from mlffstore_generators.samplers.teacher import label, relaxed
from mlffstore_generators.seeds.base import NoSeedError, Seed

if TYPE_CHECKING:
    from ase import Atoms

    from mlffstore.contracts.protocols import Teacher

#: Modes below this frequency, THz, are left out: of a molecule these are the rigid ones. 1 THz is 33 cm^-1.
CUTOFF_THZ = 1.0
#: Edge that a molecule's box adds to its extent, angstrom.
_BOX = 30.0
#: Atoms that are all closer to an axis than this, angstrom, lie on it: a relaxation leaves linear molecules a little bent.
_LINEAR = 0.05
#: Displacement of the finite differences, angstrom.
_DISTANCE = 0.01
#: A seed with a lower mode than this (imaginary frequencies count as negative) is no minimum, cm^-1.
_IMAGINARY = -200.0
_CM_PER_THZ = 33.35640951981521
_SCHEMES = ("thermal", "quantum", "ani1")
#: (2 pi THz)^2 in eV / (angstrom^2 amu).
_K_UNIT = (2 * np.pi * 1e12) ** 2 / 9.648533212331e27


@dataclass(frozen=True)
class NormalModes(SeedSampler):
    """Relax, find the Hessian by finite differences of the teacher's forces, draw displacements along its modes.

    Parameters
    ----------
    seeds, frames
        See `Sampler`.
    teacher : str, optional
        Teacher whose energy surface is used. Its forces must be conservative, or the Hessian is meaningless.
    teacher_options : mapping, optional
        Options of the teacher.
    temperatures : tuple of float, optional
        Kelvin; each seed draws one.
    scheme : {"thermal", "quantum", "ani1"}, optional
        Classical statistics (kT/2 of energy a mode), quantum statistics, or that of ANI-1 (doi:10.1039/C6SC05720A).
    fmax : float, optional
        Largest force after the relaxation, eV/angstrom.
    steps : int, optional
        Largest number of steps of the relaxation.
    max_distance : float, optional
        Longer displacements of an atom are shortened to this, angstrom.

    Notes
    -----
    Displacements are drawn by phonopy (Togo, J. Phys. Soc. Jpn. 92, 012001 (2023)); modes below 1 THz are left out, so that
    nothing rotates or drifts. A seed with an imaginary mode below -200 cm^-1 is pushed along it and relaxed once more.
    """

    name: ClassVar[str] = "normal-modes"
    frames: int = 8
    teacher: str = "gfn2-xtb"
    teacher_options: dict[str, Any] = field(default_factory=dict)
    temperatures: tuple[float, ...] = (300.0, 500.0, 1000.0)
    scheme: str = "thermal"
    fmax: float = 0.01
    steps: int = 300
    max_distance: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures or min(self.temperatures) <= 0:
            raise DataError(f"normal-modes: expected positive temperatures, got {self.temperatures}")
        if self.scheme not in _SCHEMES:
            raise DataError(f"normal-modes: expected the scheme {', '.join(_SCHEMES)}, got {self.scheme!r}")
        if not (self.fmax > 0 and self.steps > 0 and self.max_distance > 0):
            raise DataError("normal-modes: expected positive fmax, steps and max_distance")

    @property
    def methods(self) -> list[str]:
        """References of the method."""
        return ["phonopy, doi:10.7566/JPSJ.92.012001", *(["doi:10.1039/C6SC05720A"] if self.scheme == "ani1" else [])]

    def sample(self, seed: Seed, rng: np.random.Generator, count: int) -> tuple[list[Atoms], str]:
        """Return displaced copies of the relaxed seed."""
        teacher = shared_teacher(self.teacher, self.teacher_options)
        if not teacher.info.conservative:
            raise DataError(f"normal-modes: expected a conservative teacher, got {self.teacher!r}: it has no Hessian")
        temperature = float(rng.choice(self.temperatures))
        number = int(rng.integers(2**31))
        atoms = relaxed(seed.atoms, teacher, self.fmax, self.steps)
        if not sound(atoms, seed):
            raise NoSeedError("bonds changed in the relaxation")
        if len(atoms) == 1:
            raise NoSeedError("one atom has nothing to vibrate against")
        phonon = hessian(atoms, teacher)
        lowest, mode = _lowest(phonon)
        if lowest < _IMAGINARY:
            pushed = atoms.copy()
            pushed.positions += 0.1 * mode / np.linalg.norm(mode, axis=1).max()
            atoms = relaxed(pushed, teacher, self.fmax, self.steps)
            phonon = hessian(atoms, teacher)
            lowest, _ = _lowest(phonon)
            if lowest < _IMAGINARY or not sound(atoms, seed):
                raise NoSeedError("imaginary mode that a relaxation does not remove")
        moves = displacements(phonon, temperature, count, number, self.scheme, self.max_distance)
        frames = []
        for move in moves:
            frame = atoms.copy()
            frame.positions += move
            if not sound(frame, Seed(atoms, seed.source, seed.bonds)):
                continue
            frames.append(frame)
        if not frames:
            raise NoSeedError("atoms too close along the modes")
        imaginary = "-imaginary" if lowest < -_CM_PER_THZ * CUTOFF_THZ else ""
        return frames, f"normal-modes-{self.scheme}-{temperature:g}K{imaginary}"


def hessian(atoms: Atoms, teacher: Teacher) -> Any:
    """Return a phonopy object with force constants of a structure; all displacements are labelled in one batch."""
    try:
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms
    except ImportError as error:
        raise missing_dependency("phonopy", "sampling", "the generator 'normal-modes'") from error
    crystal = bool(atoms.pbc.all())
    cell = atoms.cell.array if crystal else np.diag(np.ptp(atoms.positions, axis=0) + _BOX)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        unit = PhonopyAtoms(numbers=atoms.numbers, positions=atoms.positions, cell=cell)
        phonon = Phonopy(unit, np.eye(3, dtype=int), primitive_matrix=np.eye(3), is_symmetry=crystal, log_level=0)
        phonon.generate_displacements(distance=_DISTANCE, is_plusminus=True)
        frames = []
        for one in phonon.dataset["first_atoms"]:  # not phonopy's positions: it wraps them into the cell
            frame = atoms.copy()
            frame.positions[one["number"]] += one["displacement"]
            frames.append(frame)
        labels = label(teacher, frames)
        if not labels.ok.all():
            reason = next(text for text in labels.reasons if text)
            raise NoSeedError(f"teacher: {reason}")
        phonon.forces = labels.forces.astype(np.float64).reshape(len(frames), len(atoms), 3)
        phonon.produce_force_constants()
        phonon.symmetrize_force_constants()
        if not crystal:
            phonon.force_constants = _without_rigid(phonon.force_constants, atoms.positions, phonon.primitive.masses)
    return phonon


def _without_rigid(force_constants: np.ndarray, positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Return force constants of a molecule that do not resist its translations and rotations, shape (N, N, 3, 3).

    At a structure that is not quite relaxed, rotations have frequencies of tens of cm^-1, real or imaginary: those above the
    cutoff would be sampled as vibrations. They are projected out in mass-weighted coordinates (Miller, Handy and Adams,
    J. Chem. Phys. 72, 99 (1980)).
    """
    n = len(masses)
    root = np.sqrt(np.repeat(masses, 3))
    arms = positions - np.average(positions, axis=0, weights=masses)
    _, axes = np.linalg.eigh(np.einsum("i,ij,ik->jk", masses, arms, arms))
    turns = np.cross(axes.T[:, None], arms)  # (3, N, 3)
    # About the axis of a linear molecule nothing turns; the little that it is bent would take a bending mode away.
    turns = turns[np.linalg.norm(turns, axis=2).max(axis=1) > _LINEAR]
    rigid = np.concatenate([np.tile(np.eye(3)[:, None], (1, n, 1)), turns]).reshape(-1, 3 * n)
    basis, _ = np.linalg.qr((rigid * root).T)
    keep = np.eye(3 * n) - basis @ basis.T
    weighted = force_constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n) / np.outer(root, root)
    whole = keep @ weighted @ keep * np.outer(root, root)
    return np.ascontiguousarray(whole.reshape(n, 3, n, 3).transpose(0, 2, 1, 3))


def modes(phonon: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies, THz (imaginary ones negative), shape (M,), and mass-weighted modes, shape (M, N, 3)."""
    phonon.run_qpoints([[0, 0, 0]], with_eigenvectors=True)
    modes = phonon.qpoints
    frequencies = np.asarray(modes.frequencies[0])
    vectors = np.asarray(modes.eigenvectors[0]).real.T
    return frequencies, vectors.reshape(len(frequencies), -1, 3)


def _lowest(phonon: Any) -> tuple[float, np.ndarray]:
    """Return the lowest frequency, cm^-1, and how atoms move along that mode, shape (N, 3)."""
    frequencies, vectors = modes(phonon)
    k = int(np.argmin(frequencies))
    return float(frequencies[k]) * _CM_PER_THZ, vectors[k] / np.sqrt(phonon.primitive.masses)[:, None]


def displacements(
    phonon: Any, temperature: float, count: int, seed: int, scheme: str = "thermal", max_distance: float | None = None
) -> np.ndarray:
    """Return random displacements along the modes above 1 THz, shape (count, N, 3), angstrom; see `NormalModes`."""
    if scheme == "ani1":
        return _ani1(phonon, temperature, count, seed, max_distance)
    statistics = "classical" if scheme == "thermal" else "quantum"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        phonon.init_random_displacements(dist_func=statistics, cutoff_frequency=CUTOFF_THZ, max_distance=max_distance)
        displacements = phonon.get_random_displacements_at_temperature(temperature, count, random_seed=seed)
    return np.asarray(displacements)


def _ani1(phonon: Any, temperature: float, count: int, seed: int, max_distance: float | None) -> np.ndarray:
    """Displace each mode by ``+- sqrt(3 c N k T / K)`` with random c that add up to less than 1 (doi:10.1039/C6SC05720A)."""
    from ase.units import kB

    frequencies, vectors = modes(phonon)
    keep = np.abs(frequencies) > CUTOFF_THZ
    stiffness = frequencies[keep] ** 2 * _K_UNIT
    moves = vectors[keep] / np.sqrt(phonon.primitive.masses)[:, None]
    rng = np.random.default_rng(seed)
    out = np.empty((count, len(phonon.primitive.masses), 3))
    for k in range(count):
        share = rng.random(len(stiffness))
        share *= rng.random() / share.sum()
        size = np.sqrt(3 * share * len(phonon.primitive.masses) * kB * temperature / stiffness)
        u = np.einsum("m,mni->ni", size * rng.choice([-1.0, 1.0], len(stiffness)), moves)
        if max_distance is not None:
            length = np.linalg.norm(u, axis=1, keepdims=True)
            u *= np.minimum(1, max_distance / np.maximum(length, 1e-12))
        out[k] = u
    return out
