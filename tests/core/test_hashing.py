"""content_hash: the definition in docs/format.md, in plain Python integers, and its properties."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlffstore as ml
from mlffstore.data.hashing import content_hash
from tests.samples import mixed_frames

MASK = 2**64 - 1
G = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & MASK
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def bits(value: float, kind: str) -> int:
    value = float(value) + 0.0
    return int.from_bytes(struct.pack("<f" if kind == "float32" else "<d", value), "little")


def reference(numbers, positions, cell, pbc, charge, multiplicity, kind) -> int:
    """The specification, one atom at a time."""
    h = 0
    for k, (z, (x, y, w)) in enumerate(zip(numbers, positions, strict=True)):
        px, py, pz, z = bits(x, kind), bits(y, kind), bits(w, kind), int(z)
        if kind == "float32":
            atom = mix(mix((px | py << 32) + G * (k + 1) & MASK) ^ (pz | z << 32))
        else:
            atom = mix(mix(mix(px + G * (k + 1) & MASK) ^ py) ^ (pz + z * G & MASK))
        h = h + atom & MASK
    flags = sum(int(p) << i for i, p in enumerate(pbc))
    word = flags + (int(charge) % 2**16 << 3) + (int(multiplicity) % 2**16 << 19) + (len(numbers) << 35)
    for w in [bits(v, "float64") for v in np.ravel(cell)] + [word]:
        h = mix(h ^ w) + G & MASK
    return h


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_hash_is_what_the_specification_says(kind):
    frames = mixed_frames(6)
    frames[1].info["charge"] = -1
    batch = ml.SampleBatch.from_ase(frames).astype(kind)
    for i, one in enumerate(batch):
        expected = reference(
            one.numbers, one.positions, one.cell[0], one.pbc[0], one.charge[0], one.multiplicity[0], kind
        )
        assert int(batch.content_hash[i]) == expected


def test_hash_does_not_depend_on_the_batch():
    # 300 samples are several slabs; one at a time must give the same.
    batch = ml.SampleBatch.from_ase(mixed_frames(300))
    assert batch.content_hash.tolist() == [int(one.content_hash[0]) for one in batch]


def test_minus_zero_is_zero():
    plain = ml.SampleBatch(n_atoms=[1], numbers=[1], positions=[[0.0, 0.0, 0.0]])
    minus = ml.SampleBatch(n_atoms=[1], numbers=[1], positions=[[-0.0, 0.0, -0.0]])
    assert plain.content_hash == minus.content_hash


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.data())
def test_any_change_changes_the_hash(n, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    columns = {
        "n_atoms": np.array([n], np.int32),
        "numbers": rng.integers(1, 119, n).astype(np.uint8),
        "positions": rng.normal(0, 3, (n, 3)).astype(np.float32),
        "cell": rng.normal(0, 5, (1, 3, 3)),
        "pbc": rng.random((1, 3)) < 0.5,
        "charge": np.array([0], np.int16),
        "multiplicity": np.array([1], np.int16),
    }
    before = content_hash(**columns)
    name = data.draw(st.sampled_from([name for name in columns if name != "n_atoms"]))
    changed = columns[name].copy().reshape(-1)
    i = data.draw(st.integers(0, len(changed) - 1))
    if changed.dtype == bool:
        changed[i] = ~changed[i]
    elif changed.dtype.kind == "f":
        changed[i] = np.nextafter(changed[i], changed.dtype.type(np.inf))  # numpy 1 takes a plain inf for float64
    else:
        changed[i] += 1
    after = content_hash(**{**columns, name: changed.reshape(columns[name].shape)})
    assert before != after


def test_swapping_atoms_changes_the_hash():
    one = ml.SampleBatch(n_atoms=[2], numbers=[1, 1], positions=[[0, 0, 0], [0, 0, 0.74]])
    two = ml.SampleBatch(n_atoms=[2], numbers=[1, 1], positions=[[0, 0, 0.74], [0, 0, 0]])
    assert one.content_hash != two.content_hash
