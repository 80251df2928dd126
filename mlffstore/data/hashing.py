"""`content_hash`: one 64-bit number for a structure as it is stored, computed for whole batches at once.

Definition (docs/format.md repeats it; all arithmetic modulo 2**64). ``mix`` is the finaliser of SplitMix64
(Steele, Lea and Flood, OOPSLA 2014, doi:10.1145/2660193.2660195)::

    mix(x):  x ^= x >> 30;  x *= 0xbf58476d1ce4e5b9;  x ^= x >> 27;  x *= 0x94d049bb133111eb;  x ^= x >> 31

With G = 0x9e3779b97f4a7c15, atom k = 0, 1, ... of a sample and px, py, pz the bit patterns of its stored
coordinates as unsigned integers (float32 or float64; -0.0 counts as 0.0)::

    atom_k = mix(mix(mix(px + G*(k+1)) ^ py) ^ (pz + number_k * G))           float64 positions
    atom_k = mix(mix((px | py << 32) + G*(k+1)) ^ (pz | number_k << 32))      float32 positions
    h = sum of atom_k
    for w in the 9 bit patterns of the cell (row by row, float64), then the word
             pbc_a + 2 pbc_b + 4 pbc_c + 8 (charge mod 2**16) + 2**19 (multiplicity mod 2**16) + 2**35 n_atoms:
        h = mix(h ^ w) + G

Atom order, translation and rotation change the hash: it identifies what is stored, bit for bit. It is not
cryptographic; it finds duplicates and names roots.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlffstore.data.ragged import offsets

U64 = npt.NDArray[np.uint64]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
#: Samples are hashed in slabs of about this many atoms, so that temporaries stay in the processor's cache.
_SLAB_ATOMS = 32768


def mix(x: U64) -> U64:
    """Apply the finaliser of SplitMix64 in place."""
    x ^= x >> np.uint64(30)
    x *= _M1
    x ^= x >> np.uint64(27)
    x *= _M2
    x ^= x >> np.uint64(31)
    return x


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the bit patterns of floats as unsigned integers, with -0.0 made 0.0."""
    canonical = values + values.dtype.type(0.0)  # IEEE 754: -0.0 + 0.0 = 0.0, everything else unchanged
    bits: npt.NDArray[Any] = canonical.view(np.uint32 if values.dtype.itemsize == 4 else np.uint64)
    return bits


def _atom_words(numbers: npt.NDArray[Any], positions: npt.NDArray[Any], index: U64) -> U64:
    bits = _bits(np.ascontiguousarray(positions))
    salt = (index + np.uint64(1)) * GOLDEN
    if bits.dtype == np.uint32:
        x = bits[:, 0] | (bits[:, 1].astype(np.uint64) << np.uint64(32))
        z = bits[:, 2] | (numbers.astype(np.uint64) << np.uint64(32))
        x += salt
        mix(x)
        x ^= z
        return mix(x)
    x = mix(bits[:, 0] + salt)
    x ^= bits[:, 1]
    mix(x)
    x ^= bits[:, 2] + numbers.astype(np.uint64) * GOLDEN
    return mix(x)


def content_hash(
    n_atoms: npt.NDArray[Any],
    numbers: npt.NDArray[Any],
    positions: npt.NDArray[Any],
    cell: npt.NDArray[Any],
    pbc: npt.NDArray[Any],
    charge: npt.NDArray[Any],
    multiplicity: npt.NDArray[Any],
) -> U64:
    """Return the hash of every structure.

    Parameters
    ----------
    n_atoms : ndarray, shape (S,)
    numbers : ndarray, shape (A,)
    positions : ndarray, shape (A, 3), float32 or float64
        Angstrom, in the dtype in which they are stored: the hash depends on it.
    cell : ndarray, shape (S, 3, 3), float64
        Angstrom, rows are lattice vectors.
    pbc : ndarray, shape (S, 3), bool
    charge, multiplicity : ndarray, shape (S,)

    Returns
    -------
    ndarray, shape (S,), uint64
    """
    starts = offsets(n_atoms)
    h = np.zeros(len(n_atoms), dtype=np.uint64)
    if len(h) == 0:
        return h
    # Slabs of whole samples with about _SLAB_ATOMS atoms each.
    cuts = np.unique(np.searchsorted(starts, np.arange(0, starts[-1] + _SLAB_ATOMS, _SLAB_ATOMS)).clip(0, len(h)))
    cuts = np.unique(np.concatenate([[0], cuts, [len(h)]]))

    # One thread: numpy holds the interpreter's lock between such short steps, and threads would only pass it around.
    for lo, hi in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        a, b = int(starts[lo]), int(starts[hi])
        index = np.arange(a, b, dtype=np.uint64) - np.repeat(starts[lo:hi].astype(np.uint64), n_atoms[lo:hi])
        words = _atom_words(numbers[a:b], positions[a:b], index)
        h[lo:hi] = np.add.reduceat(words, starts[lo:hi] - a)

    cell_bits = _bits(np.ascontiguousarray(cell, dtype=np.float64)).reshape(len(h), 9)
    for j in range(9):
        h = mix(h ^ cell_bits[:, j]) + GOLDEN
    periodic = np.asarray(pbc, dtype=np.uint64)
    word = periodic[:, 0] + (periodic[:, 1] << np.uint64(1)) + (periodic[:, 2] << np.uint64(2))
    word += np.asarray(charge, dtype=np.int16).astype(np.uint16).astype(np.uint64) << np.uint64(3)
    word += np.asarray(multiplicity, dtype=np.int16).astype(np.uint16).astype(np.uint64) << np.uint64(19)
    word += np.asarray(n_atoms, dtype=np.uint64) << np.uint64(35)
    return mix(h ^ word) + GOLDEN


def ranked(keys: U64) -> U64:
    """Return keys that are different where some repeat: the first of equal ones, the second, and so on."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(len(keys), 1), bool), ordered[1:] != ordered[:-1]]))
    rank = np.arange(len(keys)) - np.repeat(starts, np.diff([*starts, len(keys)]))
    out = np.empty(len(keys), np.uint64)
    out[order] = mix(ordered + mix(rank.astype(np.uint64)))
    return out
