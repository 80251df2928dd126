"""Putting the labels of single samples together: what failed stays NaN, with its reason."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.data.properties import property_of
from mlffstore.data.rules import REQUIRED

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
        of every sample; None where there are none. A sample with a result of another shape, that is no real number, or that
        the dtype of its column cannot hold, has no labels.
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
    columns = {"energy": energy, "forces": forces, **({} if stresses is None else {"stress": stresses}), **others}
    ok = np.zeros(n, bool)
    out = list(reasons)
    for i, result in enumerate(results):
        if result is None:
            continue
        try:
            values = {
                key: _fitting(key, result.get(key), int(batch.n_atoms[i]), column)
                for key, column in columns.items()
                if key in result or key in REQUIRED
            }
        except ValueError as error:
            out[i] = f"{name} gave {error}"
            continue
        for key, value in values.items():
            columns[key][rows_of(key, batch, i)] = value
        ok[i], out[i] = True, ""
    return TeacherLabels(energy, forces, stresses, ok, tuple(out), others)


def _fitting(name: str, value: Any, n_atoms: int, column: Array) -> Array:
    """Return a result of one sample in the dtype of its column.

    Raises
    ------
    ValueError
        If it does not fit, with what it is.
    """
    if value is None:
        raise ValueError(f"no {name}")
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"no real numbers for {name}")
    by_atom = property_of(name).axis == "atom"
    shape = (n_atoms, *column.shape[1:]) if by_atom else column.shape[1:]
    if shape == () and array.size == 1:
        array = array.reshape(())
    if array.shape != shape:
        raise ValueError(f"{name} of shape {array.shape}, expected {shape}")
    with np.errstate(over="ignore"):
        array = array.astype(column.dtype)
    if not np.isfinite(array).all():
        raise ValueError("a label that is not finite")
    return array


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
        by_atom = spec.axis == "atom"
        given = (np.asarray(result[name]) for result in results if result is not None and name in result)
        first = next((one for one in given if spec.fits(one.shape[1:] if by_atom else one.shape)), None)
        if first is None:
            rows = batch.n_atoms_total if by_atom else len(batch)
            return None if 0 in inner else np.full((rows, *inner), np.nan, dtype)
        inner = first.shape[1:] if by_atom else first.shape
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
