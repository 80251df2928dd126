"""Samples with every built-in property and two more, from two teachers, partly missing, and with columns of strings."""

from __future__ import annotations

import numpy as np

import mlffstore as ml
from mlffstore.data.properties import PROPERTIES, property_of

POLARIZABILITY = ml.Property(
    "test_polarizability", axis="sample", shape=("xyz", "xyz"), unit="e*angstrom^2/V", turns="tensor"
)
QUADRUPOLES = ml.Property("test_quadrupoles", axis="atom", shape=("voigt",), unit="e*angstrom^2", turns="tensor")
CUSTOM = (POLARIZABILITY.name, QUADRUPOLES.name)
WIDTH = {"a": 5, "b": 3}
#: Samples without a label, by property.
LACKING = {"forces": 1, "charges": 2, "dipole": 0, "embedding": 3, POLARIZABILITY.name: 1, "stress": 2}


def values_of(name: str, teacher: str, n_atoms: list[int], rng: np.random.Generator) -> np.ndarray:
    """Return random values of a property, NaN in the sample that lacks it (another one for each teacher)."""
    spec = property_of(name)
    starts = np.cumsum([0, *n_atoms])
    rows = int(starts[-1]) if spec.axis == "atom" else len(n_atoms)
    shape = tuple(WIDTH[teacher] if size is None else size for size in spec.sizes)
    dtype = "float16" if name == "embedding" and teacher == "b" else spec.dtype
    out = rng.normal(size=(rows, *shape)).astype(dtype)
    if name in LACKING:
        i = (LACKING[name] + (teacher == "b")) % len(n_atoms)
        out[slice(starts[i], starts[i + 1]) if spec.axis == "atom" else i] = np.nan
    return out


def signals(seed: int = 0, n_atoms: tuple[int, ...] = (2, 3, 1, 4)) -> ml.SampleBatch:
    """Return samples of two teachers with every property."""
    rng, counts = np.random.default_rng(seed), list(n_atoms)
    total = sum(counts)
    labels = {
        teacher: {name: values_of(name, teacher, counts, rng) for name in (*PROPERTIES, *CUSTOM)} for teacher in "ab"
    }
    return ml.SampleBatch(
        n_atoms=counts,
        numbers=rng.choice([2, 10, 18], total),
        positions=rng.normal(size=(total, 3)) * 3,
        cell=np.tile(np.eye(3) * 12.0, (len(counts), 1, 1)),
        pbc=np.ones((len(counts), 3), bool),
        labels=labels,
        extra={
            "config_type": (["two words", None, "bulk", f"run {seed}"][: len(counts)], "1", "sample"),
            "residue": (["ALA", "GLY"] * (total // 2) + ["GLY"] * (total % 2), "1", "atom"),
        },
    )


def assert_same(one: ml.SampleBatch, other: ml.SampleBatch) -> None:
    """Check that labels, properties and strings of two batches are the same."""
    assert set(one.labels) == set(other.labels)
    for teacher, named in one.labels.items():
        assert set(named) == set(other.labels[teacher]), teacher
        for name, array in named.items():
            again = other.labels[teacher][name]
            assert again.dtype == array.dtype, name
            np.testing.assert_array_equal(again, array, err_msg=f"{name} of {teacher}")
    assert {name: spec.describe() for name, spec in one.properties.items()} == {
        name: spec.describe() for name, spec in other.properties.items()
    }
    for name, column in one.user.items():
        if column.coded:
            assert one.strings(name) == other.strings(name)
