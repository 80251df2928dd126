"""The answer of a teacher, checked against the batch that it was given: a third-party teacher may return anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.data.labels import cast_labels
from mlffstore.data.properties import property_of
from mlffstore.data.ragged import reduce_rows
from mlffstore.data.rules import REQUIRED
from mlffstore.errors import DataError, problems_message
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from mlffstore.contracts.protocols import TeacherInfo
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array


def checked(info: TeacherInfo, batch: SampleBatch, labels: TeacherLabels) -> TeacherLabels:
    """Return labels that fit the batch, with NaN and a reason for what was refused.

    A sample is refused if the teacher says so, or if a label is infinite or NaN in part. It is refused as well if it has no
    energy or no forces and the teacher declares them. Other properties, such as the stress of a molecule, may be missing.

    Parameters
    ----------
    info : TeacherInfo
    batch : SampleBatch
        The samples that the teacher was given.
    labels : TeacherLabels
        What it returned.

    Raises
    ------
    DataError
        If the number of rows, a shape or a dtype does not fit; every problem is listed.
    """
    problems: list[str] = []
    stress = {} if labels.stress is None else {"stress": labels.stress}
    columns: dict[str, Any] = {"energy": labels.energy, "forces": labels.forces, **stress, **labels.more}
    rows = {"sample": len(batch), "atom": batch.n_atoms_total}
    named = cast_labels(info.name, columns, rows, {}, problems)
    ok, reasons = np.array(labels.ok), list(labels.reasons)
    if ok.shape != (len(batch),) or ok.dtype != bool:
        problems.append(f"ok: expected a bool for each sample, shape ({len(batch)},), got {ok.dtype} {ok.shape}")
    if len(reasons) != len(batch):
        problems.append(f"reasons: expected a string for each sample ({len(batch)}), got {len(reasons)}")
    if problems:
        raise DataError(
            problems_message(
                f"{info.name!r} returned labels that do not fit the {counted(len(batch), 'sample')} it was given, which is "
                "an error of the teacher:",
                problems,
            )
        )
    wrong = {name: ok & bad for name, values in named.items() if (bad := _wrong(name, values, batch, info)) is not None}
    for i in np.flatnonzero(np.logical_or.reduce([*wrong.values(), ~ok])):
        names = [name for name, bad in wrong.items() if bad[i]]
        reasons[i] = f"{info.name} gave no finite {', '.join(names)}" if names else reasons[i] or "no reason was given"
        ok[i] = False
    # In the dtypes in which they came, which the examination of a teacher looks at; they are cast where they are stored.
    given = {name: np.asarray(columns[name]) for name in named}
    reasons = ["" if good else reason for reason, good in zip(reasons, ok.tolist(), strict=True)]
    if not ok.all():
        given = {name: _blank(name, values if values.dtype.kind == "f" else named[name], ~ok, batch)
                 for name, values in given.items()}  # fmt: skip
    more = {name: given[name] for name in labels.more}
    return TeacherLabels(given["energy"], given["forces"], given.get("stress"), ok, tuple(reasons), more)


def _wrong(name: str, values: Array, batch: SampleBatch, info: TeacherInfo) -> Array | None:
    """Return which samples have a label that may not be stored, shape (S,), bool; None if all are finite."""
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    finite = np.isfinite(flat)
    if finite.all():
        return None
    broken, missing = np.asarray(~finite.all(axis=1)), np.asarray(np.isnan(flat).all(axis=1))
    if property_of(name).axis == "atom":
        broken = reduce_rows(np.logical_or, broken, batch.offsets)
        missing = reduce_rows(np.logical_and, missing, batch.offsets)
    needed = name in REQUIRED and name in info.properties
    return broken if needed else broken & ~missing


def _blank(name: str, values: Array, samples: Array, batch: SampleBatch) -> Array:
    """Return a label with NaN for some samples."""
    rows = np.repeat(samples, batch.n_atoms) if property_of(name).axis == "atom" else samples
    out = values.copy()
    out[rows] = np.nan
    return out
