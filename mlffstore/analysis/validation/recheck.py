"""Stored labels against the teacher that made them, on some samples: the energy again, and differences of energies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.validation.check_result import Check, CheckResult
from mlffstore.analysis.validation.recheck_properties import deviating, further_labels, label_again
from mlffstore.data.batch import SampleBatch
from mlffstore.data.concatenation import concatenate
from mlffstore.data.ragged import row_indices
from mlffstore.data.schema import STRUCTURE
from mlffstore.data.stencil import STEP, STRAIN, derivative, displaced, strained
from mlffstore.errors import TeacherError
from mlffstore.lazy.accessor import Mlff

if TYPE_CHECKING:
    import xarray as xr

    from mlffstore.analysis.validation.policy import Policy
    from mlffstore.contracts.protocols import Teacher
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array


#: Samples, and about the atoms of them, that are labelled again by default.
QUICK_SAMPLES, QUICK_ATOMS = 50, 1000


@dataclass(frozen=True, slots=True)
class Recheck:
    """What a teacher at hand says of the labels that are stored under its name.

    Attributes
    ----------
    bad : dict of str to ndarray
        Check -> indices of the samples whose labels are not those of the teacher.
    n : int
        Number of samples that the teacher labelled again.
    n_refused : int
        Number of samples that it refused.
    compared : dict of str to int
        Check -> number of samples of which the labels could be compared.
    """

    bad: dict[str, Array]
    n: int
    n_refused: int
    compared: dict[str, int] = field(default_factory=dict)

    def result(self, name: str, policy: Policy) -> CheckResult:
        """Return the check `teacher_labels` of the teacher of this name."""
        check = Check("teacher_labels", policy.checks["teacher_labels"], name)
        if not self.n:
            reason = (
                f"the teacher refused all of {self.n_refused} samples" if self.n_refused else "no sample has its labels"
            )
            return check.not_measured(reason)
        counts = {one: len(index) for one, index in self.bad.items() if policy.checks[one].severity != "off"}
        text = ", ".join(
            f"{one} {n} of {self.compared[one]:,} off" if self.compared[one] else f"{one} not measured"
            for one, n in counts.items()
        )
        text = f"{self.n} samples labelled again: {text}"
        if not any(self.compared[one] for one in counts):
            return check.not_measured(f"{text}: no label could be compared", self.n)
        wrong = max((n for one, n in counts.items() if policy.checks[one].severity == "error"), default=0)
        return check.judged(
            not wrong, text, self.n,
            f"expected the labels of the teacher, got others: {text}. Label these samples again, or name the teacher that "
            "made the labels",
        )  # fmt: skip


def recheck(ds: xr.Dataset, teacher: Teacher, policy: Policy, seed: int, *, quick: bool = False) -> Recheck:
    """Compare the labels of some samples with those that the teacher gives.

    Parameters
    ----------
    ds : Dataset
    teacher : Teacher
        The teacher; its name is the name of the labels.
    policy : Policy
        Its checks `force_gradient`, `teacher_energy`, `teacher_stress` and `teacher_properties` set the number of samples
        and the deviations that pass.
    seed : int
        Seed of the choice of samples and directions.
    quick : bool, optional
        Whether at most `QUICK_SAMPLES` samples of together about `QUICK_ATOMS` atoms are labelled again. Energies, forces
        and stresses are compared as they are like all other labels, and on a fifth of them with differences of energies too.

    Notes
    -----
    A random unit direction of all coordinates of a sample, scaled so that each coordinate moves by about the step: the
    derivative of the energy along it is compared with what the stored forces say, per root of the number of coordinates.
    Forces of a teacher that is not conservative are no gradient; they are compared with the teacher's forces instead.
    """
    info, rule = teacher.info, policy.checks["force_gradient"]
    if "teacher" not in ds.coords or info.name not in ds["teacher"].values:
        there = ", ".join(map(str, ds["teacher"].values)) if "teacher" in ds.coords else "none"
        raise TeacherError(f"teacher: expected one whose labels are there ({there}), got {info.name!r}")
    t = ds["teacher"].values.tolist().index(info.name)
    has = _labelled(ds, info.name)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(has)[: min(int(rule["samples"]), QUICK_SAMPLES if quick else len(has))]
    if quick:
        before = np.cumsum(np.asarray(ds["n_atoms"])[chosen]) - np.asarray(ds["n_atoms"])[chosen]
        chosen = chosen[before < QUICK_ATOMS]
    chosen = np.sort(chosen)
    if not len(chosen):
        return Recheck({}, 0, 0)
    part = Mlff(ds).isel(chosen).compute()
    columns: dict[str, Any] = {name: part[name].values for name in STRUCTURE}
    as_stored = SampleBatch(**columns)
    further = further_labels(part, teacher)
    predicted = label_again(teacher, as_stored, further)  # directions of Hessian products follow from what is stored
    batch = as_stored.astype("float64")
    ok = predicted.ok
    bad: dict[str, Array] = {}
    if further:
        share = policy.checks["teacher_properties"]["max_share"]
        bad["teacher_properties"] = chosen[deviating(further, predicted, batch, share)]
    energy = part["energy"].values[:, t] if "energy" in part else np.full(len(batch), np.nan)
    limit = policy.checks["teacher_energy"]["max_eV_per_atom"]
    bad["teacher_energy"] = chosen[
        ok & np.isfinite(energy) & ~(np.abs(predicted.energy - energy) <= limit * batch.n_atoms)
    ]
    compared = {"teacher_energy": int((ok & np.isfinite(energy)).sum())}
    if further:
        compared["teacher_properties"] = int(ok.sum())
    tried = _tried(batch, ok, rng, quick)
    if "forces" in part:
        forces = part["forces"].values[:, t].astype(np.float64)
        deviation = np.zeros(len(batch))
        if quick or not info.conservative:
            apart = np.add.reduceat(((forces - predicted.forces) ** 2).sum(axis=1), batch.offsets[:-1])
            deviation = np.sqrt(apart / (3 * batch.n_atoms))
        if info.conservative and len(tried):
            rows = row_indices(batch.offsets[tried], batch.n_atoms[tried])
            by_gradient = _against_gradient(teacher, batch.take(tried), forces[rows], rng)
            deviation[tried] = np.maximum(deviation[tried], by_gradient)
        has_forces = np.isfinite(np.add.reduceat(forces.sum(axis=1), batch.offsets[:-1]))
        compared["force_gradient"] = _number(ok & has_forces, tried, info.conservative and not quick)
        bad["force_gradient"] = chosen[ok & has_forces & ~(deviation <= rule["max_eV_per_angstrom"])]
    if "stress" in part and info.conservative:
        stress = part["stress"].values[:, t].astype(np.float64)
        wanted = ok & batch.pbc.all(axis=1) & np.isfinite(stress).all(axis=1)
        apart = np.zeros(len(batch))
        if quick and predicted.stress is not None:
            apart = np.abs(predicted.stress - stress).max(axis=1)
        strain = tried[wanted[tried]]
        if len(strain):
            apart[strain] = np.fmax(apart[strain], _against_strain(teacher, batch.take(strain), stress[strain], rng))
        compared["teacher_stress"] = _number(wanted, tried, not (quick and predicted.stress is not None))
        bad["teacher_stress"] = chosen[wanted & ~(apart <= policy.checks["teacher_stress"]["max_eV_per_angstrom3"])]
    return Recheck(bad, int(ok.sum()), int((~ok).sum()), compared)


def _number(known: Array, tried: Ints, only_tried: bool) -> int:
    """Return how many of some samples were compared: all of them, or those of which energies were differentiated."""
    return int(known[tried].sum() if only_tried else known.sum())


def _labelled(ds: xr.Dataset, teacher: str) -> Ints:
    """Return the samples that have an energy of a teacher or, if none has one, some other label of it."""
    if "energy" in ds and len(has := np.flatnonzero(np.isfinite(np.asarray(ds["energy"].sel(teacher=teacher))))):
        return has
    starts = np.cumsum(np.asarray(ds["n_atoms"])) - np.asarray(ds["n_atoms"])
    some = np.zeros(ds.sizes["sample"], bool)
    for name, variable in ds.data_vars.items():
        if "teacher" in variable.dims or str(name).endswith(f".{teacher}"):
            values = np.asarray(variable.sel(teacher=teacher) if "teacher" in variable.dims else variable)
            rows = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            some |= np.logical_and.reduceat(rows, starts) if variable.dims[0] == "atom" else rows
    return np.flatnonzero(some)


def _tried(batch: SampleBatch, ok: Array, rng: np.random.Generator, quick: bool) -> Ints:
    """Return the samples whose energies are differentiated, which takes eight more labels of each of them."""
    index = np.flatnonzero(ok)
    if not quick:
        return index
    index = rng.permutation(index)
    before = np.cumsum(batch.n_atoms[index]) - batch.n_atoms[index]
    return np.sort(index[before < QUICK_ATOMS / 5])


def _against_gradient(teacher: Teacher, batch: SampleBatch, forces: Array, rng: np.random.Generator) -> Array:
    direction = rng.normal(size=batch.positions.shape)
    slope = derivative(_energies(teacher, displaced(batch, direction)), STEP)
    expected = -np.add.reduceat((forces * direction).sum(axis=1), batch.offsets[:-1])
    length = np.sqrt(np.add.reduceat((direction**2).sum(axis=1), batch.offsets[:-1]))
    return np.asarray(np.abs(slope - expected) / length)


def _against_strain(teacher: Teacher, batch: SampleBatch, stress: Array, rng: np.random.Generator) -> Array:
    from ase.stress import voigt_6_to_full_3x3_stress

    strain = rng.normal(size=(len(batch), 3, 3))
    strain = 0.5 * (strain + strain.swapaxes(1, 2))
    strain /= np.linalg.norm(strain, axis=(1, 2))[:, None, None]
    slope = derivative(_energies(teacher, strained(batch, strain)), STRAIN) / np.abs(np.linalg.det(batch.cell))
    return np.asarray(np.abs(slope - (voigt_6_to_full_3x3_stress(stress) * strain).sum(axis=(1, 2))))


def _energies(teacher: Teacher, batches: list[SampleBatch]) -> Array:
    """Return the energies of batches of equal length, labelled together, shape (batches, S)."""
    return np.asarray(teacher.label(concatenate(batches)).energy.reshape(len(batches), -1))
