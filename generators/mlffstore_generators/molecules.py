"""Molecules: NCI SMILES, ETKDGv3 with explicit hydrogens, short Langevin dynamics on MMFF94, a small rattle."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import Generated
from mlffstore.data.batch import SampleBatch
from mlffstore.data.concatenation import concatenate
from mlffstore.errors import DataError
from mlffstore_generators.options import check_options
from mlffstore_generators.rattle import log_uniform, rattled
from mlffstore_generators.samplers.base import sound
from mlffstore_generators.seeds.base import NoSeedError, Seed
from mlffstore_generators.smiles import bond_table, embed, family, nci_smiles, to_atoms, with_hydrogens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

#: Seeds tried for every molecule that is needed, before the options are called impossible.
_DRAWS = 50


@dataclass(frozen=True)
class MoleculeGenerator:
    """Drug-like molecules of the NCI database, sampled by short Langevin dynamics.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Sizes, hydrogens included.
    temperatures : tuple of float, optional
        Kelvin; each molecule draws one.
    frames : int, optional
        Structures of a molecule.
    equilibration_fs, interval_fs : float, optional
        What is discarded at the start, and the time between frames, femtoseconds.
    timestep_fs : float, optional
        Femtoseconds. 0.5 resolves the stretch of C-H (about 11 fs).
    friction : float, optional
        Friction of the thermostat, 1/fs.
    rattle : tuple of float, optional
        Range of the log-uniform amplitude of a Gaussian displacement of every coordinate, angstrom.
    """

    min_atoms: int = 10
    max_atoms: int = 60
    temperatures: tuple[float, ...] = (300.0, 500.0)
    frames: int = 4
    equilibration_fs: float = 500.0
    interval_fs: float = 100.0
    timestep_fs: float = 0.5
    friction: float = 0.01
    rattle: tuple[float, float] = (0.01, 0.04)

    def __post_init__(self) -> None:
        check_options("molecules", self)
        problems = []
        if not 1 <= self.min_atoms <= self.max_atoms:
            problems.append(f"1 <= min_atoms <= max_atoms, got {self.min_atoms} and {self.max_atoms}")
        if not self.temperatures or min(self.temperatures) <= 0:
            problems.append(f"positive temperatures, got {self.temperatures}")
        if self.frames < 1 or self.equilibration_fs < 0 or self.interval_fs <= 0 or self.friction <= 0:
            problems.append("at least one frame, and positive interval_fs and friction")
        if not 0 < self.timestep_fs <= 1.0:
            problems.append(f"a timestep_fs of at most 1, as there is hydrogen, got {self.timestep_fs}")
        if len(self.rattle) != 2 or not 0 < self.rattle[0] <= self.rattle[1]:
            problems.append(f"a rattle range of two positive amplitudes, got {self.rattle}")
        if problems:
            raise DataError("molecules: expected " + "; ".join(problems))

    def generate(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` structures of about ``count / frames`` molecules."""
        seeds = nci_smiles()
        batches: list[SampleBatch] = []
        skipped: Counter[str] = Counter()
        made = 0
        for _ in range(_DRAWS * count):
            if made >= count:
                break
            smiles = seeds[rng.integers(len(seeds))]
            # One stream a molecule, drawn whatever becomes of it: a failure does not shift the others.
            frame_rng = np.random.default_rng(rng.integers(2**63, size=2))
            try:
                frames, temperature, root = self._sample(smiles, frame_rng)
            except NoSeedError as error:
                skipped[str(error)] += 1
                continue
            frames = frames[: count - made]
            made += len(frames)
            batch = SampleBatch.from_ase(frames, source="nci", sampler=f"mmff94-langevin-{temperature:g}K")
            batches.append(batch.with_columns(root=root))
        if made < count:
            raise DataError(
                f"molecules: {_DRAWS * count} seeds gave {made} of {count} structures ({dict(skipped)}); "
                "widen min_atoms and max_atoms"
            )
        return Generated(concatenate(batches), dict(skipped))

    def provenance(self) -> Mapping[str, Any]:
        """Return options, sources and licences."""
        return {
            "generator": "molecules",
            "options": dataclasses.asdict(self),
            "seeds": [
                {
                    "name": "nci",
                    "what": "first 5,000 SMILES of the NCI Open Database, as shipped with RDKit",
                    "licence": "public domain (US government work)",
                }
            ],
            "methods": ["ETKDGv3, doi:10.1021/acs.jcim.0c00025", "MMFF94, doi:10.1002/(SICI)1096-987X(199604)17:5/6"],
        }

    def _sample(self, smiles: str, rng: np.random.Generator) -> tuple[list[Atoms], float, np.uint64]:
        """Return the frames of one molecule, the temperature, and the root."""
        from mlffstore_generators.mmff import MMFF

        mol = with_hydrogens(smiles)
        if not self.min_atoms <= mol.GetNumAtoms() <= self.max_atoms:
            raise NoSeedError("size outside the limits")
        properties = embed(mol, seed=int(rng.integers(1, 2**31)))
        seed = to_atoms(mol)
        relaxed = Seed(seed.copy(), "nci", bond_table(mol), family=family(mol))
        temperature = float(rng.choice(self.temperatures))
        seed.calc = MMFF(mol, properties)
        frames = []
        for atoms in self._trajectory(seed, temperature, rng):
            frame = rattled(atoms, log_uniform(rng, self.rattle), rng)
            if not sound(frame, relaxed):
                raise NoSeedError("bonds changed in the dynamics")
            frames.append(frame)
        return frames, temperature, relaxed.root

    def _trajectory(self, atoms: Atoms, temperature: float, rng: np.random.Generator) -> list[Atoms]:
        """Return `frames` frames of Langevin dynamics (BAOAB) at constant temperature, without calculators."""
        from ase import Atoms, units
        from ase.md.langevinbaoab import LangevinBAOAB

        width = np.sqrt(atoms.get_masses() * units.kB * temperature)
        atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * width[:, None])
        dynamics = LangevinBAOAB(
            atoms,
            self.timestep_fs * units.fs,
            temperature_K=temperature,
            T_tau=units.fs / self.friction,
            rng=rng,
        )
        frames = []
        steps = round(self.equilibration_fs / self.timestep_fs)
        for _ in range(self.frames):
            dynamics.run(steps or 1)
            steps = max(1, round(self.interval_fs / self.timestep_fs))
            if not np.isfinite(atoms.positions).all():
                raise NoSeedError("dynamics diverged")
            frames.append(Atoms(atoms.numbers, atoms.positions, info=dict(atoms.info)))
        return frames
