"""Scans: a bond, the distance of two molecules, or the volume of a cell, from compressed to apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mlffstore.errors import DataError
from mlffstore_generators.samplers.base import SeedSampler, sound
from mlffstore_generators.seeds.base import NoSeedError, Seed

if TYPE_CHECKING:
    from ase import Atoms

#: Two atoms of a scan may come this close, in sums of their covalent radii.
_CONTACT = 0.55


@dataclass(frozen=True)
class Scan(SeedSampler):
    """One coordinate of a seed, drawn at random, in equal steps with a random offset.

    Parameters
    ----------
    seeds, frames
        See `Sampler`.
    bond : tuple of float, optional
        Range of a bond, in its length in the seed. A bond in a ring cannot be scanned.
    distance : tuple of float, optional
        Range of the shift of one molecule of a cluster away from the others, angstrom.
    volume : tuple of float, optional
        Range of the volume of a cell, in its own.
    """

    name: ClassVar[str] = "scan"
    frames: int = 8
    bond: tuple[float, float] = (0.85, 1.8)
    distance: tuple[float, float] = (-0.3, 4.0)
    volume: tuple[float, float] = (0.85, 1.25)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bond", "distance", "volume"):
            limits = getattr(self, name)
            if len(limits) != 2 or not limits[0] < limits[1] or (name != "distance" and limits[0] < 0.5):
                raise DataError(f"scan: expected {name} of two rising numbers from 0.5 up, got {limits}")

    def sample(self, seed: Seed, rng: np.random.Generator, count: int) -> tuple[list[Atoms], str]:
        """Return the steps of one scan; those where atoms touch are left out."""
        if seed.periodic and not len(seed.bonds):
            kind, (low, high), step = "volume", self.volume, _swell
            moving = np.zeros(0, np.int64)
            pair = (0, 0)
        elif len(seed.fragments) > 1 and not seed.periodic:
            kind, (low, high), step = "distance", self.distance, _shift
            moving = seed.fragments[int(rng.integers(len(seed.fragments)))]
            pair = (0, 0)
        else:
            kind, (low, high), step = "bond", self.bond, _stretch
            pair, moving = _open_bond(seed, rng)
        where = low + (high - low) * (np.arange(count) + rng.random()) / count
        frames = [step(seed.atoms, float(x), moving, pair) for x in where]
        # The bond that is scanned may break.
        loose = Seed(seed.atoms, seed.source)
        kept = [frame for frame in frames if sound(frame, loose, _CONTACT)]
        if not kept:
            raise NoSeedError("atoms too close in the scan")
        return kept, f"scan-{kind}"


def _swell(atoms: Atoms, x: float, moving: np.ndarray, pair: tuple[int, int]) -> Atoms:
    out = atoms.copy()
    out.set_cell(out.cell.array * x ** (1 / 3), scale_atoms=True)
    return out


def _shift(atoms: Atoms, x: float, moving: np.ndarray, pair: tuple[int, int]) -> Atoms:
    out = atoms.copy()
    others = np.setdiff1d(np.arange(len(atoms)), moving)
    way = out.positions[moving].mean(axis=0) - out.positions[others].mean(axis=0)
    out.positions[moving] += x * way / max(float(np.linalg.norm(way)), 1e-9)
    return out


def _stretch(atoms: Atoms, x: float, moving: np.ndarray, pair: tuple[int, int]) -> Atoms:
    out = atoms.copy()
    i, j = pair
    out.positions[moving] += (x - 1) * (out.positions[j] - out.positions[i])
    return out


def _open_bond(seed: Seed, rng: np.random.Generator) -> tuple[tuple[int, int], np.ndarray]:
    """Return a bond whose cut leaves two parts, and the atoms on its second end's side."""
    if seed.periodic or not len(seed.bonds):
        raise NoSeedError("nothing to scan")
    n = len(seed.atoms)
    for k in rng.permutation(len(seed.bonds)):
        i, j = (int(a) for a in seed.bonds[k])
        linked = np.zeros((n, n), bool)
        rest = np.delete(seed.bonds, k, axis=0)
        linked[rest[:, 0], rest[:, 1]] = linked[rest[:, 1], rest[:, 0]] = True
        side = np.zeros(n, bool)
        front = [j]
        while front:
            a = front.pop()
            side[a] = True
            front += [int(b) for b in np.flatnonzero(linked[a] & ~side)]
        if not side[i]:
            return (i, j), np.flatnonzero(side)
    raise NoSeedError("all bonds are in rings")
