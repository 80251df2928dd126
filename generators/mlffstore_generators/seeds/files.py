"""Structures from the user's files: any file that ASE reads."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlffstore.errors import DataError
from mlffstore_generators.options import check_options
from mlffstore_generators.prototypes import identity
from mlffstore_generators.seeds.base import NoSeedError, Seed, check_sizes

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms


@dataclass(frozen=True)
class Files:
    """Frames of files, each as often as any other.

    Frames with one formula share their root, and periodic ones with one reduced formula, so that conformers of a molecule
    and supercells of a crystal never straddle splits. Bonds are not known: no trajectory stops because one breaks.

    Parameters
    ----------
    paths : tuple of str
        Files that ASE reads, and those of molecules. Charge and multiplicity are read under any name in use, as by an
        import; labels are ignored.
    licence : str, optional
        Goes into the provenance.
    min_atoms, max_atoms : int, optional
        Frames outside are passed over.
    """

    paths: tuple[str, ...] = ()
    licence: str = "not stated"
    min_atoms: int = 1
    max_atoms: int = 1000

    def __post_init__(self) -> None:
        check_options("files", self)
        check_sizes("files", self.min_atoms, self.max_atoms)
        missing = [path for path in self.paths if not Path(path).is_file()]
        if missing or not self.paths:
            raise DataError(f"files: expected paths of files, got {list(self.paths)}; not there: {missing}")

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a frame."""
        frames = _frames(self.paths)
        if not frames:
            raise DataError(f"files: expected frames in {', '.join(self.paths)}, got none")
        path, atoms = frames[int(rng.integers(len(frames)))]
        if not self.min_atoms <= len(atoms) <= self.max_atoms:
            raise NoSeedError("size outside the limits")
        what = identity(atoms) if atoms.pbc.any() else f"molecule {atoms.get_chemical_formula()}"
        return Seed(atoms.copy(), f"file:{Path(path).name}", family=what)

    def provenance(self) -> list[dict[str, str]]:
        """Return the files."""
        return [{"name": Path(path).name, "what": "file of the user", "licence": self.licence} for path in self.paths]


def _frames(paths: tuple[str, ...]) -> list[tuple[str, Atoms]]:
    """Return the structures of files; a file that has changed is read again."""
    return [(path, frame) for path in paths for frame in _read(path, *_version(path))]


def _version(path: str) -> tuple[int, int]:
    stat = Path(path).stat()
    return stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=16)
def _read(path: str, mtime: int, size: int) -> tuple[Atoms, ...]:
    """Return the structures of a version of a file."""
    from mlffstore.importing.structures import structures

    return tuple(structures(Path(path)))
