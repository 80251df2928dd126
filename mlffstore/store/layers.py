"""A user column over samples that are stored already: one layer per segment, all in one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.masks import present, unmask
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import user_column
from mlffstore.data.vocabulary import encode_strings, holds_strings
from mlffstore.errors import DataError
from mlffstore.format.records import layer_document
from mlffstore.format.segment import user_column_arrays, write_layer
from mlffstore.store.guard import CommitGuard
from mlffstore.store.staging import Staged, commit_staged

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from mlffstore.data.properties import Axis
    from mlffstore.data.schema import Array
    from mlffstore.format.log import Log
    from mlffstore.storage import Storage
    from mlffstore.store.snapshot import Snapshot


def add_column(
    storage: Storage,
    log: Log,
    snapshot: Snapshot,
    name: str,
    values: npt.ArrayLike,
    *,
    unit: str,
    axis: Axis | None,
    long_name: str,
    provenance: Mapping[str, Any],
) -> int:
    """Add a column; see `mlffstore.Store.add_column`."""
    if not hasattr(snapshot, "segments"):
        raise DataError(
            f"snapshot: expected a snapshot, whose samples all get a value, got a {type(snapshot).__name__}; give the "
            "column of the whole snapshot, masked where there is no value"
        )
    problems: list[str] = []
    words: dict[str, tuple[str, ...]] = {}
    if holds_strings(values):
        array, mask, words[name] = encode_strings(f"column {name!r}", values, problems)
    else:
        array, mask = unmask(f"column {name!r}", values, problems)
    if problems:
        raise DataError(problems[0])
    n_samples, n_atoms = len(snapshot), snapshot.n_atoms
    rows: dict[Axis, int] = {"sample": n_samples, "atom": n_atoms}
    if axis not in (None, *rows):
        raise DataError(f"axis: expected 'sample' or 'atom', got {axis!r}")
    allowed: list[Axis] = [name for name in rows if axis in (None, name)]
    fitting = [name for name in allowed if array.ndim and len(array) == rows[name]]
    if not fitting:
        expected = " or ".join(f"one row per {name} ({rows[name]})" for name in allowed)
        raise DataError(f"column {name!r}: expected {expected}, got shape {array.shape}")
    axis = fitting[0]
    column = user_column(name, array, unit, axis, long_name, coded=bool(words))
    segments = list(snapshot.segments)
    starts = offsets([segment.n_samples if axis == "sample" else segment.n_atoms for segment in segments]).tolist()
    guard = CommitGuard(segments=segments, new_columns=(column.name,), user_columns=(column,))
    with log.guard():
        guard(log.refresh())  # before any byte is written
    layers, staged = [], Staged(storage)
    try:
        for segment, a, b in zip(segments, starts[:-1], starts[1:], strict=True):
            columns = user_column_arrays(column, np.ascontiguousarray(array[a:b]), _part(mask, a, b))
            layers.append(write_layer(storage, segment, columns, words))
            staged.add(layers[-1])
    except BaseException:
        staged.discard()
        raise
    body = {"layers": [layer_document(layer) for layer in layers], "provenance": {"column": name, **provenance}}
    return commit_staged(log, "layer", body, staged, guard)


def _part(mask: Array | None, start: int, stop: int) -> Array | None:
    """Return the mask of some rows; None if all of them have a value."""
    return None if mask is None else present(mask[start:stop])
