"""`Trace`: samples of a version, and where they are in the versions after it.

Segments are replaced by compaction, label passes and removals. What the log says of a replacement is enough to follow each
sample, without reading any data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import offsets
from mlffstore.format.fields import Fields
from mlffstore.format.replacement import parse_replacements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlffstore.data.ragged import Ints
    from mlffstore.format.entry import Entry
    from mlffstore.format.log import Log
    from mlffstore.format.replacement import Replacement
    from mlffstore.format.segment_list import SegmentList
    from mlffstore.format.state import State


class Trace:
    """Some samples and where they are, as of a version that moves on.

    Parameters
    ----------
    state : State
        State of the version in which the samples are known. It is changed by `follow`.
    rows : mapping of str to ndarray, shape (T,), int64
        Path of a segment, accepted or rejected, -> ascending samples of it. The samples of all segments are numbered in
        this order.

    Attributes
    ----------
    state : State
        State of the version that was followed last.
    n : int
        Number of samples that are followed.
    """

    def __init__(self, state: State, rows: Mapping[str, Ints]) -> None:
        self.state = state
        starts = offsets([len(some) for some in rows.values()])
        self.n = int(starts[-1])
        #: Path -> samples of the segment, ascending, and their numbers.
        self._places = {
            path: (some, np.arange(start, start + len(some)))
            for (path, some), start in zip(rows.items(), starts[:-1].tolist(), strict=True)
        }
        #: Column -> version -> numbers of the samples whose value of before went away then.
        self._lost: dict[str, dict[int, Ints]] = {}
        self._completed: dict[str, int] = {}

    def follow(self, log: Log) -> None:
        """Follow the samples to the last version of a log."""
        for entry, entry_digest, where in log.entries(self.state.version + 1):
            sizes = self._sizes(entry)
            self.state.apply(entry, entry_digest, where)  # raises if the entry is not what it should be
            if entry.operation in ("replace", "remove"):
                self._apply(entry, where, sizes)

    def rows(self, segments: SegmentList) -> dict[str, tuple[Ints, Ints]]:
        """Return the samples that are in some segments of the state: path -> ascending samples, and their numbers.

        Paths are in the order of the segments.
        """
        known = [(i, path) for path in self._places if (i := segments.find(path)) is not None]
        return {path: self._places[path] for _, path in sorted(known)}

    def lost(self, key: str) -> Ints:
        """Return the numbers of the samples whose value of a column went away since and did not come back, ascending.

        A value that another commit gave them since is not the one that went away.
        """
        parts = list(self._lost.get(key, {}).values())
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)

    def completed(self, teacher: str) -> int | None:
        """Return the last version in which a label pass of a teacher completed segments with such samples, or None."""
        return self._completed.get(teacher)

    def _sizes(self, entry: Entry) -> dict[str, tuple[int, bool]]:
        """Return the samples of each segment that an entry may replace, and whether they are rejected."""
        if entry.operation not in ("replace", "remove"):
            return {}
        out = {}
        items = entry.body.get("replacements")
        for item in items if isinstance(items, list) else ():  # the entry was not checked yet
            inputs = item.get("inputs") if isinstance(item, dict) else None
            for path in inputs if isinstance(inputs, list) else ():
                for rejected, stored in ((False, self.state.segments), (True, self.state.quarantine)):
                    if isinstance(path, str) and (i := stored.find(path)) is not None:
                        out[path] = (stored.n_samples[i], rejected)
        return out

    def _apply(self, entry: Entry, where: str, sizes: Mapping[str, tuple[int, bool]]) -> None:
        body = Fields(dict(entry.body), where)
        columns: list[str] | None = entry.body.get("columns")
        with_runs = entry.operation == "remove" or columns is not None
        moving = entry.operation == "remove" and columns is None
        n_moved = {False: 0, True: 0}
        moved: dict[bool, list[tuple[Ints, Ints]]] = {False: [], True: []}
        for replacement in parse_replacements(body, with_runs=with_runs):
            rejected = sizes[replacement.inputs[0]][1]
            places, numbers = self._take(replacement, sizes)
            touched = replacement.touched() if with_runs else np.zeros(0, np.int64)
            before = np.searchsorted(touched, places)
            is_touched = np.isin(places, touched, assume_unique=True)
            if columns is not None:
                self._note(entry, columns, numbers[is_touched])
            elif not with_runs and len(numbers):
                teachers = entry.body.get("teachers")
                self._completed |= dict.fromkeys(teachers if isinstance(teachers, dict) else (), entry.version)
            if moving:
                moved[rejected].append((n_moved[rejected] + before[is_touched], numbers[is_touched]))
                n_moved[rejected] += len(touched)
                places, numbers = (places - before)[~is_touched], numbers[~is_touched]
            self._put(places, numbers, [(segment.path, segment.n_samples) for segment in replacement.outputs])
        for rejected, role in ((False, "quarantine"), (True, "segments")):
            if moved[rejected]:
                places, numbers = (np.concatenate(parts) for parts in zip(*moved[rejected], strict=True))
                documents: Any = entry.body.get(role, ())
                self._put(places, numbers, [(one["path"], one["n_samples"]) for one in documents])

    def _take(self, replacement: Replacement, sizes: Mapping[str, tuple[int, bool]]) -> tuple[Ints, Ints]:
        """Return the followed samples of the inputs, as places among their samples, and their numbers."""
        start, places, numbers = 0, [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for path in replacement.inputs:
            rows, some = self._places.pop(path, (places[0], numbers[0]))
            places.append(rows + start)
            numbers.append(some)
            start += sizes[path][0]
        return np.concatenate(places), np.concatenate(numbers)

    def _put(self, places: Ints, numbers: Ints, outputs: list[tuple[str, int]]) -> None:
        """Note that followed samples are now in some segments, at ascending places among their samples."""
        start = 0
        for path, n_samples in outputs:
            low, high = np.searchsorted(places, (start, start + n_samples))
            if high > low:
                self._places[path] = (places[low:high] - start, numbers[low:high])
            start += n_samples

    def _note(self, entry: Entry, columns: Iterable[str], numbers: Ints) -> None:
        """Note that samples lost the values of some columns, got them back, or got other ones."""
        reverted = entry.body.get("reverts")
        for key in columns:
            gone = self._lost.setdefault(key, {})
            if entry.operation == "replace" and reverted is not None:
                gone[reverted] = np.setdiff1d(gone.get(reverted, numbers[:0]), numbers)
            else:
                # Who gets a value had none: if none was lost, the followed commit had given none.
                gone[entry.version] = np.union1d(
                    gone.get(entry.version, numbers[:0]), np.setdiff1d(numbers, self.lost(key))
                )
