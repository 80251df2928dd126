"""Results of a calculator that do not fit a sample are a reason for that sample, and the others are labelled."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase.calculators.calculator import Calculator

import mlffstore as ml
from mlffstore.contracts.protocols import TeacherInfo
from mlffstore_teachers.ase import ASETeacher
from mlffstore_teachers.collect import collect

ENERGY, FORCES = {"energy": -1.5}, {"forces": np.arange(9.0).reshape(3, 3)}
NAMES = ("energy", "forces", "stress", "charges", "magmoms", "dipole", "atomic_energies", "embedding")


class Fixed(Calculator):
    """A calculator whose results are given."""

    implemented_properties = NAMES

    def __init__(self, results):
        super().__init__()
        self.given = results

    def calculate(self, *_):
        self.results = dict(self.given)


def water(n: int) -> ml.SampleBatch:
    positions = np.array([[0, 0, 0], [0.9, 0, 0], [0, 0.9, 0]])
    return ml.SampleBatch(
        n_atoms=[3] * n, numbers=[8, 1, 1] * n, positions=np.concatenate([positions + i for i in range(n)])
    )


def teacher(bad) -> ASETeacher:
    """Return a teacher that gives these results for the second of several molecules, and good ones for the others."""
    good = ENERGY | FORCES | {"charges": np.full(3, 0.5), "dipole": np.full(3, 0.25), "embedding": np.ones((3, 4))}
    info = TeacherInfo(
        name="fixed", elements=None, domains=frozenset({"molecule"}), properties=("energy", "forces", "charges", "magmoms",
        "dipole", "embedding"), precision="float64", conservative=True, licence="MIT", fingerprint="x", software={},
    )  # fmt: skip
    return ASETeacher(info, lambda atoms: Fixed(good | (bad if 1 <= atoms.positions[0, 0] < 2 else {})))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"forces": np.array([1.0, 2, 3])}, r"forces of shape \(3,\), expected \(3, 3\)"),
        ({"forces": np.ones((1, 3))}, r"forces of shape \(1, 3\), expected \(3, 3\)"),
        ({"forces": 1.0}, r"forces of shape \(\), expected \(3, 3\)"),
        ({"forces": np.ones((3, 2))}, "forces of shape"),
        ({"forces": None}, "no forces"),
        ({"forces": [[1.0, 2, 3], [1.0]]}, ""),
        ({"forces": np.full((3, 3), 1e39)}, "a label that is not finite"),
        ({"energy": None}, "no energy"),
        ({"energy": "low"}, "no real numbers for energy"),
        ({"energy": 1 + 0j}, "no real numbers for energy"),
        ({"energy": np.ones(3)}, r"energy of shape \(3,\), expected \(\)"),
        ({"energy": np.inf}, "a label that is not finite"),
        ({"charges": 0.5}, r"charges of shape \(\), expected \(3,\)"),
        ({"charges": np.ones((3, 1))}, "charges of shape"),
        ({"charges": np.array([1.0])}, "charges of shape"),
        ({"dipole": 0.5}, r"dipole of shape \(\), expected \(3,\)"),
        ({"magmoms": np.ones((3, 3))}, "magmoms of shape"),
        ({"embedding": np.ones(3)}, "embedding of shape"),
        ({"embedding": np.ones((3, 2))}, r"embedding of shape \(3, 2\), expected \(3, 4\)"),
    ],
)
def test_results_that_do_not_fit_are_a_refusal(tmp_path, bad, reason):
    store = ml.create(tmp_path / "d.zarr")
    store.append(water(3), require=())
    report = store.add_labels(teacher(bad))
    assert (report.labelled, report.refused) == (2, 1)
    (text,) = report.reasons
    assert text.startswith("fixed ")
    np.testing.assert_array_equal(np.isnan(store.snapshot().read().energy), [False, True, False])
    assert np.isnan(store.snapshot().read().label("charges")[3:6]).all()
    assert re.search(reason, text)
    assert store.add_labels(teacher(bad)).versions == []


def test_an_array_of_one_number_is_that_number():
    labels = teacher({"energy": np.array([-2.5])}).label(water(2))
    assert labels.energy.tolist() == [-1.5, -2.5]
    assert labels.ok.all()


def test_a_bad_result_that_comes_first_does_not_choose_the_width():
    results = [ENERGY | FORCES | {"embedding": value} for value in (2.0, np.ones((3, 0)), np.ones((3, 5)))]
    labels = collect("t", water(3), results, [""] * 3, stress=False, more=("embedding",))
    assert labels.more["embedding"].shape == (9, 5)
    assert labels.ok.tolist() == [False, False, True]
