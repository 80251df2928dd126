"""`Revision`: segments that are written anew with an edit, and the one commit that puts them in the place of the old ones.

Nothing is changed in place. If other commits change some of the segments meanwhile, the samples are looked up again, and
only what changed is written again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlffstore.data.concatenation import concatenate
from mlffstore.data.schema import mask_key
from mlffstore.errors import ConflictError, CorruptionError, StorageError
from mlffstore.format.log import Attempt
from mlffstore.format.reader import ChunkCache, ColumnReader, read_segment
from mlffstore.format.records import other_labels, segment_document
from mlffstore.format.replacement import Replacement, runs_of
from mlffstore.format.segment import write_segment
from mlffstore.store.guard import CommitGuard, SegmentsChangedError
from mlffstore.store.staging import Staged

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.format.log import Log
    from mlffstore.format.records import Segment
    from mlffstore.format.state import State
    from mlffstore.storage import Storage
    from mlffstore.store.edits import Edit
    from mlffstore.store.tracking import Trace

#: How often segments are looked up again that other commits changed meanwhile.
_TRIES = 10
#: Bytes of moved samples that are gathered before they are written.
_MOVED_NBYTES = 64 << 20


class Work(NamedTuple):
    """A segment and the samples of it that a correction is about.

    Attributes
    ----------
    segment : Segment
    rows : ndarray, shape (T,), int64
        Samples of the segment, ascending.
    numbers : ndarray, shape (T,), int64
        Their numbers among all samples of the correction.
    """

    segment: Segment
    rows: Ints
    numbers: Ints

    def same(self, other: Work) -> bool:
        """Return whether the segment, its layers and the samples are those of another work."""
        return (
            self.segment.files == other.segment.files
            and self.rows.tobytes() == other.rows.tobytes()
            and self.numbers.tobytes() == other.numbers.tobytes()
        )


def works(trace: Trace, edit: Edit) -> Iterator[Work]:
    """Yield the segments that hold samples of a trace, in their order."""
    segments = edit.segments(trace.state)
    for path, (rows, numbers) in trace.rows(segments).items():
        i = segments.find(path)
        assert i is not None
        yield Work(segments[i], rows, numbers)


def touched(reader: ColumnReader, edit: Edit, work: Work) -> Ints:
    """Return the samples that an edit changes, reading no more than it needs to know; shape (T,), int64."""
    if edit.action in ("remove", "restore"):
        return work.rows
    columns = edit.columns(work.segment)
    return (
        edit.touched(read_some(reader, work.segment, columns), columns, work.rows, work.numbers)
        if columns
        else work.rows[:0]
    )


def read_some(reader: ColumnReader, segment: Segment, columns: Collection[str]) -> SampleBatch:
    """Return the samples of a segment with a few of its columns."""
    wanted = {"n_atoms", *columns, *map(mask_key, columns)}
    part = {key: stored for key, stored in segment.columns.items() if key in wanted}
    return read_segment(reader, dataclasses.replace(segment, columns=part))


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some works that were done."""

    works: list[Work]
    replaced: list[Segment]
    replacements: list[Replacement]
    columns: dict[str, None]
    moved: Segment | None

    def paths(self) -> list[str]:
        """Return the paths of what was written."""
        outputs = [segment.path for replacement in self.replacements for segment in replacement.outputs]
        return outputs + ([] if self.moved is None else [self.moved.path])


