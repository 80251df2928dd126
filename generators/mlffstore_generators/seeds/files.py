"""Structures from the user's files: any file that ASE reads."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlffstore.errors import DataError
from mlffstore_generators.seeds.base import NoSeedError, Seed

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Files:
    """Frames of files, each as often as any other.

    Parameters
    ----------
    paths : tuple of str
        Files that ASE reads; labels in them are ignored.
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
        object.__setattr__(self, "paths", (self.paths,) if isinstance(self.paths, str) else tuple(self.paths))
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
        return Seed(atoms.copy(), f"file:{Path(path).name}")

    def provenance(self) -> list[dict[str, str]]:
        """Return the files."""
        return [{"name": Path(path).name, "what": "file of the user", "licence": self.licence} for path in self.paths]


@functools.lru_cache(maxsize=4)
def _frames(paths: tuple[str, ...]) -> list[tuple[str, Any]]:
    from ase import Atoms
    from ase.io import read

    out = []
    for path in paths:
        for frame in read(path, ":"):
            info = {k: frame.info[k] for k in ("charge", "multiplicity") if k in frame.info}
            out.append((path, Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, info=info)))
    return out
