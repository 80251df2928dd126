"""Molecular liquids: several molecules of one or two kinds, packed into a periodic cube by packmol."""

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
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_sizes
from mlffstore_generators.seeds.clusters import solvent
from mlffstore_generators.seeds.molecules import Molecules

if TYPE_CHECKING:
    from ase import Atoms

#: Seconds that packmol may take.
_PATIENCE = 30
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

    Notes
    -----
    Packmol: Martinez et al., J. Comput. Chem. 30, 2157 (2009).
    """

    min_atoms: int = 40
    max_atoms: int = 200
    density: tuple[float, float] = (0.7, 1.1)
    tolerance: float = 1.8
    mixture: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "density", tuple(float(x) for x in self.density))
        check_sizes("liquids", self.min_atoms, self.max_atoms)
        if len(self.density) != 2 or not 0 < self.density[0] <= self.density[1] < 3:
            raise DataError(f"liquids: expected two densities between 0 and 3 g/cm^3, got {self.density}")

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a box."""
        from ase import Atoms

        kinds = [solvent(rng)]
        if rng.random() < self.mixture:
            kinds.append(Molecules(min_atoms=4, max_atoms=max(4, self.max_atoms // 4)).draw(rng))
        total = int(rng.integers(self.min_atoms, self.max_atoms + 1))
        counts = [1] * len(kinds)
        counts[0] = max(2, (total - sum(len(kind.atoms) for kind in kinds[1:])) // len(kinds[0].atoms))
        numbers = sum(n * len(kind.atoms) for n, kind in zip(counts, kinds, strict=True))
        if not self.min_atoms <= numbers <= self.max_atoms:
            raise NoSeedError("box outside the limits")
        mass = sum(n * kind.atoms.get_masses().sum() for n, kind in zip(counts, kinds, strict=True))
        volume = mass * _DENSITY / rng.uniform(*self.density)
        edge = float(volume ** (1 / 3))
        seed = int(rng.integers(1, 2**31))
        positions = _pack([kind.atoms for kind in kinds], counts, edge, self.tolerance, seed)
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
        return Seed(atoms, "liquid", np.concatenate(bonds), tuple(fragments))

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


def _pack(kinds: list[Atoms], counts: list[int], edge: float, tolerance: float, seed: int) -> np.ndarray:
    """Return the positions of all molecules in a box, half the tolerance inside so that images keep it as well."""
    from ase.io import read, write

    margin = tolerance / 2
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        lines = [f"tolerance {tolerance}", "filetype xyz", "output box.xyz", f"seed {seed}", "nloop 50"]
        for k, (atoms, n) in enumerate(zip(kinds, counts, strict=True)):
            write(base / f"{k}.xyz", atoms, format="xyz")
            inside = f"  inside box {margin} {margin} {margin} {edge - margin} {edge - margin} {edge - margin}"
            lines += [f"structure {k}.xyz", f"  number {n}", inside, "end structure"]
        (base / "in.inp").write_text("\n".join(lines) + "\n")
        try:
            done = subprocess.run(
                [_packmol(), "-i", "in.inp"], cwd=base, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise NoSeedError("packmol took too long") from error
        if done.returncode or not (base / "box.xyz").is_file() or "Success!" not in done.stdout:
            raise NoSeedError("packmol found no packing")
        return np.asarray(read(base / "box.xyz", format="xyz").positions)
