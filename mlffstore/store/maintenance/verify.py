"""`verify`: check that everything that the log promises is there and is what was committed.

Fast: the log is one unbroken chain, the checkpoint agrees with it, and every file is present with its size. Full: also
every byte below the store that a reader could ever use, by SHA-256 and CRC-32C, and that the values mean what the log
says. Damage never stops the check: everything that is wrong is listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.runtime.dask_client import require_scheduler
from mlffstore.runtime.threads import cpu_pool
from mlffstore.storage import open_storage
from mlffstore.store.maintenance.segment_check import SegmentCheck, check_segments
from mlffstore.store.maintenance.survey import Survey
from mlffstore.store.maintenance.verification import Verification

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from mlffstore.format.records import Segment
    from mlffstore.storage import Storage

#: Segments that one Dask task checks, if only sizes are compared, and tasks between two reports of progress.
_PER_TASK, _PER_FAST_TASK, _PER_WAVE = 8, 128, 32


def verify(
    url: str | os.PathLike[str],
    *,
    full: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Check a store that may be damaged, without changing it.

    Parameters
    ----------
    url : str or path
        The folder of the store, or its URL.
    full : bool, optional
        Whether every byte is read, and not only the log and the sizes of files.
    storage_options : mapping, optional
        As for `mlffstore.open`.
    progress : callable, optional
        It is called with the number of segments done so far and the number of all segments.

    Returns
    -------
    Verification

    Raises
    ------
    StoreNotFoundError
        If there is no store at all.

    Notes
    -----
    All retained versions are checked. This includes segments that a compaction replaced, as long as an older version that
    has not expired needs them. Segments are checked in parallel, on the active Dask client if there is one, else in
    threads. If the last log entries are removed without a trace, this cannot be told from commits that never happened,
    unless a checkpoint is newer than the log.
    """
    return verify_storage(open_storage(url, storage_options), full=full, progress=progress)


def verify_storage(storage: Storage, *, full: bool, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Check the store of a storage; see `verify`."""
    survey = Survey(storage, full)
    survey.run()
    work = [(segment, rejected) for segment, rejected in survey.lifetimes.needed(survey.state)] if survey.state else []
    n_files, nbytes, problems = survey.n_files, survey.nbytes, survey.problems
    done = 0
    if progress:
        progress(0, len(work))
    for wave in _waves(storage, work, full):
        for check in wave:
            n_files, nbytes, done = n_files + check.n_files, nbytes + check.nbytes, done + check.n_segments
            problems += check.problems
        if progress:
            progress(done, len(work))
    version = survey.state.version if survey.state else -1
    return Verification(
        storage.url, version, full, survey.n_entries, len(work), n_files, nbytes, tuple(dict.fromkeys(problems))
    )


def _waves(storage: Storage, work: list[tuple[Segment, bool]], full: bool) -> Iterator[tuple[SegmentCheck, ...]]:
    """Yield the results of several tasks at a time, computed in parallel."""
    from dask.base import compute
    from dask.delayed import delayed

    task = delayed(check_segments, pure=False)
    size = _PER_TASK if full else _PER_FAST_TASK
    groups = [work[i : i + size] for i in range(0, len(work), size)]
    for start in range(0, len(groups), _PER_WAVE):
        # Without traverse=False Dask would walk through every column of every segment.
        wave = [delayed(group, traverse=False) for group in groups[start : start + _PER_WAVE]]
        yield compute(*(task(storage, group, full) for group in wave), **_scheduler())


def _scheduler() -> dict[str, Any]:
    """Return the scheduler: the active client, or the user's setting, or threads."""
    # A pool of ours, since Dask's own is that of the parent in a process that was forked.
    return {} if require_scheduler() is not None else {"scheduler": "threads", "pool": cpu_pool()}
