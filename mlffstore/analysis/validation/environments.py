"""Environments of atoms: how many kinds a sample has, numbers in which rattled crystals differ, and the host of a defect.

Sums over the pairs of a sample, as in `mlffstore.analysis.validation.fingerprints`, hardly tell large crystals apart that
were rattled by the same amplitude: what moves one way cancels what moves the other. Waves of the sums of single atoms do not
cancel, nor do their variance and skewness, which tell smaller displacements apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.hashing import GOLDEN, mix

if TYPE_CHECKING:
    from mlffstore.data.geometry import Pairs
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array

#: For each number of `environments` the size up to which a relative tolerance is taken of this size: with a tolerance of
#: 1e-4, waves agree to 1e-3 and moments to 4e-5. Positions rounded to 1e-4 angstrom mostly differ by less.
LEAST = (10.0, 10.0, 0.4, 0.4, 0.4)
#: Radians over a relative change of an environment by 1. Rattling by 0.02 angstrom turns the waves of single atoms by half a
#: radian, rounding positions to 1e-4 angstrom by 1e-3.
_WAVE = 50.0
#: Atoms whose environments differ by less, relative to the mean, are of one kind, in samples of 64 atoms or more; in smaller
#: ones, whose atoms differ less because there are fewer of them, in proportion. Single precision differs by 1e-6.
_ONE_KIND = 1e-3
#: Sums of numbers below 2^40 of up to thousands of neighbours are exact in double precision.
_EXACT = np.uint64((1 << 40) - 1)
#: Share of the atoms of an element whose neighbours may be those inside the host; more may lie at surfaces.
_INSIDE = 0.3
#: Share of the atoms that an element of a host has at least; others are impurities and adsorbates.
_MAIN = 0.1


def environments(each: Array, other: Array, density: Array, z: Array, starts: Ints) -> tuple[Array, Array]:
    """Return waves and moments of the environments of the atoms, and the number of kinds of atoms.

    Parameters
    ----------
    each, other : ndarray, shape (A,), float64
        Two sums over the neighbours of each atom, as `mlffstore.data.kernels.sum_pairs` returns them. They are overwritten.
    density : ndarray, shape (S,), float64
        What `other` is relative to.
    z : ndarray, shape (A,), float64
        Atomic numbers.
    starts : ndarray, shape (S+1,), int64

    Returns
    -------
    numbers : ndarray, shape (S, 5), float64
        Two waves, from -1 to 1; standard deviation and skewness among atoms of one element, and the standard deviation of
        another environment. Rotations, reflections, shifts, the order of atoms and the choice of the cell change none.
    kinds : ndarray, shape (S,), uint8
        Kinds of atoms with different elements or environments; at most 64 are told apart.
    """
    n_atoms = np.diff(starts)

    def mean_of_atoms(values: Array) -> Array:
        return np.asarray(np.add.reduceat(values, starts[:-1]) / n_atoms)

    mean = mean_of_atoms(each)
    each /= np.repeat(np.where(mean > 0, mean, 1.0), n_atoms)
    other /= np.repeat(np.where(density > 0, density, 1.0), n_atoms)
    waves = [mean_of_atoms(wave(_WAVE * each)) for wave in (np.cos, np.sin)]
    # An environment at the edge of one bin is in the middle of one of the others.
    species = mix(z.astype(np.uint64) + GOLDEN)
    width = np.repeat(_ONE_KIND * np.minimum(n_atoms / 64, 1.0), n_atoms)
    counts = [_distinct(species, np.floor(each / width + edge), starts) for edge in (0.0, 0.5)]
    element = np.repeat(np.arange(0, 256 * len(n_atoms), 256, dtype=np.int32), n_atoms) + z.astype(np.int32)
    number = np.maximum(np.bincount(element), 1)
    for one in (each, other):
        one -= (np.bincount(element, one) / number)[element]
    variance = mean_of_atoms(each**2)
    skewness = mean_of_atoms(each**3) / np.maximum(variance, 1e-30)
    moments = [np.sqrt(variance), skewness, np.sqrt(mean_of_atoms(other**2))]
    return np.stack(waves + moments, axis=1), np.minimum(*counts)


def _distinct(species: Array, place: Array, starts: Ints) -> Array:
    """Return how many of 64 bits the atoms of each sample set, each by a hash of its species and place.

    Two kinds sometimes share a bit. Of two hashes, the one with more bits counts.
    """
    word = mix(np.asarray(species ^ place.astype(np.int64).view(np.uint64), np.uint64))
    counts = []
    for shift in (0, 6):
        bit = np.uint64(1) << (word >> np.uint64(shift) & np.uint64(63))
        bits = np.bitwise_or.reduceat(bit, starts[:-1])
        counts.append(np.unpackbits(bits.view(np.uint8).reshape(len(bits), 8), axis=1).sum(axis=1, dtype=np.uint8))
    return np.asarray(np.maximum(*counts))


def hosts(numbers: Array, starts: Ints, neighbours: Pairs, bonded: Array, extended: Array) -> Array:
    """Return a number of the crystal that each sample is or was made of, shape (S,), uint64; 0 of molecules.

    Two samples have the same host if they have the same main elements, and if the atoms of each of these inside it have the
    same neighbours of the main elements: a crystal and a supercell, strained or rattled, with vacancies, impurities or
    surfaces. Inside are those of the atoms with the most bonds that are `_INSIDE` of the element at least.

    Parameters
    ----------
    numbers : ndarray, shape (A,), uint8
    starts : ndarray, shape (S+1,), int64
    neighbours : Pairs
    bonded : ndarray, shape (P,), bool
        Which of the pairs are bonds.
    extended : ndarray, shape (S,), bool
        Samples that are periodic in some direction.
    """
    out = np.zeros(len(extended), np.uint64)
    if not extended.any():
        return out
    n_atoms = np.diff(starts)
    owner = np.repeat(np.arange(len(n_atoms)), n_atoms)
    key = owner * 256 + numbers
    main = (np.bincount(key, minlength=256 * len(n_atoms)) >= _MAIN * np.repeat(n_atoms, 256))[key] & extended[owner]
    first, second = neighbours.first[bonded], neighbours.second[bonded]
    inside = main[first] & main[second]
    first, second = first[inside], second[inside]
    word = mix(numbers.astype(np.uint64) + GOLDEN)
    part = (word & _EXACT).astype(np.float64)  # sums of these are exact
    n = len(numbers)
    summed = np.bincount(first, part[second], minlength=n) + np.bincount(second, part[first], minlength=n)
    around: Array = np.asarray(summed, np.float64).astype(np.uint64)
    coordination: Array = np.bincount(first, minlength=n) + np.bincount(second, minlength=n)
    # Atoms of one element of a sample with the same neighbours.
    atoms = np.flatnonzero(main)
    _, begin, count = np.unique(
        mix(mix(around[atoms] + GOLDEN) ^ key[atoms].astype(np.uint64)), return_index=True, return_counts=True
    )
    place = atoms[begin]
    frequent = count >= _INSIDE * np.bincount(key[atoms], minlength=256 * len(n_atoms))[key[place]]
    rank = np.where(frequent, coordination[place] + len(numbers), count)
    best = np.lexsort((around[place], -rank, key[place]))
    leading = place[best[np.concatenate([[True], np.diff(key[place[best]]) != 0])]]
    np.add.at(out, owner[leading], mix(word[leading] ^ mix(around[leading] + GOLDEN)))
    return out
