"""Labels that were made elsewhere, such as those of a file, become labels of samples that are stored already: one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data import rules
from mlffstore.data.labels import missing_label
from mlffstore.data.ragged import as_indices, offsets, row_indices
from mlffstore.data.schema import STANDARD, label_key
from mlffstore.errors import ConflictError, DataError
from mlffstore.format.records import layer_document
from mlffstore.format.segment import write_layer
from mlffstore.store.chosen import choose
from mlffstore.store.edits import Refill
from mlffstore.store.guard import CommitGuard
from mlffstore.store.revision import Revision
from mlffstore.store.staging import Staged, commit_staged
from mlffstore.store.tracking import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Column
    from mlffstore.format.log import Log
    from mlffstore.format.records import Segment
    from mlffstore.storage import Storage
    from mlffstore.store.snapshot import Snapshot


def attach_labels(
    storage: Storage,
    log: Log,
    snapshot: Snapshot,
    samples: npt.ArrayLike,
    batch: SampleBatch,
    *,
    teachers: Mapping[str, Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> int | None:
    """Attach labels; see `mlffstore.Store.attach_labels`.

    Segments that lack all columns of the labels get a layer. If a segment has some of them already, all segments with such
    samples are written anew, and nothing that is there is overwritten.
    """
    try:
        named = as_indices(samples, len(snapshot))
    except (IndexError, ValueError) as error:
        raise DataError(f"samples: expected indices of samples of the snapshot: {error}") from error
    order = np.argsort(named, kind="stable")
    rows = named[order]
    if len(rows) != len(batch) or (np.diff(rows) == 0).any():
        raise DataError(
            f"samples: expected {len(batch)} different samples, one for each of the batch, got {len(rows)}, of which "
            f"{len(np.unique(rows))} are different; name each sample once"
        )
    donor = batch if (order == np.arange(len(order))).all() else batch.take(order)
    rules.check(donor, ())
    names = tuple(label_key(name, teacher) for teacher, labels in donor.labels.items() for name in labels)
    if not names or not len(rows):
        return None
    chosen = choose(log, rows, snapshot)
    n_atoms = snapshot.rows().read("n_atoms", STANDARD["n_atoms"], rows)
    if (other := np.flatnonzero(n_atoms != donor.n_atoms)).size:
        i = other[0]
        raise DataError(
            f"batch: expected {n_atoms[i]} atoms for sample {rows[i]}, as stored, got {donor.n_atoms[i]} ({other.size} of "
            f"{len(rows)} differ); give the samples of the batch in the order of the indices"
        )
    starts = offsets([segment.n_samples for segment in snapshot.segments])
    cuts = np.searchsorted(rows, starts)
    touched = [
        (segment, rows[cuts[i] : cuts[i + 1]] - starts[i], slice(int(cuts[i]), int(cuts[i + 1])))
        for i, segment in enumerate(snapshot.segments)
        if cuts[i + 1] > cuts[i]
    ]
    if not any(name in segment.columns for segment, _, _ in touched for name in names):
        try:
            return _add_layers(storage, log, snapshot, touched, donor, teachers, provenance)
        except ConflictError:  # merged, labelled or corrected meanwhile: follow the samples
            pass
    trace = Trace(chosen.state, chosen.rows())
    return Revision(
        storage, log, trace, Refill(names, lambda numbers: donor.take(numbers)), key=None,
        body={"provenance": dict(provenance)} if provenance else {}, settle=lambda version: version, teachers=teachers,
    ).commit()  # fmt: skip


def _add_layers(
    storage: Storage,
    log: Log,
    snapshot: Snapshot,
    touched: list[tuple[Segment, Ints, slice]],
    donor: SampleBatch,
    teachers: Mapping[str, Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> int:
    """Write a layer over each segment and commit them together."""
    columns = donor.label_columns()
    info = {teacher: dict(teachers.get(teacher, {})) for teacher in donor.teachers}
    guard = CommitGuard(
        segments=[segment for segment, _, _ in touched], new_columns=[column.name for column in columns], teachers=info,
        labels=columns,
    )  # fmt: skip
    with log.guard():
        guard(log.refresh())  # before any byte is written
    layers, staged = [], Staged(storage)
    try:
        for segment, rows, part in touched:
            counts = np.empty(segment.n_samples, np.int32)
            snapshot.column_reader.read(segment.columns["n_atoms"], 0, segment.n_samples, counts)
            labels = _spread(donor, columns, part, rows, counts)
            layers.append(write_layer(storage, segment, labels, attached=True))
            staged.add(layers[-1])
    except BaseException:
        staged.discard()
        raise
    body: dict[str, Any] = {"layers": [layer_document(layer) for layer in layers], "teachers": info}
    return commit_staged(log, "layer", body | {"provenance": dict(provenance)}, staged, guard)


def _spread(
    donor: SampleBatch, columns: list[Column], part: slice, rows: Ints, counts: Array
) -> list[tuple[Column, Array]]:
    """Return the labels of some samples as columns of their whole segment, NaN elsewhere."""
    starts = offsets(counts)
    atoms = row_indices(starts[rows], counts[rows])
    low, high = int(donor.offsets[part.start]), int(donor.offsets[part.stop])
    out = []
    for column in columns:
        name, _, teacher = column.name.partition(".")
        values, whole = donor.labels[teacher][name], missing_label(column, len(counts), int(starts[-1]))
        if column.axis == "sample":
            whole[rows] = values[part]
        else:
            whole[atoms] = values[low:high]
        out.append((column, whole))
    return out
