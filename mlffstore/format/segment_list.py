"""The segments of a state in order, parsed from the lines of a checkpoint only when they are first looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

from mlffstore.errors import FormatError
from mlffstore.format.records import Segment


class SegmentList(Sequence[Segment]):
    """Segments in order, parsed when they are first looked at: a store of 20,000 segments opens at once.

    Parameters
    ----------
    lines : iterable of bytes, optional
        The line of a checkpoint of each segment, which `unpack` parses.
    n_samples, n_atoms : iterable of int, optional
        Sizes of the segments, known without parsing.
    paths : iterable of str, optional
    unpack : callable, optional
    """

    __slots__ = ("_index", "_items", "_lines", "_unpack", "n_atoms", "n_samples", "paths")

    def __init__(
        self,
        lines: Iterable[bytes | None] = (),
        n_samples: Iterable[int] = (),
        n_atoms: Iterable[int] = (),
        paths: Iterable[str] = (),
        unpack: Callable[[bytes], Segment] | None = None,
    ) -> None:
        self._lines, self._unpack = list(lines), unpack
        self._items: list[Segment | None] = [None] * len(self._lines)
        self._index: dict[str, int] | None = None
        self.n_samples, self.n_atoms, self.paths = list(n_samples), list(n_atoms), list(paths)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, item: int) -> Segment: ...
    @overload
    def __getitem__(self, item: slice) -> list[Segment]: ...
    def __getitem__(self, item: int | slice) -> Segment | list[Segment]:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        segment = self._items[item]
        if segment is None:
            line = self._lines[item]
            assert self._unpack is not None
            assert line is not None
            segment = self._unpack(line)
            if (segment.path, segment.n_samples, segment.n_atoms) != (
                self.paths[item],
                self.n_samples[item],
                self.n_atoms[item],
            ):
                raise FormatError(f"{segment.path}: the checkpoint contradicts itself; delete the folder _checkpoint")
            self._items[item] = segment
        return segment

    def lines(self, pack: Callable[[Segment], bytes]) -> list[bytes]:
        """Return the line of every segment; `pack` makes those that are not known yet."""
        for i, line in enumerate(self._lines):
            if line is None:
                self._lines[i] = pack(self[i])
        return [line for line in self._lines if line is not None]

    def copy(self) -> SegmentList:
        """Return a copy of the list; the segments are shared."""
        other = SegmentList()
        other._lines, other._items, other._unpack = list(self._lines), list(self._items), self._unpack
        other.n_samples, other.n_atoms, other.paths = list(self.n_samples), list(self.n_atoms), list(self.paths)
        return other

    def find(self, path: str) -> int | None:
        """Return the place of a segment, or None."""
        if self._index is None:
            self._index = {name: i for i, name in enumerate(self.paths)}
        return self._index.get(path)

    def append(self, segment: Segment) -> None:
        """Add a segment at the end."""
        if self._index is not None:
            self._index[segment.path] = len(self._items)
        self._items.append(segment)
        self._lines.append(None)
        self.paths.append(segment.path)
        self.n_samples.append(segment.n_samples)
        self.n_atoms.append(segment.n_atoms)

    def splice(self, start: int, stop: int, segments: Sequence[Segment]) -> None:
        """Put segments, or none, in the place of others."""
        paths = [segment.path for segment in segments]
        if len(paths) != stop - start:
            self._index = None
        elif self._index is not None:
            for path in self.paths[start:stop]:
                self._index.pop(path, None)
            self._index.update(zip(paths, range(start, stop), strict=True))
        self._items[start:stop] = segments
        self._lines[start:stop] = [None] * len(segments)
        self.paths[start:stop] = paths
        self.n_samples[start:stop] = [segment.n_samples for segment in segments]
        self.n_atoms[start:stop] = [segment.n_atoms for segment in segments]


class Tables:
    """What many segments share, each value kept once and named by its number; numbers never change."""

    def __init__(self, rows: Iterable[Any] = ()) -> None:
        self.rows = list(rows)
        self._numbers = {json.dumps(row): i for i, row in enumerate(self.rows)}

    def number(self, value: Any) -> int:
        """Return the number of a JSON value, adding it if it is new."""
        text = json.dumps(value)
        if text not in self._numbers:
            self.rows.append(value)  # first, so that an interrupt leaves no number without its row
            self._numbers[text] = len(self.rows) - 1
        return self._numbers[text]
