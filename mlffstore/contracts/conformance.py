"""Whether a teacher keeps its contract: invariances, derivatives, signs and units, checked on real structures.

`check` is what `mlffstore teachers check NAME` runs, what the tests of this package run on every built-in teacher, and what
the author of a teacher should run on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts import curvature, derivatives, signals, symmetries
from mlffstore.contracts.examination import Check, Examination
from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.contracts.structures import default_samples
from mlffstore.data.batch import SampleBatch
from mlffstore.data.concatenation import concatenate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from mlffstore.contracts.protocols import Teacher


def check(teacher: Teacher, samples: SampleBatch | Sequence[Atoms] | None = None, *, seed: int = 0) -> list[Check]:
    """Check a teacher against its contract.

    Parameters
    ----------
    teacher : Teacher
    samples : SampleBatch or sequence of ase.Atoms, optional
        Structures that the teacher can label, some tens of atoms each, not at a minimum of the energy. By default
        `mlffstore.contracts.structures.default_samples`.
    seed : int, optional
        Seed of random directions, rotations and permutations.

    Returns
    -------
    list of Check

    Raises
    ------
    TeacherError
        If the teacher cannot label the samples at all, or its answer is not of the right shape or dtype.

    Notes
    -----
    Limits allow for the precision in which the teacher computes. With R the resolution of the largest total energy in that
    precision, energies must agree to 50 R + 1e-6 eV. With N the noise of energy differences (what a translation changes, at
    most R), forces must agree with the gradient to 10 N / step plus 0.005 (float64) or 0.05 (float32) eV/angstrom, as a root
    mean square over coordinates. Forces that the teacher does not declare as a gradient are reported, not judged.

    Properties beside energy, forces and stress are asked for too, those on request included, and turn as
    `mlffstore.data.properties` says. What no law says anything about has a line "not measured".
    """
    batch = default_samples(teacher.info) if samples is None else _as_batch(samples)
    exam = Examination(teacher, batch, np.random.default_rng(seed))
    for examine in (
        _shapes,
        _input_unchanged,
        _repeated,
        _one_by_one,
        signals.declared,
        symmetries.permuted,
        symmetries.translated,
        symmetries.rotated,
        symmetries.images,
        symmetries.supercell,
        symmetries.distant_copies,
        derivatives.gradient,
        derivatives.stress,
        signals.sums,
        curvature.hessian,
        _refusals,
    ):
        examine(exam)
    return exam.checks


def failed(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that did not pass."""
    return [check for check in checks if check.passed is False]


def _as_batch(samples: SampleBatch | Sequence[Atoms]) -> SampleBatch:
    batch = samples if isinstance(samples, SampleBatch) else SampleBatch.from_ase(list(samples))
    return batch.astype("float64").structures()


def _shapes(exam: Examination) -> None:
    """Check shapes and dtypes, and that exactly the crystals have a stress."""
    labels, n, atoms = exam.labels, len(exam.batch), exam.batch.n_atoms_total
    problems = []
    expected: list[tuple[str, Any, tuple[int, ...], str]] = [
        ("energy", labels.energy, (n,), "float64"),
        ("forces", labels.forces, (atoms, 3), "float32"),
        ("ok", labels.ok, (n,), "bool"),
    ]
    if "stress" in exam.info.properties:
        expected.append(("stress", labels.stress, (n, 6), "float32"))
    for name, array, shape, dtype in expected:
        if array is None or array.shape != shape or array.dtype != dtype:
            got = "nothing" if array is None else f"{array.shape} {array.dtype}"
            problems.append(f"{name}: expected {shape} {dtype}, got {got}")
    if labels.stress is not None and not np.isnan(labels.stress[~exam.periodic]).all():
        problems.append("stress: expected NaN for samples that are not periodic in three directions")
    if labels.stress is not None and np.isnan(labels.stress[exam.periodic]).any():
        problems.append("stress: NaN for a crystal")
    exam.judge("shapes, dtypes, units of the answer", len(problems), 0, "problems", "; ".join(problems))


def _input_unchanged(exam: Examination) -> None:
    before = {name: array.copy() for name, array in exam.batch.columns.items()}
    exam.label(exam.batch, "the samples")
    changed = sum(not np.array_equal(array, exam.batch.columns[name]) for name, array in before.items())
    exam.judge("input is not changed", changed, 0, "columns")


def _repeated(exam: Examination) -> None:
    exam.compare("the same again", exam.label(exam.batch, "the samples"), exam.labels.energy, exam.labels.forces)


def _one_by_one(exam: Examination) -> None:
    singles = [exam.label(exam.batch[i : i + 1], "a single sample") for i in range(len(exam.batch))]
    joined = TeacherLabels(
        energy=np.concatenate([labels.energy for labels in singles]),
        forces=np.concatenate([labels.forces for labels in singles]),
        stress=None,
        ok=np.concatenate([labels.ok for labels in singles]),
        reasons=(),
    )
    exam.compare("one by one", joined, exam.labels.energy, exam.labels.forces)


def _refusals(exam: Examination) -> None:
    """Check that structures outside the teacher's domain are refused with a reason, and that others are labelled."""
    from ase import Atoms

    strange = []
    if exam.info.elements is not None:
        unknown = next((z for z in range(118, 0, -1) if z not in exam.info.elements), None)
        if unknown is not None:
            cell = np.eye(3) * 6.0 if "periodic" in exam.info.domains else None
            strange.append(Atoms([unknown, unknown], [[0, 0, 0], [0, 0, 3.0]], cell=cell, pbc=cell is not None))
    known = exam.frame(0)
    if "periodic" not in exam.info.domains:
        strange.append(Atoms(known.numbers, known.positions, cell=np.eye(3) * 15.0, pbc=True))
    if "molecule" not in exam.info.domains:
        strange.append(Atoms(known.numbers, known.positions))
    mixed = concatenate([SampleBatch.from_ase([frame]).astype("float64").structures() for frame in [*strange, known]])
    labels = exam.teacher.label(mixed)
    silent = sum(bool(ok) or not reason for ok, reason in zip(labels.ok[:-1], labels.reasons[:-1], strict=True))
    silent += int(not labels.ok[-1])
    exam.judge("strange samples are refused with a reason", silent, 0, "of " + str(len(strange) + 1))
