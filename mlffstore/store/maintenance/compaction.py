"""`compact`: merge runs of small segments and their layers into large ones; samples and their order stay the same."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from mlffstore.data.concatenation import concatenate
from mlffstore.data.schema import described_properties
from mlffstore.errors import ConflictError, DataError
from mlffstore.format.reader import ChunkCache, ColumnReader, read_segment
from mlffstore.format.records import other_labels, segment_document
from mlffstore.format.segment import write_segment
from mlffstore.store.guard import CommitGuard
from mlffstore.store.staging import Staged, commit_staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlffstore.data.schema import Column
    from mlffstore.format.log import Log
    from mlffstore.format.records import Segment
    from mlffstore.storage import Storage

#: Uncompressed size that merged segments come near to: large enough that a hundred gigabytes are a thousand segments, small
#: enough that a few of them fit into memory at once.
TARGET_NBYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Compaction:
    """The outcome of `compact`.

    Attributes
    ----------
    n_before, n_after : int
        Segments of the store, quarantine included, before this call and after its merges.
    nbytes : int
        Bytes that were written.
    versions : tuple of int
        The commits, one for each run of segments that was merged.
    n_conflicts : int
        Runs that were left alone because another process changed them meanwhile. Compact again to merge them.
    """

    n_before: int
    n_after: int
    nbytes: int
    versions: tuple[int, ...]
    n_conflicts: int


def compact(
    storage: Storage,
    log: Log,
    *,
    target_nbytes: int = TARGET_NBYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Compaction:
    """Merge runs of small segments; see `mlffstore.Store.compact`."""
    if not isinstance(target_nbytes, Real) or not target_nbytes >= 1:
        raise DataError(f"target_nbytes: expected a number of bytes, at least 1, got {target_nbytes!r}")
    with log.guard():
        state = log.refresh()
        stored = [state.segments.copy(), state.quarantine.copy()]
    runs = [run for segments in stored for run in plan(segments, target_nbytes)]
    n_before = sum(map(len, stored))
    n_after, nbytes, versions, n_conflicts = n_before, 0, [], 0
    reader = ColumnReader(storage, ChunkCache(0))
    for done, run in enumerate(runs):
        if progress:
            progress(done, len(runs))
        merged = write_segment(storage, concatenate([read_segment(reader, segment) for segment in run]))
        inputs = [segment.path for segment in run]
        body: dict[str, Any] = {"replacements": [{"inputs": inputs, "outputs": [segment_document(merged)]}]}
        guard = CommitGuard(segments=run, replaces=True)
        try:
            version = commit_staged(log, "replace", body, Staged(storage, merged), guard)
        except ConflictError:
            n_conflicts += 1
            continue
        versions.append(version)
        nbytes += merged.nbytes
        n_after -= len(run) - 1
    if progress:
        progress(len(runs), len(runs))
    return Compaction(n_before, n_after, nbytes, tuple(versions), n_conflicts)


def plan(segments: Sequence[Segment], target_nbytes: int) -> Iterator[list[Segment]]:
    """Yield the runs of neighbours to merge.

    A segment of half the target or more stays as it is, since merging it with the small segments after it would write it
    again each time. Neighbours whose columns contradict each other, as those of rejected samples may, are not merged.
    """
    run: list[Segment] = []
    size = 0
    known: dict[str, Column] = {}
    for segment in segments:
        nbytes = sum(stored.rows * stored.column.row_nbytes for stored in segment.columns.values())
        small = nbytes < target_nbytes / 2
        if run and (not small or size + nbytes > target_nbytes or _contradict(known, segment)):
            if len(run) > 1:
                yield run
            run, size, known = [], 0, {}
        if small:
            run.append(segment)
            size += nbytes
            known |= _variable(segment)
    if len(run) > 1:
        yield run


def _variable(segment: Segment) -> dict[str, Column]:
    """Return the columns of a segment whose kind is not the same in every store: user columns and further labels."""
    return {**segment.user, **other_labels(segment.columns)}


def _contradict(known: Mapping[str, Column], segment: Segment) -> bool:
    """Return whether one name stands for two different columns, or for two different properties of two teachers."""
    columns = _variable(segment)
    if any(name in known and not known[name].same_kind(column) for name, column in columns.items()):
        return True
    try:
        described_properties([*known.values(), *columns.values()])
    except DataError:
        return True
    return False
