"""`Chosen`: samples that a caller names, as samples of a version of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import numpy as np

from mlffstore.data.ragged import Ints, as_indices, offsets
from mlffstore.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from mlffstore.format.log import Log
    from mlffstore.format.state import State
    from mlffstore.store.samples import Samples


@runtime_checkable
class SampleSelection(Protocol):
    """Some samples of a snapshot."""

    @property
    def snapshot(self) -> Samples:
        """The snapshot."""
        ...

    @property
    def indices(self) -> Ints:
        """Indices of the samples in the snapshot, shape (k,), int64."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """Samples of a version.

    Attributes
    ----------
    state : State
        State of the version, which belongs to this object.
    indices : ndarray, shape (k,), int64, or None
        The samples, ascending, each once; None for all samples of the version.
    """

    state: State
    indices: Ints | None

    def rows(self) -> dict[str, Ints]:
        """Return the samples of each segment that holds some of them: path -> ascending samples of the segment."""
        segments = self.state.segments
        if self.indices is None:
            return {path: np.arange(n) for path, n in zip(segments.paths, segments.n_samples, strict=True)}
        starts = offsets(segments.n_samples)
        cuts = np.searchsorted(self.indices, starts)
        return {
            segments.paths[i]: self.indices[cuts[i] : cuts[i + 1]] - starts[i]
            for i in np.flatnonzero(np.diff(cuts)).tolist()
        }


def choose(
    log: Log, samples: npt.ArrayLike | SampleSelection | None, snapshot: Samples | None, version: int | None = None
) -> Chosen:
    """Return the samples that a caller names.

    Parameters
    ----------
    log : Log
    samples : array_like of int, boolean mask, SampleSelection, or None
        None for all samples.
    snapshot : Samples, optional
        The snapshot that indices and masks refer to.
    version : int, optional
        The version that they refer to if no snapshot is given; the last one by default.

    Raises
    ------
    DataError
        If the snapshot is of another store, or the selection of another snapshot.
    IndexError
        If an index is outside.
    """
    chosen_from, wanted = snapshot, samples
    if isinstance(samples, SampleSelection):
        chosen_from, wanted = samples.snapshot, np.asarray(samples.indices)
        if snapshot is not None and snapshot.digest != chosen_from.digest:
            raise DataError(
                f"snapshot: expected that of the selection (version {chosen_from.version}), got version "
                f"{snapshot.version}; leave it out"
            )
    if chosen_from is not None:
        version = version_of(log, chosen_from)
    with log.guard():
        state = log.refresh()
        last = state.version
        state = state.copy() if version in (None, last) else state
    if version not in (None, last):
        state = log.at(version)
    if wanted is None:
        return Chosen(state, None)
    return Chosen(state, np.unique(as_indices(cast("npt.ArrayLike", wanted), sum(state.segments.n_samples))))


def version_of(log: Log, snapshot: Samples) -> int:
    """Return the version of a snapshot after making sure that it is one of this store, and not its quarantine."""
    read = log.read(snapshot.version)
    if read is None or read.digest != snapshot.digest:
        what = "its quarantine" if read is not None and snapshot.digest == f"{read.digest} quarantine" else snapshot.url
        raise DataError(
            f"snapshot: expected accepted samples of {log.storage.url}, got {what}; take a snapshot of this store with "
            "store.snapshot()"
        )
    return snapshot.version
