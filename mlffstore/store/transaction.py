"""`Transaction`: samples that are written part by part and appear in one commit, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data import rules
from mlffstore.data.concatenation import merge_user_columns
from mlffstore.data.properties import merge_properties
from mlffstore.errors import ConflictError, DataError
from mlffstore.format.content import Content
from mlffstore.format.log import Attempt
from mlffstore.format.reader import ChunkCache, ColumnReader, read_segment
from mlffstore.format.records import Segment, segment_document
from mlffstore.format.segment import write_segment
from mlffstore.store.arguments import check_key, json_mapping
from mlffstore.store.duplicates import Clash, HashSet, RemovedMeanwhileError, check_policy, refuse_duplicates, resolve
from mlffstore.store.quarantine import with_reasons
from mlffstore.store.staging import Staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.hashing import U64
    from mlffstore.data.schema import Column
    from mlffstore.format.log import Log
    from mlffstore.format.state import State
    from mlffstore.storage import Storage
    from mlffstore.store.duplicates import HashIndex


@dataclass(slots=True)
class _Part:
    """A segment that waits for the commit."""

    segment: Segment
    rejected: bool
    #: content_hash of its samples, kept only where duplicates play a part.
    hashes: U64 | None


def merge_labels(known: Mapping[str, Column], new: Iterable[Column]) -> dict[str, Column]:
    """Return the columns of labels together, each of one kind in all of them."""
    merged = dict(known)
    for column in new:
        merged.setdefault(column.name, column).require_same_kind(column)
    merge_properties([{c.quantity.name: c.quantity} for c in merged.values() if c.quantity is not None])
    return merged


class Transaction:
    """Samples that appear in one commit; made by `Store.transaction`.

    Each `add` checks its samples and writes them durably at once, but no reader sees them before `commit` names all of
    them in one log entry. Memory holds one batch at a time, independent of the size of the commit. Leaving the ``with``
    block without `commit` removes what was written.

    Examples
    --------
    >>> import numpy as np
    >>> import mlffstore as ml
    >>> store = ml.create("memory://transaction")
    >>> batch = ml.SampleBatch(n_atoms=[1], numbers=[2], positions=np.zeros((1, 3)))
    >>> with store.transaction(require=()) as tx:
    ...     tx.add(batch)
    ...     tx.add(batch)
    ...     tx.commit()
    1
    >>> len(store)
    2
    """

    def __init__(
        self,
        storage: Storage,
        log: Log,
        index: Callable[[], HashIndex],
        precision: str,
        *,
        key: str | None,
        require: Sequence[str],
        teachers: Mapping[str, Mapping[str, Any]] | None,
        provenance: Mapping[str, Any] | None,
        on_duplicate: str,
    ) -> None:
        check_policy(on_duplicate)
        self._storage, self._log, self._index, self._precision = storage, log, index, precision
        self.key, self._require, self._policy = check_key(key), require, on_duplicate
        self._info = {
            teacher: json_mapping(f"teachers[{teacher!r}]", about) for teacher, about in (teachers or {}).items()
        }
        self._provenance = json_mapping("provenance", provenance or {})
        self._parts: list[_Part] = []
        self._staged, self._added = Staged(storage), HashSet()
        #: Structures that were left out because the store had them, and the version that was asked first.
        self._skipped, self._skipped_since = HashSet(), 1 << 62
        self._user: dict[str, Column] = {}
        self._labelled_by: dict[str, None] = {}
        self._labels: dict[str, Column] = {}
        self._content, self._attempt = Content(), Attempt()
        self._known: int | None = None
        #: Whether the transaction ended, by a commit, a discard, or a commit that was refused.
        self.closed = False
        #: Samples that the commit will hold, without rejected ones.
        self.n_samples = 0
        #: Samples that were left out because the store or this transaction has them.
        self.n_duplicates = 0

    # -- adding --------------------------------------------------------------------------------------------------

    def add(self, batch: SampleBatch | None, rejected: SampleBatch | None = None, reasons: Sequence[str] = ()) -> None:
        """Check samples and write them; `commit` makes them visible.

        If the key is in the log already, nothing is written; `commit` then compares the contents.

        Parameters
        ----------
        batch : SampleBatch or None
            Samples to append.
        rejected : SampleBatch, optional
            Samples to put into quarantine; their values are not checked.
        reasons : sequence of str, optional
            Reason for the rejection of each rejected sample.

        Raises
        ------
        DataError
            If the samples may not be stored. No sample of this call is kept, and the transaction can go on.
        ConflictError
            If labels of another model are on record under the same teacher name.
        """
        self._check_open()
        for given in (batch, rejected):
            if given is not None:
                rules.check_whole(given)
        if batch is not None and (len(batch) or rejected is None):
            batch = batch.astype(self._precision)
            batch.check_masks()
            rules.check(batch, self._require)
            batch = batch.hashed(anew=True)  # arrays may have been changed in place since
        else:
            batch = None
        if rejected is not None and len(rejected):
            if len(reasons) != len(rejected):
                raise DataError(
                    f"reasons: expected one for each of {len(rejected)} rejected samples, got {len(reasons)}"
                )
            rejected.check_masks()
            rejected = with_reasons(rejected.astype(self._precision).hashed(anew=True), reasons)
        else:
            rejected = None
        user, labelled_by, labels = self._user, self._labelled_by, self._labels
        if batch is not None:
            user = merge_user_columns([user, batch.user])
            labelled_by = labelled_by | dict.fromkeys(batch.teachers)
            labels = merge_labels(labels, batch.label_columns())
        new = batch
        with self._log.guard():
            # What the store has can be told by its last version only.
            state = self._log.recent() if self._policy == "keep" else self._log.refresh()
            if self._known is None and self.key is not None:
                self._known = state.keys.get(self.key)
            if self._known is None:
                self._check_fit(state, labelled_by, user, labels)  # before any byte is written
                if batch is not None and self._policy != "keep":
                    new = self._without_duplicates(state, batch)
        if self._known is None:
            parts = self._write_all([(new, False), (rejected, True)])
            self._parts += parts
            for part in parts:
                if part.hashes is not None:
                    self._added.add(part.hashes)
            if batch is not None and new is not None:
                self.n_samples += len(new)
                self.n_duplicates += len(batch) - len(new)
        if self.key is not None:
            for role, given in (("segments", batch), ("quarantine", rejected)):
                if given is not None:
                    self._content.add(given, role)
        self._user, self._labelled_by, self._labels = user, labelled_by, labels

    def _without_duplicates(self, state: State, batch: SampleBatch) -> SampleBatch:
        """Return the samples that neither the store nor this transaction has."""
        index = self._index()
        index.update(state)
        held = index.holds(batch.content_hash)
        new = resolve(batch, held | self._added.holds(batch.content_hash), self._policy)
        self._note_skipped(batch.content_hash[held], state.version)
        return new

    def _note_skipped(self, hashes: U64, version: int) -> None:
        """Note structures that were left out because the store has them as of a version."""
        if len(hashes):
            self._skipped.add(np.unique(hashes))
            self._skipped_since = min(self._skipped_since, version)

    def _write_all(self, batches: Sequence[tuple[SampleBatch | None, bool]]) -> list[_Part]:
        """Write batches, all or none, each with whether it holds rejected samples."""
        parts: list[_Part] = []
        try:
            for batch, rejected in batches:
                if batch is not None and len(batch):
                    parts.append(self._write(batch, rejected))
        except BaseException:
            for part in parts:
                self._staged.discard(part.segment.path)
            raise
        return parts

    def _write(self, batch: SampleBatch, rejected: bool) -> _Part:
        """Write a segment that no log entry names yet."""
        segment = write_segment(self._storage, batch)
        self._staged.add(segment)
        strict = self._policy != "keep" and not rejected
        return _Part(segment, rejected, np.unique(batch.content_hash) if strict else None)

    def _check_fit(
        self, state: State, labelled_by: Iterable[str], user: Mapping[str, Column], labels: Mapping[str, Column]
    ) -> None:
        teachers = {teacher: self._info.get(teacher, {}) for teacher in labelled_by}
        state.check_append(teachers, user.values(), labels.values())

    def check_columns(self, user: Mapping[str, Column], labels: Mapping[str, Column]) -> None:
        """Raise `DataError` if user columns or labels are of other kinds than those of the store."""
        with self._log.guard():
            self._log.recent().check_append({}, user.values(), labels.values())

    # -- ending --------------------------------------------------------------------------------------------------

    def commit(self, provenance: Mapping[str, Any] | None = None) -> int:
        """Make everything that was added visible at once.

        If it is unclear whether the commit took effect (`StorageError`), it may be called again: samples are never
        committed twice.

        Parameters
        ----------
        provenance : mapping, optional
            JSON that the log entry keeps beside that of the transaction.

        Returns
        -------
        int
            The version of the commit. When this returns, the samples survive a crash and a power loss. If there was
            nothing to commit, the latest version.

        Raises
        ------
        ConflictError
            If the key stands for other samples, or labels of another model are on record under the same teacher name.
        DataError
            If another writer committed some of the structures meanwhile and duplicates are an error, or the log entry
            would be too large. Like after `ConflictError`, what was written is removed.
        StorageError
            If the storage fails, or garbage collection removed the files because the transaction was open for too long.
        """
        self._check_open()
        notes = self._provenance | json_mapping("provenance", provenance or {})
        if self._known is not None:
            return self._settle_known(self._known)
        while True:
            if not self._parts and self.key is None and (self.n_duplicates or not (notes or self._info)):
                with self._log.guard():
                    state = self._log.refresh()
                    try:
                        self._check_skipped(state)
                    except RemovedMeanwhileError:
                        self.discard()
                        raise
                    self.closed = True
                    return state.version
            if self._policy != "keep":
                with self._log.guard():
                    self._log.refresh()  # the files of an older version may be gone
            try:
                version, ours = self._log.commit("append", self.key, self._body(notes), self._check, self._attempt)
            except Clash:
                self._remove_clashes()
                continue
            except (ConflictError, DataError):  # raised before the claim
                self.discard()
                raise
            if not ours:  # another process committed the same key meanwhile
                self._staged.discard()
                return self._settle_known(version)
            self.closed = True
            return version

    def _body(self, notes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of the log entry."""
        body: dict[str, Any] = {
            "segments": [segment_document(part.segment) for part in self._parts if not part.rejected]
        }
        optional = {
            "quarantine": [segment_document(part.segment) for part in self._parts if part.rejected],
            "teachers": self._info,
            "provenance": notes,
            "duplicates_skipped": self.n_duplicates,
            "content": self._content.digest() if self.key is not None else None,
        }
        return body | {name: value for name, value in optional.items() if value}

    def _check(self, state: State) -> None:
        """Raise if the commit may not follow a state."""
        self._check_fit(state, self._labelled_by, self._user, self._labels)
        if self._policy != "keep":
            index = self._index()
            index.update(state)
            if any(part.hashes is not None and index.holds(part.hashes).any() for part in self._parts):
                raise Clash
            self._check_skipped(state)
        self._staged.check()

    def _check_skipped(self, state: State) -> None:
        """Raise if structures that were left out, since the store had them, are gone as of a state."""
        if state.last_removal <= self._skipped_since:
            return
        index = self._index()
        index.update(state)
        if not self._skipped.is_subset(index):
            raise RemovedMeanwhileError(
                "some structures were left out because the store had them, and another process removed these meanwhile; "
                "nothing was committed, append the samples again"
            )

    def _remove_clashes(self) -> None:
        """Write the segments anew of which another writer committed some structures meanwhile, without these."""
        index, reader = self._index(), ColumnReader(self._storage, ChunkCache(0))
        clashing = [part for part in self._parts if part.hashes is not None and index.holds(part.hashes).any()]
        if self._policy == "error":
            n = sum(int(index.holds(part.hashes).sum()) for part in clashing if part.hashes is not None)
            self.discard()
            raise refuse_duplicates(n, "another process stored them meanwhile")
        for part in clashing:
            batch = read_segment(reader, part.segment)
            held = index.holds(batch.content_hash)
            rest = batch.take(~held)
            self._note_skipped(batch.content_hash[held], index.version)
            place = self._parts.index(part)
            self._parts[place : place + 1] = [self._write(rest, rejected=False)] if len(rest) else []
            self._staged.discard(part.segment.path)
            self.n_samples -= len(batch) - len(rest)
            self.n_duplicates += len(batch) - len(rest)

    def _settle_known(self, version: int) -> int:
        """Return the version that has the key, after comparing its contents with those of this transaction."""
        self.closed = True
        self._staged.discard()  # nothing names what was written before the key was there
        entry = self._log.entry(version)
        recorded = entry.body.get("content")
        if recorded is not None and recorded != self._content.digest():
            raise ConflictError(
                f"key {self.key!r}: version {version} holds other samples under this key, so nothing was written. Use a key "
                "that follows from the samples, or append them under another key"
            )
        self._log.settle(version)
        return version

    def discard(self) -> None:
        """Remove the files, unless the commit took effect or may have taken effect. After `commit` this does nothing."""
        if not self.closed:
            self.closed = True
            if not self._attempt.unclear:
                self._staged.discard()

    def _check_open(self) -> None:
        if self.closed:
            raise DataError("this transaction was committed or discarded; begin another with store.transaction(...)")

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
