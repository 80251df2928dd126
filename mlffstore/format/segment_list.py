"""The segments of a state in order, parsed from the lines of a checkpoint only when they are first looked at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import Any, NamedTuple, overload

from mlffstore.format.records import Segment

#: Places that are searched for a segment, before all places are noted again.
_MOST_SEARCHED = 128


class Tables:
    """What many segments share, each value kept once under a name that follows from it."""

    def __init__(self, rows: Iterable[Any] = ()) -> None:
        self.rows: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        for row in rows:
            self.name(row)

    def name(self, value: Any) -> str:
        """Return the name of a JSON value, 16 hexadecimal digits, adding it if it is new."""
        text = json.dumps(value, separators=(",", ":"))
        name = self._names.get(text)
        if name is None:
            name = hashlib.sha256(text.encode()).hexdigest()[:16]
            self.rows[name] = value  # first, so that an interrupt leaves no name without its value
            self._names[text] = name
        return name


class Lines(NamedTuple):
    """The lines of new segments of a checkpoint.

    Attributes
    ----------
    text : bytes
        The file that has them.
    starts : sequence of int
        Where each line begins there. A line ends before the next line feed.
    n_samples, n_atoms : sequence of int
    paths : sequence of str
    """

    text: bytes
    starts: Sequence[int]
    n_samples: Sequence[int]
    n_atoms: Sequence[int]
    paths: Sequence[str]


class Run(NamedTuple):
    """Neighbours of a list that an earlier list has too, from the segment `path` on, or that are new if it is None."""

    path: str | None
    length: int


#: It returns the segment of a line, a path, and the numbers of samples and atoms.
Unpack = Callable[[bytes, str, int, int], Segment]
#: The place of a line is the number of its text, shifted, and where it begins there: less than a terabyte.
_TEXT_SHIFT = 40
_TEXT_MASK = (1 << _TEXT_SHIFT) - 1


class SegmentList(Sequence[Segment]):
    """Segments in order, parsed when they are first looked at: a store of 100,000 segments opens at once.

    Attributes
    ----------
    now : int
        The version that is being applied: `append` and `splice` note it, so that `runs` can tell what is new.
    n_samples, n_atoms : list of int
        Sizes of the segments, known without parsing.
    paths : list of str
    """

    __slots__ = (
        "_changed",
        "_grown",
        "_index",
        "_items",
        "_joined",
        "_lines",
        "_shrunk",
        "_texts",
        "_unpack",
        "n_atoms",
        "n_samples",
        "now",
        "paths",
    )

    def __init__(self, unpack: Unpack | None = None) -> None:
        self._unpack = unpack
        self._items: list[Segment | None] = []
        #: The line of each segment: itself, or its place in one of `_texts`; None if it is not known yet.
        self._lines: list[bytes | int | None] = []
        self._texts: list[bytes] = []
        #: Version since which a segment is as it is, and since which it follows the one before it.
        self._changed: list[int] = []
        self._joined: list[int] = []
        #: Place of each segment, up to `_shrunk` places after it or `_grown` before it: replacing changes the length.
        self._index: dict[str, int] | None = None
        self._shrunk = self._grown = 0
        self.now = -1
        self.n_samples: list[int] = []
        self.n_atoms: list[int] = []
        self.paths: list[str] = []

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
            line = self._line(item)
            assert self._unpack is not None
            assert line is not None
            segment = self._items[item] = self._unpack(line, self.paths[item], self.n_samples[item], self.n_atoms[item])
        return segment

    def _line(self, place: int) -> bytes | None:
        line = self._lines[place]
        if isinstance(line, int):
            text, start = self._texts[line >> _TEXT_SHIFT], line & _TEXT_MASK
            line = text[start : text.find(b"\n", start)].removesuffix(b",")
        return line

    # -- checkpoints

    def runs(self, since: int | None) -> list[Run]:
        """Return the list in terms of the list as of an earlier version; everything is new if that is None."""
        if since is None:
            return [Run(None, len(self))] if len(self) else []
        out: list[Run] = []
        start, path = 0, None
        for i, (changed, joined) in enumerate(zip(self._changed, self._joined, strict=True)):
            new = changed > since
            if i and new == (path is None) and (new or joined <= since):
                continue
            if i:
                out.append(Run(path, i - start))
            start, path = i, None if new else self.paths[i]
        if len(self):
            out.append(Run(path, len(self) - start))
        return out

    def new(self, since: int | None) -> list[int]:
        """Return the places of the segments that are new since a version."""
        every = range(len(self))
        return list(every) if since is None else list(compress(every, (changed > since for changed in self._changed)))

    def line(self, place: int, pack: Callable[[Segment], bytes]) -> bytes:
        """Return the line of a segment; `pack` makes it if it is not known yet."""
        line = self._line(place)
        if line is None:
            line = self._lines[place] = pack(self[place])
        return line

    @classmethod
    def after(
        cls, base: SegmentList | None, runs: Sequence[Run], new: Lines, version: int, unpack: Unpack
    ) -> SegmentList:
        """Return the list that `runs` describes.

        Parameters
        ----------
        base : SegmentList or None
            The list as of the version that `runs` counts from.
        runs : sequence of Run
        new : Lines
            The new segments.
        version : int
            Version of the result.
        unpack : callable
            It parses the lines of `base` and of `new`.

        Raises
        ------
        ValueError
            If the runs do not fit `base` and the new segments.
        """
        out = cls(unpack)
        out._texts = [*(base._texts if base is not None else ()), new.text]
        offset = (len(out._texts) - 1) << _TEXT_SHIFT
        starts = [start + offset for start in new.starts]
        taken = place = 0
        for path, length in runs:
            if path is None:
                part = slice(taken, taken + length)
                out._items += [None] * length
                out._lines += starts[part]
                out._changed += [version] * length
                out._joined += [version] * length
                out.n_samples += new.n_samples[part]
                out.n_atoms += new.n_atoms[part]
                out.paths += new.paths[part]
                taken += length
            else:
                if base is None:
                    raise ValueError("segments of an earlier checkpoint, of which there is none")
                place = base.paths.index(path, place)
                part = slice(place, place + length)
                out._items += base._items[part]
                out._lines += base._lines[part]
                out._changed += base._changed[part]
                out._joined += [version, *base._joined[place + 1 : place + length]]
                out.n_samples += base.n_samples[part]
                out.n_atoms += base.n_atoms[part]
                out.paths += base.paths[part]
                place += length
            if length < 1 or taken > len(starts) or (base is not None and place > len(base)):
                raise ValueError("fewer segments than a run needs")
        if taken != len(starts):
            raise ValueError("more lines than the runs need")
        return out

    # -- changes

    def copy(self) -> SegmentList:
        """Return a copy of the list; the segments are shared."""
        other = SegmentList(self._unpack)
        other.now, other._texts = self.now, self._texts
        for name in ("_lines", "_items", "_changed", "_joined", "n_samples", "n_atoms", "paths"):
            setattr(other, name, list(getattr(self, name)))
        return other

    def find(self, path: str) -> int | None:
        """Return the place of a segment, or None."""
        # Not at each change, and soon enough that the searches below are short: neither is quadratic in the replacements.
        if self._index is None or self._shrunk + self._grown > _MOST_SEARCHED:
            self._index, self._shrunk, self._grown = {name: i for i, name in enumerate(self.paths)}, 0, 0
        latest = self._index.get(path)
        if latest is None:
            return None
        if not self._shrunk + self._grown:
            return latest
        try:
            return self.paths.index(path, max(0, latest - self._shrunk), latest + 1 + self._grown)
        except ValueError:
            return None

    def append(self, segment: Segment) -> None:
        """Add a segment at the end."""
        if self._index is not None:
            self._index[segment.path] = len(self._items)
        self._items.append(segment)
        self._lines.append(None)
        self._changed.append(self.now)
        self._joined.append(self.now)
        self.paths.append(segment.path)
        self.n_samples.append(segment.n_samples)
        self.n_atoms.append(segment.n_atoms)

    def splice(self, start: int, stop: int, segments: Sequence[Segment]) -> None:
        """Put segments, or none, in the place of others."""
        paths = [segment.path for segment in segments]
        if self._index is not None and self.paths[start:stop] != paths:
            for path in self.paths[start:stop]:
                self._index.pop(path, None)
            self._index |= {path: start + i for i, path in enumerate(paths)}
            self._shrunk += max(0, stop - start - len(paths))
            self._grown += max(0, len(paths) - (stop - start))
        if stop < len(self):
            self._joined[stop] = self.now
        self._items[start:stop] = segments
        self._lines[start:stop] = [None] * len(segments)
        self._changed[start:stop] = [self.now] * len(segments)
        self._joined[start:stop] = [self.now] * len(segments)
        self.paths[start:stop] = paths
        self.n_samples[start:stop] = [segment.n_samples for segment in segments]
        self.n_atoms[start:stop] = [segment.n_atoms for segment in segments]
