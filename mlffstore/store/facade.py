"""`Store`: create, open, append, tag. Every change is one numbered, atomic, durable commit."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlffstore.data import rules
from mlffstore.data.batch import SampleBatch
from mlffstore.data.labels import DEFAULT_TEACHER
from mlffstore.data.splits import DEFAULT_FRACTIONS, check_fractions
from mlffstore.errors import (
    ConflictError,
    DataError,
    FormatError,
    MlffstoreError,
    ReadOnlyError,
    StoreExistsError,
    StoreNotFoundError,
)
from mlffstore.format.entry import Entry, entry_path, now
from mlffstore.format.log import Log
from mlffstore.format.root import read_root, root_document
from mlffstore.format.state import State
from mlffstore.storage import LocalStorage, Storage, open_storage
from mlffstore.store.duplicates import HashIndex
from mlffstore.store.snapshot import Snapshot
from mlffstore.store.transaction import Transaction, json_mapping

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    import numpy.typing as npt
    from ase import Atoms

    from mlffstore.analysis.validation import Validation
    from mlffstore.contracts.protocols import Teacher
    from mlffstore.data.schema import Axis
    from mlffstore.store.labelling import LabelReport
    from mlffstore.store.maintenance.backup import Backup
    from mlffstore.store.maintenance.compaction import Compaction
    from mlffstore.store.maintenance.garbage import Garbage
    from mlffstore.store.maintenance.verify import Verification
    from mlffstore.store.writer import Writer

    Progress = Callable[[int, int], None]

Mode = Literal["r", "a"]
OnDuplicate = Literal["keep", "skip", "error"]


@dataclass(frozen=True, slots=True)
class Commit:
    """One line of a store's history."""

    version: int
    time: str
    operation: str
    key: str | None
    n_samples: int
    n_atoms: int
    n_quarantined: int
    note: str


def create(
    url: str | os.PathLike[str],
    *,
    precision: Literal["float32", "float64"] = "float32",
    splits: Mapping[str, float] = DEFAULT_FRACTIONS,
    split_seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
    exist_ok: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    single_writer: bool = False,
) -> Store:
    """Make a new, empty store and open it for appending.

    Parameters
    ----------
    url : str or path
        A folder that does not exist or is empty, or a URL such as ``s3://bucket/d.zarr``.
    precision : {"float32", "float64"}, optional
        dtype of the stored positions.
    splits : mapping of str to float, optional
        Shares of "train", "val" and "test". They are fixed for the life of the store, so that nothing ever moves
        from one split to another.
    split_seed : int, optional
        Another seed gives another split.
    provenance : mapping, optional
        JSON that says where the data will come from; kept in the first commit.
    exist_ok : bool, optional
        Open the store if there is one already with the same settings.
    storage_options, single_writer
        As for `open`.

    Raises
    ------
    StoreExistsError
        If there is a store (and not `exist_ok`) or something else at that place.
    """
    storage = open_storage(url, storage_options, single_writer=single_writer)
    if precision not in ("float32", "float64"):
        raise DataError(f"precision: expected 'float32' or 'float64', got {precision!r}")
    settings = {"splits": check_fractions(splits), "split_seed": int(split_seed)}
    ours = root_document(uuid.uuid4().hex, precision, settings)
    storage.check_claims()
    try:
        found, own = read_root(storage)
    except StoreNotFoundError:
        _refuse_foreign(storage)
        storage.make_root()
        storage.put_if_absent("zarr.json", json.dumps(ours, indent=1).encode())
        found, own = read_root(storage)
    same = {**ours, "attributes": {**ours["attributes"], "uuid": None}}
    if {**found, "attributes": {**found["attributes"], "uuid": None}} != same:
        raise StoreExistsError(
            f"{storage.url}: there is a store with other settings already; open it with ml.open(...)"
        )
    identity = found["attributes"]["uuid"]
    entry = Entry(
        version=0,
        store=identity,
        transaction=uuid.uuid4().hex,
        parent=None,
        time=now(),
        operation="create",
        body={
            "root": own,
            "settings": settings,
            "precision": precision,
            "provenance": json_mapping("provenance", provenance or {}),
        },
    )
    # A creation that was interrupted after zarr.json is finished here, by whoever comes first.
    created = storage.put_if_absent(entry_path(0), entry.encode())
    if not created and not exist_ok:
        raise StoreExistsError(
            f"{storage.url}: there is a store already; open it with ml.open({str(url)!r}, mode='a'), or remove it"
        )
    return Store(storage, "a", _Opener(storage.url, storage_options, single_writer))


