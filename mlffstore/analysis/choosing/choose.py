"""The choices by structure: diverse samples, samples that cover all environments, samples without near duplicates.

Each returns indices, ascending, and a report of what is kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.choosing.cells import Cells
from mlffstore.analysis.choosing.coverage import ReadableStructures, coverage, radius_of
from mlffstore.analysis.choosing.covering import cover as cover_cells
from mlffstore.analysis.choosing.environments import environments
from mlffstore.analysis.choosing.near import near_duplicates
from mlffstore.analysis.choosing.points import coordinates, direct, farthest, fingerprints
from mlffstore.data.schema import STRUCTURE
from mlffstore.errors import DataError, missing_dependency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints

    Progress = Callable[[int, int], object]

#: Samples up to which farthest-point selection is the method of choice: its cost is their number times that of the chosen.
FARTHEST_UP_TO = 20_000


def diverse(
    samples: ReadableStructures, n: int, *, method: str, seed: int, progress: Progress | None
) -> tuple[Ints, dict[str, Any]]:
    """Return `n` samples that differ; see `mlffstore.store.samples.Samples.diverse`."""
    methods = ("auto", "farthest", "direct")
    if method not in methods:
        raise DataError(f"method: expected one of {', '.join(methods)}, got {method!r}")
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= len(samples):
        raise DataError(f"n: expected 1 to {len(samples):,} samples, got {n!r}")
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise missing_dependency("scikit-learn", "active", "a diverse choice") from error
    if method == "auto":
        method = "farthest" if len(samples) <= FARTHEST_UP_TO else "direct"
    rows = np.concatenate([fingerprints(batch) for batch in _structures(samples, progress)])
    points, none = coordinates(rows, rows[:0])
    chosen = np.sort(farthest(points, none, n) if method == "farthest" else direct(points, none, n))
    return chosen, {"method": method, **coverage(samples, chosen, seed=seed)}


def cover(
    samples: ReadableStructures, threshold: float, *, seed: int, progress: Progress | None
) -> tuple[Ints, dict[str, Any]]:
    """Return few samples that cover all environments; see `mlffstore.store.samples.Samples.cover`."""
    threshold = _not_negative("threshold", threshold, "a number of nats")
    # Two environments of a cell are at most twice its radius apart, so that each covers the other.
    cells, starts, parts = Cells(radius_of(threshold) / 2), [0], []
    for batch in _structures(samples, progress):
        several = environments(batch.to_ase())
        sorted_cells = np.split(cells.sort(np.concatenate(several)), np.cumsum([len(one) for one in several])[:-1])
        for one in sorted_cells:
            parts.append(np.unique(one))
            starts.append(starts[-1] + len(parts[-1]))
    chosen = cover_cells(np.array(starts, np.int64), np.concatenate([np.zeros(0, np.int64), *parts]), len(cells))
    return chosen, {"cells": len(cells), **coverage(samples, chosen, threshold=threshold, seed=seed)}


def without_near_duplicates(samples: ReadableStructures, tolerance: float, *, seed: int) -> tuple[Ints, dict[str, Any]]:
    """Return the samples that no earlier one nearly equals; see `mlffstore.store.samples.Samples`."""
    tolerance = _not_negative("tolerance", tolerance, "a number")
    copies = near_duplicates(samples.to_xarray(), tolerance) if len(samples) else np.zeros(0, bool)
    chosen = np.flatnonzero(~copies)
    return chosen, {"left_out": int(copies.sum()), **coverage(samples, chosen, seed=seed)}


def _not_negative(name: str, value: Any, what: str) -> float:
    """Return an argument as a plain number; raise `DataError` unless it is one, finite and not negative."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise DataError(f"{name}: expected {what} that is not negative, got {value!r}")
    return float(value)


def _structures(samples: ReadableStructures, progress: Progress | None) -> Iterator[SampleBatch]:
    done = 0
    for batch in samples.blocks(columns=list(STRUCTURE)):
        yield batch
        done += len(batch)
        if progress is not None:
            progress(done, len(samples))
