"""Putting the labels of single samples together: what failed stays NaN, with its reason."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.data.properties import property_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array


_log = logging.getLogger(__name__)


def failure(name: str, error: BaseException) -> str:
    """Return a reason of one line for an exception of a teacher."""
    text = str(error).strip().splitlines()
    return f"{name} failed: {type(error).__name__}" + (f": {text[0][:200]}" if text else "")


def collect(
    name: str,
    batch: SampleBatch,
    results: Sequence[dict[str, Any] | None],
    reasons: Sequence[str],
    *,
    stress: bool,
    more: Sequence[str] = (),
    widths: Mapping[str, int] | None = None,
) -> TeacherLabels:
    """Return the labels of a batch.

    Parameters
    ----------
    name : str
        Name of the teacher.
    batch : SampleBatch
    results : sequence of dict or None
        "energy" (eV), "forces" (N, 3) (eV/angstrom) and, if `stress`, "stress" (6,) (eV/angstrom^3, tension positive)
        of every sample; None where there are none.
    reasons : sequence of str
        The reason why a sample has no labels.
    stress : bool
        Whether the teacher has a stress.
    more : sequence of str, optional
        Other properties, see `mlffstore.data.properties`, that results may have under their names.
    widths : mapping of str to int, optional
        Widths of those properties whose width the teacher chooses, for batches in which no sample has one.
    """
    n = len(batch)
    energy = np.full(n, np.nan)
    forces = np.full((batch.n_atoms_total, 3), np.nan, np.float32)
    stresses = np.full((n, 6), np.nan, np.float32) if stress else None
    others = {name: column for name in more if (column := _missing(name, batch, results, widths or {})) is not None}
    ok = np.zeros(n, bool)
    out = list(reasons)
    for i, result in enumerate(results):
        if result is None:
            continue
        wanted = [result["energy"], result["forces"], *([result["stress"]] if stress and "stress" in result else [])]
        wanted += [result[name] for name in others if name in result]
        if not all(np.isfinite(value).all() for value in wanted):
            out[i] = f"{name} gave a label that is not finite"
            continue
        energy[i] = result["energy"]
        forces[batch.offsets[i] : batch.offsets[i + 1]] = result["forces"]
        if stresses is not None and "stress" in result:
            stresses[i] = result["stress"]
        for name, column in others.items():
            if name in result:
                column[rows_of(name, batch, i)] = result[name]
        ok[i], out[i] = True, ""
    return TeacherLabels(energy, forces, stresses, ok, tuple(out), others)


def rows_of(name: str, batch: SampleBatch, i: int) -> slice | int:
    """Return the rows of a property that belong to a sample."""
    return slice(batch.offsets[i], batch.offsets[i + 1]) if property_of(name).axis == "atom" else i


def _missing(
    name: str, batch: SampleBatch, results: Sequence[dict[str, Any] | None], widths: Mapping[str, int]
) -> Array | None:
    """Return a column of NaN for a property; None if its width is not known since no sample has it."""
    spec = property_of(name)
    inner: tuple[int, ...] = tuple(size or widths.get(name, 0) for size in spec.sizes)
    dtype = spec.dtype
    if spec.is_open:
        first = next((np.asarray(result[name]) for result in results if result is not None and name in result), None)
        if first is None:
            return None if 0 in inner else np.full((batch.n_atoms_total, *inner), np.nan, dtype)
        inner = first.shape[1:] if spec.axis == "atom" else first.shape
        dtype = "float16" if spec.half and first.dtype == np.float16 else dtype
    return np.full((batch.n_atoms_total if spec.axis == "atom" else len(batch), *inner), np.nan, dtype)


def joined(name: str, batch: SampleBatch, results: Sequence[dict[str, Any] | None], reasons: Sequence[str]) -> Array:
    """Return the column of one property of all samples, NaN for samples without results, whose reasons are logged."""
    for reason, count in Counter(filter(None, reasons)).items():
        _log.warning("%s: %d of %d samples have none: %s", name, count, len(batch), reason)
    column = _missing(name, batch, results, {})
    assert column is not None, f"the width of {name} is not known"
    for i, result in enumerate(results):
        if result is not None:
            column[rows_of(name, batch, i)] = result[name]
    return column
