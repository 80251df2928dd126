"""Checks of what a teacher gives beside energy, forces and stress: that it is what it declares, and sums that physics knows.

How these properties turn, and that they do not depend on order, place and images, is checked with energy and forces in
`mlffstore.contracts.symmetries`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.contracts.hessian import is_hessian
from mlffstore.data.labels import has_label
from mlffstore.data.properties import property_of
from mlffstore.data.schema import LABELS

if TYPE_CHECKING:
    from mlffstore.contracts.examination import Examination

#: Properties about whose values sums or signs say something, see `sums`.
_SUMS = ("atomic_energies", "charges", "energy_std", "forces_std")


def declared(exam: Examination) -> None:
    """Check that all properties that are declared are given, in their shape and dtype, and for some sample."""
    names = [name for name in (*exam.info.properties, *exam.extra) if name not in LABELS and not is_hessian(name)]
    plain = exam.teacher.label(exam.batch).more
    problems = [f"{name}: given and not declared" for name in exam.labels.more if name not in names]
    problems += [f"{name}: declared as given without request, and not there" for name in exam.info.properties
                 if name in names and name not in plain]  # fmt: skip
    for name in names:
        spec, values = property_of(name), exam.labels.more.get(name)
        if values is None:
            problems.append(f"{name}: declared and not given")
            continue
        rows = exam.batch.n_atoms_total if spec.axis == "atom" else len(exam.batch)
        width = exam.info.widths.get(name)
        inner = tuple(size or width or got for size, got in zip(spec.sizes, values.shape[1:], strict=False))
        if values.shape != (rows, *inner) or len(inner) != len(spec.sizes):
            problems.append(f"{name}: expected shape {(rows, *(size or width or 'width' for size in spec.sizes))}, "
                            f"got {values.shape}")  # fmt: skip
        elif values.dtype not in ((spec.dtype, "float16") if spec.half else (spec.dtype,)):
            problems.append(f"{name}: expected {spec.dtype}, got {values.dtype}")
        elif not has_label(name, values, exam.batch.n_atoms).any():
            exam.skip(f"{name}", "none of the samples has it")
    if names:
        exam.judge("other properties as declared", len(problems), 0, "problems", "; ".join(problems))


def sums(exam: Examination) -> None:
    """Check what sums and signs say of atomic energies, charges and spreads, and name what is not measured."""
    more, starts = exam.labels.more, exam.batch.offsets[:-1]
    if "atomic_energies" in more:
        total = np.add.reduceat(more["atomic_energies"], starts)
        _judge(exam, "atomic energies sum to the energy", total - exam.labels.energy, exam.energy_limit, "eV")
    if "charges" in more:
        total = np.add.reduceat(more["charges"].astype(float), starts)
        limit = 1e-4 + 1e-6 * float(
            exam.batch.n_atoms.max()
        )  # convergence of the charges, and their rounding to float32
        _judge(exam, "charges sum to the charge", total - exam.batch.charge, limit, "e")
    for name in ("energy_std", "forces_std"):
        if name in more:
            _judge(exam, f"{name} is not negative", np.minimum(more[name], 0).reshape(-1), 0, property_of(name).unit)
    if "forces_std" in more:
        rises = np.maximum(np.diff(more["forces_std"], axis=1), 0).reshape(-1)
        _judge(exam, "forces_std: the largest first", rises, 0, "eV/angstrom")
    for name in more:
        if name == "dipole":
            exam.skip(
                "values of dipole", "would take energies in an electric field; a neutral one stays where it is moved"
            )
        elif name not in _SUMS:
            exam.skip(f"values of {name}", "no law says what they are; only how they turn is checked")


def _judge(exam: Examination, name: str, deviations: np.ndarray, limit: float, unit: str) -> None:
    known = deviations[~np.isnan(deviations)]
    if len(known):
        exam.judge(name, float(np.abs(known).max()), limit, unit)
    else:
        exam.skip(name, "none of the samples has it")