class Revision:
    """A correction that becomes one commit.

    Parameters
    ----------
    storage : Storage
    log : Log
    trace : Trace
        The samples that it is about.
    edit : Edit
        What becomes of them.
    key : str or None
        Idempotency key.
    body : mapping
        Members of the log entry beside the segments.
    settle : callable
        It returns the version that has the key, or raises if that stands for something else.
    teachers : mapping of str to mapping, optional
        JSON about teachers whose labels come back.
    """

    def __init__(
        self,
        storage: Storage,
        log: Log,
        trace: Trace,
        edit: Edit,
        *,
        key: str | None,
        body: Mapping[str, Any],
        settle: Callable[[int], int],
        teachers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._storage, self._log, self._trace, self._edit = storage, log, trace, edit
        self._key, self._fixed, self._settle = key, dict(body), settle
        self._teachers = dict(teachers or {})
        self._reader, self._staged, self._attempt = ColumnReader(storage, ChunkCache(0)), Staged(storage), Attempt()
        self._pieces: list[_Piece] = []

    def commit(self) -> int | None:
        """Write the segments and commit; return the version, or None if there was nothing to do.

        Raises
        ------
        ConflictError
            If other commits changed the segments again and again, or the store holds something else by now.
        StorageError
            If the storage fails.
        """
        try:
            for _ in range(_TRIES):
                self._trace.follow(self._log)
                if not self._write():
                    continue
                if self._key is None and not any(piece.replacements for piece in self._pieces):
                    return None
                try:
                    version, ours = self._claim()
                except SegmentsChangedError:
                    continue
                if ours:
                    return version
                self._staged.discard()
                return self._settle(version)
            raise ConflictError(
                f"{self._storage.url}: other processes changed the same segments {_TRIES} times meanwhile; nothing was "
                "committed, try again when they are done"
            )
        except BaseException as error:
            if self._attempt.unclear is None:
                self._staged.discard()
            elif isinstance(error, StorageError):
                error.add_note(
                    "it is not clear whether the commit took effect; look at the history before you repeat it"
                )
            raise

    def _claim(self) -> tuple[int, bool]:
        """Commit; return the version and whether it is this commit that has it."""
        operation = "replace" if self._edit.action == "refill" else "remove"
        arguments = (operation, self._key, self._body(), self._check, self._attempt)
        try:
            return self._log.commit(*arguments)
        except StorageError:
            if self._attempt.unclear is None:
                raise
            return self._log.commit(*arguments)  # it looks whether the first one took effect

    def _check(self, state: State) -> None:
        """Raise if the commit may not follow a state."""
        replaced = [segment for piece in self._pieces for segment in piece.replaced]
        gained: list[Segment] = []
        for piece in self._pieces:
            if self._edit.action == "restore" and piece.moved is not None:
                gained.append(piece.moved)
            elif self._edit.action == "refill":
                gained += [segment for replacement in piece.replacements for segment in replacement.outputs]
        user = [column for segment in gained for column in segment.user.values()]
        labels = [column for segment in gained for column in other_labels(segment.columns).values()]
        CommitGuard(
            segments=replaced,
            replaces=True,
            neighbours=False,
            teachers=self._teachers,
            user_columns=user,
            labels=labels,
        )(state)
        self._staged.check()

    def _body(self) -> dict[str, Any]:
        """Return the body of the log entry."""
        body: dict[str, Any] = {
            "replacements": [one.to_json() for piece in self._pieces for one in piece.replacements],
            **self._fixed,
        }
        columns = dict.fromkeys(key for piece in self._pieces for key in piece.columns)
        if self._edit.action in ("clear", "refill"):
            body["columns"] = list(columns)
        moved = [segment_document(piece.moved) for piece in self._pieces if piece.moved is not None]
        if moved:
            body["quarantine" if self._edit.action == "remove" else "segments"] = moved
        return body | ({"teachers": self._teachers} if self._teachers else {})

    # -- writing -------------------------------------------------------------------------------------------------

    def _write(self) -> bool:
        """Write what was not written yet; return False if segments went away while they were read."""
        todo = list(works(self._trace, self._edit))
        old, self._pieces, done = self._pieces, [], 0
        try:
            while done < len(todo):
                piece = next((piece for piece in old if _begins(todo[done:], piece.works)), None)
                if piece is None:
                    piece = self._write_piece(todo[done:])
                else:
                    old.remove(piece)
                self._pieces.append(piece)
                done += len(piece.works)
        except CorruptionError:
            # Merged meanwhile, and their files collected, or really damaged?
            self._trace.follow(self._log)
            now = list(works(self._trace, self._edit))
            if len(now) == len(todo) and all(a.same(b) for a, b in zip(now, todo, strict=True)):
                raise
            return False
        finally:
            for piece in old:
                for path in piece.paths():
                    self._staged.discard(path)
        return True

    def _write_piece(self, todo: list[Work]) -> _Piece:
        """Write segments until enough moved samples are gathered."""
        piece, moved, written = _Piece([], [], [], {}, None), [], []
        try:
            for work in todo:
                batch, columns = read_segment(self._reader, work.segment), self._edit.columns(work.segment)
                rows = self._edit.touched(batch, columns, work.rows, work.numbers)
                piece.works.append(work)
                if not len(rows):
                    continue
                numbers = work.numbers[np.searchsorted(work.rows, rows)]
                rest, gone = self._edit.apply(batch, columns, rows, numbers)
                outputs = []
                if rest is not None:
                    outputs = [self._write_one(rest)]
                    written += outputs
                piece.replaced.append(work.segment)
                piece.replacements.append(
                    Replacement([work.segment.path], outputs, runs_of(rows, work.segment.n_samples))
                )
                piece.columns.update(dict.fromkeys(columns))
                if gone is not None:
                    moved.append(gone)
                    if sum(one.nbytes for one in moved) >= _MOVED_NBYTES:
                        break
            return dataclasses.replace(piece, moved=self._write_one(concatenate(moved)) if moved else None)
        except BaseException:
            for segment in written:
                self._staged.discard(segment.path)
            raise

    def _write_one(self, batch: SampleBatch) -> Segment:
        segment = write_segment(self._storage, batch)
        self._staged.add(segment)
        return segment


def _begins(todo: list[Work], done: list[Work]) -> bool:
    """Return whether a list of works begins with works that were done."""
    return 0 < len(done) <= len(todo) and all(a.same(b) for a, b in zip(todo, done, strict=False))
