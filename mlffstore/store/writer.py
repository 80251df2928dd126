"""`Writer`: collects samples one by one and commits them in blocks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlffstore.data import rules
from mlffstore.data.batch import SampleBatch
from mlffstore.data.casting import integer
from mlffstore.data.concatenation import concatenate, merge_user_columns
from mlffstore.errors import DataError
from mlffstore.store.duplicates import DuplicatesError, check_policy, first_of_each
from mlffstore.store.transaction import merge_labels

if TYPE_CHECKING:
    from types import TracebackType

    from ase import Atoms

    from mlffstore.data.schema import Column
    from mlffstore.store.duplicates import OnDuplicate
    from mlffstore.store.transaction import Transaction

_log = logging.getLogger(__name__)


class TransactionSource(Protocol):
    """What a writer needs of a store: something that begins transactions."""

    @property
    def url(self) -> str:
        """Where the store is."""
        ...

    @property
    def precision(self) -> str:
        """dtype of the stored positions."""
        ...

    def holds(self, content_hash: Any) -> Any:
        """Return which of some content hashes are those of stored samples."""
        ...

    def check_writable(self) -> None:
        """Raise `ReadOnlyError` if the store is open for reading."""
        ...

    def transaction(
        self,
        *,
        key: str | None = None,
        require: Sequence[str] = ...,
        teachers: Mapping[str, Mapping[str, Any]] | None = None,
        provenance: Mapping[str, Any] | None = None,
        on_duplicate: OnDuplicate = "keep",
    ) -> Transaction:
        """Begin a commit."""
        ...


class Writer:
    """A buffered writer; made by `Store.writer`.

    A sample is checked when it is added, so that an invalid sample raises at once and the others stay. Samples are committed
    when enough of them are waiting, by `flush`, and at the end of the ``with`` block.

    When an exception ends the block, a writer without a key still commits the waiting samples. With a key it does not: the
    program is meant to be run again, and recognises its blocks by their keys only if they are cut in the same places.
    """

    def __init__(
        self,
        store: TransactionSource,
        flush_samples: int,
        *,
        key: str | None,
        teacher: str,
        require: Sequence[str],
        teachers: Mapping[str, Mapping[str, Any]] | None,
        provenance: Mapping[str, Any] | None,
        on_duplicate: OnDuplicate = "keep",
    ) -> None:
        flush_samples = integer("flush_samples", flush_samples, least=1)
        check_policy(on_duplicate)
        store.check_writable()
        self.store, self.flush_samples, self.key = store, flush_samples, key
        self._teacher, self._require, self._teachers, self._provenance = teacher, require, teachers, provenance
        self._on_duplicate: OnDuplicate = on_duplicate
        self._waiting: list[SampleBatch] = []
        self._n_waiting = 0
        #: User columns and labels of the samples that are not known to be committed.
        self._user: dict[str, Column] = {}
        self._labels: dict[str, Column] = {}
        #: A block that was written and whose commit was not acknowledged.
        self._unclear: Transaction | None = None
        self._block: list[SampleBatch] = []
        #: Versions of the commits so far.
        self.versions: list[int] = []

    def add(
        self,
        samples: Atoms | Sequence[Atoms] | SampleBatch,
        *,
        labels: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        source: str = "unknown",
        sampler: str = "unknown",
    ) -> None:
        """Add a frame, several, or a batch; labels come from the calculators unless given.

        Raises
        ------
        DataError
            If a sample may not be stored. No sample of this call is kept. If enough wait and some are there already, with
            `on_duplicate="error"`, these are taken out of the writer.
        """
        if isinstance(samples, SampleBatch):
            ignored = {"labels": labels is not None, "source": source != "unknown", "sampler": sampler != "unknown"}
            if any(ignored.values()):
                names = ", ".join(name for name, given in ignored.items() if given)
                raise DataError(f"{names}: expected frames beside it, got a batch; give them when the batch is made")
            batch = samples
        else:
            frames = [samples] if hasattr(samples, "positions") else list(samples)
            given = [labels] if isinstance(labels, Mapping) else labels
            batch = SampleBatch.from_ase(frames, teacher=self._teacher, labels=given, source=source, sampler=sampler)
        rules.check_whole(batch)
        batch.check_masks()
        rules.check(batch, self._require)
        batch = batch.astype(self.store.precision)
        user, merged = merge_user_columns([self._user, batch.user]), merge_labels(self._labels, batch.label_columns())
        if len(user) > len(self._user) or len(merged) > len(self._labels):
            self._begin(None).check_columns(user, merged)
        self._user, self._labels = user, merged
        self._waiting.append(batch)
        self._n_waiting += len(batch)
        if self._n_waiting >= self.flush_samples:
            self.flush()

    def flush(self) -> int | None:
        """Commit the waiting samples; return the version, or None if there were none.

        If it is unclear whether the commit took effect (`StorageError`), the next flush finds out first, so that no
        sample is committed twice.
        """
        version = self._commit() if self._unclear is not None else None
        if not self._waiting:
            return version
        self._unclear = self._begin(None if self.key is None else f"{self.key}/{len(self.versions)}")
        try:
            self._unclear.add(concatenate(self._waiting))
        except BaseException as error:
            self._unclear.discard()
            self._unclear = None
            if isinstance(error, DuplicatesError):
                raise self._drop_duplicates(error) from None
            raise
        self._block, self._waiting, self._n_waiting = self._waiting, [], 0
        return self._commit()

    def _drop_duplicates(self, error: DuplicatesError) -> DataError:
        """Let what the store has, or what waits twice, wait no longer; return the error that says so."""
        whole = concatenate(self._waiting).hashed(anew=True)
        kept = np.flatnonzero(first_of_each(whole.content_hash) & ~self.store.holds(whole.content_hash))
        dropped, self._n_waiting = len(whole) - len(kept), len(kept)
        self._waiting = [whole.take(kept)] if len(kept) else []
        return DataError(
            f"{str(error).partition('; nothing')[0]}; {dropped} samples were taken out of the writer, and {len(kept)} wait "
            "for the next flush. Use on_duplicate='skip' to leave such samples out without an error"
        )

    def _begin(self, key: str | None) -> Transaction:
        """Begin a transaction with the options of the writer."""
        return self.store.transaction(
            key=key, require=self._require, teachers=self._teachers, provenance=self._provenance,
            on_duplicate=self._on_duplicate,
        )  # fmt: skip

    def _commit(self) -> int:
        """Commit the block that was written. If the commit is refused, its samples wait again."""
        assert self._unclear is not None
        try:
            version = self._unclear.commit()
        except BaseException as error:
            if self._unclear.closed:
                self._waiting, self._block, self._unclear = self._block + self._waiting, [], None
                self._n_waiting = sum(map(len, self._waiting))
                if isinstance(error, DuplicatesError):
                    raise self._drop_duplicates(error) from None
            raise
        self._block, self._unclear = [], None
        self._user, self._labels = merge_user_columns(batch.user for batch in self._waiting), {}
        for batch in self._waiting:
            self._labels = merge_labels(self._labels, batch.label_columns())
        self.versions.append(version)
        return version

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.key is not None:
            if self._n_waiting:
                _log.warning(
                    "%s: an exception ended the writer %r with %d samples waiting; they were not committed. Run the program "
                    "again: the blocks that were committed under its keys are not written twice",
                    self.store.url, self.key, self._n_waiting,
                )  # fmt: skip
            self._waiting, self._n_waiting = [], 0
        self.flush()
