"""Molecular liquids: flexible molecules of one or two kinds, packed into a periodic cube by packmol."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.errors import DataError, missing_dependency
from mlffstore_generators.mmff import MMFFForces
from mlffstore_generators.options import check_options
from mlffstore_generators.samplers.langevin import STEP_HYDROGEN, Ensemble, sampling_masses
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_share, check_sizes
from mlffstore_generators.seeds.clusters import pure_solvent
from mlffstore_generators.seeds.molecules import Molecules

if TYPE_CHECKING:
    from ase import Atoms

#: Seconds that packmol may take. Its loops are limited, so that this is for a machine in trouble: another structure in the
#: place of one that took too long would make the dataset depend on the clock.
_PATIENCE = 600
#: Steps of 1.5 fs in which the vibrations of a molecule come about.
_VIBRATIONS = 100
#: Grams per mole and cubic angstrom in g/cm^3.
_DENSITY = 1.66053907


@dataclass(frozen=True)
class Liquids:
    """A periodic box of molecules.

    Parameters
    ----------
    min_atoms, max_atoms : int, optional
        Range of the number of atoms in the box.
    density : tuple of float, optional
        Range of the density, g/cm^3.
    tolerance : float, optional
        Smallest distance of atoms of two molecules when packed, angstrom.
    mixture : float, optional
        Fraction of boxes with two kinds of molecules.
    edge : tuple of float, optional
        Range of the edge of the box, angstrom; boxes outside are passed over. GFN2-xTB at the Gamma point is fit for 9 to
        12.
    temperature : float, optional
        Of the vibrations that each molecule has for itself, by MMFF94, kelvin; 0 packs them as they are relaxed.

    Notes
    -----
    Packmol: Martinez et al., J. Comput. Chem. 30, 2157 (2009).
    """

    min_atoms: int = 40
    max_atoms: int = 200
    density: tuple[float, float] = (0.7, 1.1)
    tolerance: float = 1.8
    mixture: float = 0.5
    edge: tuple[float, float] = (0.0, 1e3)
    temperature: float = 300.0

    def __post_init__(self) -> None:
        check_options("liquids", self)
        if len(self.edge) != 2 or not 0 <= self.edge[0] < self.edge[1] or not self.temperature >= 0:
            raise DataError(
                f"liquids: expected two rising edges and a temperature from 0 up, got {self.edge} and {self.temperature}"
            )
        check_sizes("liquids", self.min_atoms, self.max_atoms)
        check_share("liquids", "mixture", self.mixture)
        if not self.tolerance > 0:
            raise DataError(f"liquids: expected a positive tolerance, got {self.tolerance!r}")
        if len(self.density) != 2 or not 0 < self.density[0] <= self.density[1] < 3:
            raise DataError(f"liquids: expected two densities between 0 and 3 g/cm^3, got {self.density}")

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a box."""
        from ase import Atoms

        kinds = [pure_solvent(rng)]
        if rng.random() < self.mixture:
            kinds.append(Molecules(min_atoms=4, max_atoms=max(4, self.max_atoms // 4), neutral=True).draw(rng))
        total = int(rng.integers(self.min_atoms, self.max_atoms + 1))
        counts = [1] * len(kinds)
        counts[0] = max(2, (total - sum(len(kind.atoms) for kind in kinds[1:])) // len(kinds[0].atoms))
        numbers = sum(n * len(kind.atoms) for n, kind in zip(counts, kinds, strict=True))
        if not self.min_atoms <= numbers <= self.max_atoms:
            raise NoSeedError("box outside the limits")
        mass = sum(n * kind.atoms.get_masses().sum() for n, kind in zip(counts, kinds, strict=True))
        volume = mass * _DENSITY / rng.uniform(*self.density)
        edge = float(volume ** (1 / 3))
        if not self.edge[0] <= edge <= self.edge[1]:
            raise NoSeedError("box outside the limits")
        seed = int(rng.integers(1, 2**31))
        copies = [
            one
            for kind, n in zip(kinds, counts, strict=True)
            for one in (thermal_copies(kind, n, self.temperature, rng) if self.temperature else [kind.atoms] * n)
        ]
        positions = _pack(copies, edge, self.tolerance, seed)
        order = np.concatenate([np.tile(kind.atoms.numbers, n) for n, kind in zip(counts, kinds, strict=True)])
        atoms = Atoms(order, positions, cell=[edge] * 3, pbc=True)
        bonds, fragments, start = [], [], 0
        for n, kind in zip(counts, kinds, strict=True):
            for _ in range(n):
                bonds.append(kind.bonds + start)
                fragments.append(np.arange(start, start + len(kind.atoms)))
                start += len(kind.atoms)
        charge = sum(n * int(kind.atoms.info.get("charge", 0)) for n, kind in zip(counts, kinds, strict=True))
        atoms.info = {"charge": charge}
        members = ".".join(f"{kind.family}*{n}" for kind, n in zip(kinds, counts, strict=True))
        return Seed(atoms, "liquid", np.concatenate(bonds), tuple(fragments), f"liquid {members}")

    def provenance(self) -> list[dict[str, str]]:
        """Return the sources."""
        return [
            *Molecules().provenance(),
            {"name": "packmol", "what": "packing, doi:10.1002/jcc.21224", "licence": "MIT"},
        ]


def _packmol() -> str:
    beside = Path(sys.executable).with_name("packmol")
    executable = str(beside) if beside.is_file() else shutil.which("packmol")
    if executable is None:
        raise missing_dependency("packmol", "sampling", "the seeds 'liquids'")
    return executable


def thermal_copies(kind: Seed, count: int, temperature: float, rng: np.random.Generator) -> list[Atoms]:
    """Return copies of a molecule, each with vibrations of its own at a temperature, by dynamics on MMFF94."""
    follower = MMFFForces()
    for k in range(count):
        follower.add(k, kind)
    rngs = [np.random.default_rng(rng.integers(2**63, size=2)) for _ in range(count)]
    run = Ensemble(
        [kind.atoms] * count, rngs, None, np.full(count, temperature), np.full(count, STEP_HYDROGEN), 0.02,
        [sampling_masses(kind.atoms.numbers)] * count, follower,
    )  # fmt: skip
    for _ in range(_VIBRATIONS):
        run.step()
    return [run.frame(k) for k in range(count)]


def _pack(molecules: list[Atoms], edge: float, tolerance: float, seed: int) -> np.ndarray:
    """Return the positions of all molecules in a box, half the tolerance inside so that images keep it as well."""
    from ase.io import read, write

    margin = tolerance / 2
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        lines = [f"tolerance {tolerance}", "filetype xyz", "output box.xyz", f"seed {seed}", "nloop 50"]
        for k, atoms in enumerate(molecules):
            write(base / f"{k}.xyz", atoms, format="xyz")
            inside = f"  inside box {margin} {margin} {margin} {edge - margin} {edge - margin} {edge - margin}"
            lines += [f"structure {k}.xyz", "  number 1", inside, "end structure"]
        (base / "in.inp").write_text("\n".join(lines) + "\n")
        try:
            done = subprocess.run(
                [_packmol(), "-i", "in.inp"], cwd=base, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"liquids: packmol did not end within {_PATIENCE} s; run the task again") from error
        if done.returncode or not (base / "box.xyz").is_file() or "Success!" not in done.stdout:
            raise NoSeedError("packmol found no packing")
        return np.asarray(read(base / "box.xyz", format="xyz").positions)
