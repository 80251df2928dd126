"""Samples that a teacher failed on can be asked for again: a machine without a GPU is no property of a structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import mlffstore as ml
from mlffstore.contracts.protocols import TeacherInfo, TeacherLabels
from tests.command import cli
from tests.samples import metal_frames

if TYPE_CHECKING:
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch


class Flaky:
    """Fails on all samples but those that it has learned to label, and counts what it was asked for."""

    info = TeacherInfo(
        "flaky", None, frozenset({"molecule", "periodic"}), ("energy", "forces"), "float64", True, "MIT", "f"
    )

    def __init__(self, known: tuple[int, ...] = ()) -> None:
        self.known, self.asked = known, 0

    def label(self, batch: SampleBatch) -> TeacherLabels:
        self.asked += len(batch)
        ok = np.isin(batch.n_atoms, self.known)
        forces = np.where(np.repeat(ok, batch.n_atoms)[:, None], 0.5, np.nan) * np.ones((len(batch.numbers), 3))
        reasons = tuple("" if good else "no GPU" for good in ok.tolist())
        return TeacherLabels(np.where(ok, -1.0, np.nan), forces, None, ok, reasons)


def store_of(path: Path, sizes: list[list[int]]) -> ml.Store:
    store = ml.create(path)
    for some in sizes:
        store.append(
            ml.SampleBatch(n_atoms=some, numbers=[29] * sum(some), positions=np.arange(3.0 * sum(some)).reshape(-1, 3)),
            require=(),
        )
    return store


def test_a_failure_is_asked_for_again_only_on_request(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", [[1, 2, 3], [2, 2], [3]])
    first, second = store.add_labels(Flaky()), store.add_labels(Flaky())
    assert (first.labelled, first.refused, first.refused_before) == (0, 6, 0)
    assert (second.labelled, second.refused, second.refused_before) == (0, 0, 6)
    teacher = Flaky((1, 2))
    report = store.add_labels(teacher, retry=True)
    assert (report.labelled, report.refused, teacher.asked) == (4, 2, 6)
    energy = store.snapshot().read().label("energy", "flaky")
    assert np.array_equal(energy, [-1, -1, np.nan, -1, -1, np.nan], equal_nan=True)
    # What has labels is not asked for again, and keeps them.
    teacher = Flaky((3,))
    report = store.add_labels(teacher, retry=True)
    assert (report.labelled, report.refused, teacher.asked) == (2, 0, 2)
    assert store.snapshot().read().label("energy", "flaky").tolist() == [-1] * 6
    assert store.add_labels(Flaky()).refused_before == 0
    version = store.version
    assert store.add_labels(Flaky(), retry=True).versions == []
    assert store.version == version


def test_the_command_says_that_nothing_was_labelled(tmp_path: Path) -> None:
    ml.create(tmp_path / "s").append(metal_frames(3), teacher="emt")
    done = cli("label", tmp_path / "s", "-t", "gfn2-xtb", "--no-recheck", code=1)
    assert "--retry" in done.stdout
    assert "refused" in done.stdout
    again = cli("label", tmp_path / "s", "-t", "gfn2-xtb", "--no-recheck")
    assert "3 samples have no labels since an earlier pass; --retry asks again" in again.stdout
    assert "refused" in cli("label", tmp_path / "s", "-t", "gfn2-xtb", "--no-recheck", "--retry", code=1).stdout


def test_what_was_refused_before_is_counted_apart(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", [[1, 2, 2]])
    assert store.add_labels(Flaky((2,))).refused == 1
    store.append(
        ml.SampleBatch(n_atoms=[1] * 3, numbers=[29] * 3, positions=np.arange(9.0).reshape(3, 3) + 50), require=()
    )
    report = store.add_labels(Flaky((2,)), samples=[3])
    assert (report.refused, report.refused_before) == (1, 1)


def test_samples_that_are_asked_for_something_else_are_not_refused_before(tmp_path: Path) -> None:
    store = ml.create(tmp_path / "s")
    store.append(metal_frames(2), teacher="emt")
    assert store.add_labels("gfn2-xtb").refused == 2
    report = store.add_labels("gfn2-xtb", properties=["atomic_energies"])
    assert (report.refused, report.refused_before) == (2, 0)