def open(
    url: str | os.PathLike[str],
    mode: Mode = "r",
    *,
    storage_options: Mapping[str, Any] | None = None,
    single_writer: bool = False,
) -> Store:
    """Open a store.

    Parameters
    ----------
    url : str or path
        Its folder, or a URL such as ``s3://bucket/d.zarr`` (extra ``s3``).
    mode : {"r", "a"}, optional
        For reading, or for appending too.
    storage_options : mapping, optional
        For object stores: what `obstore.store.from_url` takes, such as ``region``, ``endpoint``, ``access_key_id`` and
        ``client_options``. Without them the usual environment variables count (``AWS_...``). Never logged nor stored.
    single_writer : bool, optional
        Write to an object store that ignores conditional writes. Two writers would lose commits there: the caller
        promises that there is one.

    Raises
    ------
    StoreNotFoundError
        If there is nothing.
    FormatError
        If it is not a store of this library, or of a newer format version.
    """
    if mode not in ("r", "a"):
        raise DataError(f"mode: expected 'r' to read or 'a' to append, got {mode!r}")
    storage = open_storage(url, storage_options, single_writer=single_writer)
    if mode == "a":
        storage.check_claims()
    return Store(storage, mode, _Opener(storage.url, storage_options, single_writer))


class Store:
    """A dataset of labelled samples that many processes append to and read from at once.

    Made by `create` and `open`. It can be pickled and used after a fork.
    """

    def __init__(self, storage: Storage, mode: Mode, opener: _Opener) -> None:
        self._storage, self.mode = storage, mode
        attributes = read_root(storage)[0]["attributes"]
        self.uuid: str = attributes["uuid"]
        self._opener = replace(opener, uuid=self.uuid)
        self.precision: str = attributes["precision"]
        self.settings: dict[str, Any] = {"splits": attributes["splits"], "split_seed": attributes["split_seed"]}
        self._hashes: HashIndex | None = None
        self._log = Log(storage, State(self.uuid, self.precision, self.settings))
        if self._log.refresh().version < 0:
            raise FormatError(
                f"{storage.url}: the creation of this store was interrupted; call ml.create with the same settings again"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return (self._opener, (self.mode,))

    @property
    def url(self) -> str:
        """Where the store is."""
        return self._storage.url

    # -- writing -------------------------------------------------------------------------------------------------

    def append(
        self,
        samples: SampleBatch | Sequence[Atoms] | Atoms,
        *,
        key: str | None = None,
        teacher: str = DEFAULT_TEACHER,
        require: Sequence[str] = rules.REQUIRED,
        source: str | Sequence[str] = "unknown",
        sampler: str | Sequence[str] = "unknown",
        teachers: Mapping[str, Mapping[str, Any]] | None = None,
        provenance: Mapping[str, Any] | None = None,
        on_duplicate: OnDuplicate = "keep",
    ) -> int:
        """Append samples in one atomic, durable commit.

        Parameters
        ----------
        samples : SampleBatch, or sequence of ase.Atoms
            Frames bring the labels that their calculators hold.
        key : str, optional
            Idempotency key. If the log has it already, nothing is written and its version is returned, provided that it
            stands for the same samples.
        teacher : str, optional
            Whose labels the frames hold (a batch names its teachers itself).
        require : sequence of {"energy", "forces", "stress"}, optional
            Labels that every sample must have. ``()`` stores structures to be labelled later.
        source, sampler : str or sequence of str, optional
            Where the seeds of the frames came from, and what made the structures (a batch says so itself).
        teachers : mapping of str to mapping, optional
            JSON on record of each teacher; two different values of "fingerprint" under one name are refused.
        provenance : mapping, optional
            JSON kept in the log entry.
        on_duplicate : {"keep", "skip", "error"}, optional
            What to do with structures that the store or these samples hold already, bit for bit (equal content_hash).
            Safe against other writers that skip too: of two that append the same structure at once, one keeps it.

        Returns
        -------
        int
            The version of the commit. When this returns, the samples survive a crash and a power loss.

        Raises
        ------
        DataError
            If the samples may not be stored; the message lists all problems and nothing is written.
        ReadOnlyError
            If the store is open for reading, or its folder cannot be written.
        ConflictError
            If labels of another model are on record under the same teacher name, or the key stands for other samples.
        """
        if isinstance(samples, SampleBatch):
            batch = samples
        else:
            frames = [samples] if hasattr(samples, "positions") else list(samples)
            batch = SampleBatch.from_ase(frames, teacher=teacher, source=source, sampler=sampler)
        return self.commit(
            batch, key=key, require=require, teachers=teachers, provenance=provenance, on_duplicate=on_duplicate
        )

    def commit(
        self,
        batch: SampleBatch | None,
        *,
        rejected: SampleBatch | None = None,
        reasons: Sequence[str] = (),
        key: str | None = None,
        require: Sequence[str] = rules.REQUIRED,
        teachers: Mapping[str, Mapping[str, Any]] | None = None,
        provenance: Mapping[str, Any] | None = None,
        on_duplicate: OnDuplicate = "keep",
    ) -> int:
        """Append samples and put rejected ones into quarantine, in one commit.

        `append` is this without the quarantine; the pipeline uses it so that a task's samples and its rejects, with the
        reason for each, appear together or not at all.

        Parameters
        ----------
        batch : SampleBatch or None
            What to append.
        rejected : SampleBatch, optional
            What to put into quarantine; its values are not checked.
        reasons : sequence of str, optional
            Why, one for each rejected sample.
        key, require, teachers, provenance, on_duplicate
            As for `append`.

        Returns
        -------
        int
        """
        with self.transaction(
            key=key, require=require, teachers=teachers, provenance=provenance, on_duplicate=on_duplicate
        ) as tx:
            tx.add(batch, rejected, reasons)
            return tx.commit()

    def transaction(
        self,
        *,
        key: str | None = None,
        require: Sequence[str] = rules.REQUIRED,
        teachers: Mapping[str, Mapping[str, Any]] | None = None,
        provenance: Mapping[str, Any] | None = None,
        on_duplicate: OnDuplicate = "keep",
    ) -> Transaction:
        """Begin a commit of more samples than memory holds: each `add` writes a batch, `commit` lets all of them appear.

        Parameters
        ----------
        key, require, teachers, provenance, on_duplicate
            As for `append`. Duplicates are looked for in the store and among what was added.

        Returns
        -------
        Transaction
            A context manager. Leaving it without `commit` removes what was written.
        """
        self.check_writable()
        return Transaction(
            self._storage, self._log, self._index, self.precision,
            key=key, require=require, teachers=teachers, provenance=provenance, on_duplicate=on_duplicate,
        )  # fmt: skip

    def _index(self) -> HashIndex:
        """Return the index of content hashes, made when it is first needed."""
        if self._hashes is None:
            self._hashes = HashIndex(self._storage)
        return self._hashes

    def holds(self, content_hash: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which structures the store has among its accepted samples.

        Parameters
        ----------
        content_hash : array_like, shape (S,), uint64
            Of structures in the store's precision, such as ``batch.astype(store.precision).content_hash``.

        Returns
        -------
        ndarray of bool, shape (S,)
        """
        with self._log.guard():
            index = self._index()
            index.update(self._log.refresh())
            return index.holds(np.asarray(content_hash, np.uint64))

    def writer(
        self,
        flush_samples: int = 2048,
        *,
        key: str | None = None,
        teacher: str = DEFAULT_TEACHER,
        require: Sequence[str] = rules.REQUIRED,
        teachers: Mapping[str, Mapping[str, Any]] | None = None,
        provenance: Mapping[str, Any] | None = None,
        on_duplicate: OnDuplicate = "keep",
    ) -> Writer:
        """Return a buffered writer, a context manager; each flush is one commit.

        Parameters
        ----------
        flush_samples : int, optional
            Commit whenever so many samples are waiting.
        key : str, optional
            The commits get the idempotency keys ``key/0``, ``key/1``, ...: the same samples written again in the same
            order are recognised. After an exception only whole blocks are committed, so that the same program can run again.
        teacher, require, teachers, provenance, on_duplicate
            As for `append`.
        """
        from mlffstore.store.writer import Writer

        return Writer(
            self,
            flush_samples,
            key=key,
            teacher=teacher,
            require=require,
            teachers=teachers,
            provenance=provenance,
            on_duplicate=on_duplicate,
        )

    def tag(self, name: str, version: int | None = None) -> int:
        """Name a version (the latest by default); return the version of the commit that records the tag.

        A tag that names the same dataset already is left as it is, and the latest version is returned. Without `version`
        that is so if nothing but tags and expiries was committed since the version that it names.

        Raises
        ------
        ConflictError
            If the tag names another dataset already: a tag never moves.
        DataError
            If the name or the version cannot be.
        """
        self.check_writable()
        if not isinstance(name, str) or not name.strip() or len(name) > 128 or name.isdigit():
            raise DataError(f"tag: expected a name of at most 128 characters that is not just a number, got {name!r}")
        with self._log.guard():
            target = self._log.refresh().version if version is None else int(version)

            def check(state: State) -> None:
                if not 0 <= target <= state.version:
                    raise DataError(f"version: expected 0 to {state.version}, got {target}")
                if not state.retains(target):
                    raise DataError(f"version {target} has expired and cannot be tagged")
                if name in state.tags:
                    raise _Tagged

            try:
                return self._log.commit("tag", None, {"tag": name, "target": target}, check)[0]
            except _Tagged:
                state = self._log.refresh()
                named = state.tags[name]
                if named == target or (version is None and self._same_data(named, target)):
                    return state.version
                raise ConflictError(
                    f"tag {name!r} names version {named} already; tags never move, use another"
                ) from None

    def _same_data(self, earlier: int, later: int) -> bool:
        """Return whether two versions hold the same samples, because only tags and expiries lie between them."""
        between = self._log.entries(earlier + 1, later + 1)
        return all(entry.operation in ("tag", "expire") for entry, _, _ in between)

    def add_column(
        self,
        name: str,
        values: npt.ArrayLike,
        *,
        unit: str = "1",
        axis: Axis | None = None,
        long_name: str = "",
        snapshot: Snapshot | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> int:
        """Add a column of your own to the samples that are there: one atomic commit, nothing is rewritten.

        Parameters
        ----------
        name : str
            An identifier that is not one of the standard names.
        values : array_like, shape (S, ...) or (A, ...)
            One row per sample or per atom of the snapshot. Rows without a value are NaN; in an integer or boolean column,
            pass a `numpy.ma.MaskedArray`.
        unit : str, optional
            "1" for none.
        axis : {"sample", "atom"}, optional
            What a row of `values` stands for. By default the number of rows tells; where each sample has one atom, it is
            the sample.
        long_name : str, optional
            One line for people.
        snapshot : Snapshot, optional
            Whose samples these are; the newest by default. Samples appended since lack the column: they read as
            NaN, or are masked out in `SampleBatch.masks` if the dtype is an integer or bool.
        provenance : mapping, optional
            JSON kept in the log entry.

        Returns
        -------
        int
            The version of the commit.

        Raises
        ------
        DataError
            If the column does not fit the samples.
        ConflictError
            If some of the samples have such a column, or were merged by `compact` since the snapshot.
        """
        from mlffstore.store.layers import add_column

        self.check_writable()
        notes = json_mapping("provenance", provenance or {})
        return add_column(
            self._storage, self._log, snapshot or self.snapshot(), name, values,
            unit=unit, axis=axis, long_name=long_name, provenance=notes,
        )  # fmt: skip

    def add_flags(self, validation: Validation, name: str = "quality", *, snapshot: Snapshot | None = None) -> int:
        """Keep the flags of a validation as the column `name`: a bit for each check that a sample fails.

        Parameters
        ----------
        validation : Validation
            Of a snapshot of this store.
        name : str, optional
        snapshot : Snapshot, optional
            That snapshot; the newest by default.

        Returns
        -------
        int
            The version of the commit. Its provenance has the policy and the verdict.
        """
        flags = validation.flags["flags"]
        words = flags.attrs["flag_meanings"].split()
        text = "failed checks, by bit: " + ", ".join(f"{i} {word}" for i, word in enumerate(words))
        return self.add_column(
            name,
            flags.values,
            axis="sample",
            long_name=text,
            snapshot=snapshot,
            provenance={"validation": validation.to_json()},
        )

    def add_labels(
        self,
        teacher: Teacher | str,
        *,
        options: Mapping[str, Any] | None = None,
        workers: int = 1,
        executor: Executor | None = None,
        chunk_samples: int = 512,
        progress: Progress | None = None,
    ) -> LabelReport:
        """Label every sample that lacks the labels of a teacher.

        Parameters
        ----------
        teacher : Teacher or str
            A teacher, or the name of one, see `mlffstore.get_teacher`.
        options : mapping, optional
            Options of a teacher that is given by name, such as ``{"weights": "orb.ckpt"}``.
        workers : int, optional
            Processes on this machine. With 1 the teacher works in this process, which is right for a GPU.
        executor : concurrent.futures.Executor, optional
            Where to label instead; it is not shut down. The active Dask client, if there is one, is used by default.
        chunk_samples : int, optional
            Samples that the teacher is given at a time.
        progress : callable, optional
            Called with the samples done so far and their number.

        Returns
        -------
        LabelReport

        Raises
        ------
        ConflictError
            If the store holds labels of another model under this teacher's name.
        DataError
            If the teacher gives labels that may not be stored.

        Notes
        -----
        The labels of a segment are one commit, a layer over it: killed and called again, it goes on with the next segment.
        Several processes may label the same store at once; what another one has finished is not done again, and of two
        that label one segment at the same time the first to commit wins. Samples that the teacher refuses stay without
        labels, with the reasons counted in the commit's provenance.
        """
        from mlffstore.store.labelling import add_labels

        self.check_writable()
        return add_labels(
            self, self._storage, self._log, teacher, options=options or {}, workers=workers, executor=executor,
            chunk_samples=chunk_samples, progress=progress,
        )  # fmt: skip

    # -- care ----------------------------------------------------------------------------------------------------

    def verify(self, *, full: bool = False, progress: Progress | None = None) -> Verification:
        """Check that everything the log promises is there and is what was committed; see `mlffstore.verify`."""
        from mlffstore.store.maintenance.verify import verify_storage

        return verify_storage(self._storage, full=full, progress=progress)

    def compact(self, *, target_nbytes: int | None = None, progress: Progress | None = None) -> Compaction:
        """Merge runs of small segments, with the layers over them, into large ones.

        Samples, their order and their values stay the same, and old versions stay readable, so the space comes free only
        when they have expired (`gc`). Others may append and label meanwhile.

        Parameters
        ----------
        target_nbytes : int, optional
            Uncompressed size that merged segments come near to, 128 MiB by default. Memory needed: some times this.
            Segments of half this size or more stay as they are.
        progress : callable, optional
            Called with the runs done so far and their number.

        Returns
        -------
        Compaction
        """
        from mlffstore.store.maintenance.compaction import TARGET_NBYTES, compact

        self.check_writable()
        target = TARGET_NBYTES if target_nbytes is None else target_nbytes
        return compact(self._storage, self._log, target_nbytes=target, progress=progress)

    def gc(
        self,
        *,
        dry_run: bool = True,
        grace: float | None = None,
        short_grace: bool = False,
        expire_before: int | None = None,
    ) -> Garbage:
        """Remove files that no retained version needs: of killed writers, lost races and expired versions.

        Parameters
        ----------
        dry_run : bool, optional
            Only say what would be removed (the default).
        grace : float, optional
            Seconds that a file must be old, 24 hours by default: younger ones may belong to a commit that is being made.
            Ages are measured on the clock of the storage. 0 is safe only while nobody writes.
        short_grace : bool, optional
            Allow a grace period of less than 10 minutes.
        expire_before : int, optional
            Give up the versions before this one, except tagged ones; this cannot be undone. Snapshots of these
            versions, also open ones, can no longer be read.

        Returns
        -------
        Garbage

        Raises
        ------
        DataError
            If the version cannot be given up, or the grace period is negative or too short.
        """
        from mlffstore.store.maintenance.garbage import GRACE_SECONDS, collect

        self.check_writable()
        seconds = GRACE_SECONDS if grace is None else grace
        return collect(
            self._storage,
            self._log,
            dry_run=dry_run,
            grace=seconds,
            short_grace=short_grace,
            expire_before=expire_before,
        )

    def backup(
        self,
        url: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Backup:
        """Copy the store to another place, or bring an earlier copy up to date, while others go on writing.

        Every file is compared with the log before it is copied. The copy is a store of its own at every moment, with all
        retained versions and tags as of some version; it has the same uuid, so do not write to it.

        Parameters
        ----------
        url : str or path
            A new folder or URL, or that of an earlier backup of this store.
        storage_options : mapping, optional
            As for `mlffstore.open`, of the place of the copy.
        progress : callable, optional
            Called with the segments that are there so far and their number.

        Returns
        -------
        Backup

        Raises
        ------
        StoreExistsError
            If something else is at that place.
        ConflictError
            If the copy has commits of its own.
        CorruptionError
            If a file of this store is damaged; the copy holds what it held before.
        """
        from mlffstore.store.maintenance.backup import backup

        target = open_storage(url, storage_options)
        try:
            read_root(target)
        except StoreNotFoundError:
            _refuse_foreign(target, but=("_log", "segments", "layers"))
            target.make_root()
        return backup(self._storage, self._log, target, progress)

    def check_writable(self) -> None:
        """Raise `ReadOnlyError` if the store is open for reading."""
        if self.mode != "a":
            raise ReadOnlyError(
                f"{self.url}: opened for reading; open it with ml.open({self._opener.url!r}, mode='a') to write"
            )

    # -- reading -------------------------------------------------------------------------------------------------

    def snapshot(self, version: int | None = None, *, tag: str | None = None) -> Snapshot:
        """Return the dataset as of a version or tag, the latest by default.

        Raises
        ------
        DataError
            If there is no such version or tag, or both are given.
        """
        with self._log.guard():  # another thread may append through this store
            state = self._log.refresh()
            if tag is not None:
                if version is not None:
                    raise DataError("snapshot: expected a version or a tag, got both")
                if tag not in state.tags:
                    raise DataError(f"tag: expected one of {', '.join(state.tags) or '(there are none)'}, got {tag!r}")
                version = state.tags[tag]
            if version is None or version == state.version:
                return Snapshot(self._storage, state, self._opener)
            if not 0 <= version <= state.version:
                raise DataError(f"version: expected 0 to {state.version}, got {version}")
            if not state.retains(version):
                raise DataError(
                    f"version {version} has expired: its files may be gone. Versions from {state.expired} on can be read"
                    + (f", and the tagged {', '.join(map(str, state.kept))}" if state.kept else "")
                )
        return Snapshot(self._storage, self._log.at(version), self._opener)

    @property
    def version(self) -> int:
        """The latest version."""
        with self._log.guard():
            return self._log.refresh().version

    @property
    def tags(self) -> dict[str, int]:
        """Tags and the versions that they name."""
        with self._log.guard():
            return dict(self._log.refresh().tags)

    def keys(self) -> dict[str, int]:
        """Return the idempotency keys in the log and the versions that they made."""
        with self._log.guard():
            return dict(self._log.refresh().keys)

    def __len__(self) -> int:
        with self._log.guard():
            return sum(self._log.refresh().segments.n_samples)

    def history(self, last: int | None = None, *, since: int = 0) -> list[Commit]:
        """Return the commits from version `since` on, oldest first; only the `last` ones if a number is given."""
        start = since if last is None else max(since, self.version + 1 - last)
        return [_commit_line(entry) for entry, _, _ in self._log.entries(start)]

    def provenance(self, *, since: int = 0) -> list[dict[str, Any]]:
        """Return the provenance of the commits from version `since` on that have one, with their versions, oldest first."""
        return [
            {"version": entry.version, "time": entry.time, **found}
            for entry, _, _ in self._log.entries(since)
            if isinstance(found := entry.body.get("provenance"), dict) and found
        ]

    def __repr__(self) -> str:
        snap = self.snapshot()
        who = ", ".join(snap.teachers) or "no labels yet"
        return (
            f"<Store {self.url}: {len(snap):,} samples, {snap.n_atoms:,} atoms, {len(snap.elements())} elements, "
            f"{who}; version {snap.version}, mode {self.mode!r}>"
        )

    def _repr_html_(self) -> str:
        from mlffstore.store.describe import html_table

        return html_table(self)


class _Tagged(MlffstoreError):
    """The tag exists; never leaves `Store.tag`."""


@dataclass(frozen=True)
class _Opener:
    """Opens a store again, in another process too, and makes sure that it is the same one."""

    url: str  #: Absolute: another process may run in another folder.
    options: Mapping[str, Any] | None = field(repr=False)  # may hold credentials
    single_writer: bool
    uuid: str = ""

    def __call__(self, mode: Mode = "r") -> Store:
        store = open(self.url, mode, storage_options=self.options, single_writer=self.single_writer)
        if store.uuid != self.uuid:
            raise StoreNotFoundError(
                f"{self.url}: expected the store {self.uuid}, got {store.uuid}: another one was put in its place; open it "
                "anew with ml.open(...)"
            )
        return store

    def snapshot(self, version: int) -> Snapshot:
        """Return a snapshot of the store."""
        return self().snapshot(version)

    def provenance(self, version: int) -> list[dict[str, Any]]:
        """Return the provenance of the commits up to a version."""
        return [one for one in self().provenance() if one["version"] <= version]

    def committed(self, version: int) -> str:
        """Return when a version was committed."""
        return next(entry.time for entry, _, _ in self()._log.entries(version))


def _refuse_foreign(storage: Storage, but: Sequence[str] = ()) -> None:
    """Raise if a local folder holds something that is not a store, beside the names `but`."""
    if not isinstance(storage, LocalStorage):
        return  # a prefix of an object store cannot be seen to be empty without listing it
    path = storage.root
    if path.is_dir() and any(not (found.name.startswith(".tmp-") or found.name in but) for found in path.iterdir()):
        raise StoreExistsError(
            f"{path}: expected a new or empty folder, got one with other files; choose another place"
        )
    if path.exists() and not path.is_dir():
        raise StoreExistsError(f"{path}: expected a new or empty folder, got a file; choose another place")


def _commit_line(entry: Entry) -> Commit:
    def total(role: str, what: str) -> int:
        return sum(int(segment[what]) for segment in entry.body.get(role, ()))

    note = ""
    if entry.operation == "tag":
        note = f"{entry.body['tag']} = {entry.body['target']}"
    elif entry.operation == "replace":
        pairs = entry.body["replacements"]
        n_in, n_out = (sum(len(pair[name]) for pair in pairs) for name in ("inputs", "outputs"))
        note = f"{n_in} segments merged into {n_out}"
    elif entry.operation == "expire":
        note = f"versions before {entry.body['before']} given up"
    elif entry.operation == "layer":
        note = ", ".join(sorted({who for layer in entry.body["layers"] for who in layer["labelled"]}))
    elif entry.body.get("duplicates_skipped"):
        note = f"{entry.body['duplicates_skipped']} duplicates skipped"
    return Commit(
        version=entry.version,
        time=entry.time,
        operation=entry.operation,
        key=entry.key,
        n_samples=total("segments", "n_samples"),
        n_atoms=total("segments", "n_atoms"),
        n_quarantined=total("quarantine", "n_samples"),
        note=note,
    )


__all__ = ["Commit", "Store", "create", "open"]
