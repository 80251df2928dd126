"""`Store`: append, label, tag. Every change is one numbered, atomic, durable commit."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlffstore.data import rules
from mlffstore.data.batch import SampleBatch
from mlffstore.data.casting import cast, integer
from mlffstore.data.labels import DEFAULT_TEACHER
from mlffstore.errors import ConflictError, DataError, MlffstoreError, problems_message
from mlffstore.format.kept_selection import selection_document
from mlffstore.store import layers
from mlffstore.store.arguments import check_tag, check_version, json_mapping
from mlffstore.store.chosen import version_of
from mlffstore.store.duplicates import HashIndex, RemovedMeanwhileError
from mlffstore.store.labelled import LabelledStore
from mlffstore.store.samples import Selection
from mlffstore.store.transaction import Transaction
from mlffstore.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt
    from ase import Atoms

    from mlffstore.data.schema import Axis
    from mlffstore.format.state import State
    from mlffstore.store.duplicates import OnDuplicate
    from mlffstore.store.snapshot import Snapshot

    Progress = Callable[[int, int], None]


class SampleFlags(Protocol):
    """The result of a validation, as far as a store keeps it; see `mlffstore.analysis.validation.Validation`."""

    @property
    def flags(self) -> Any:
        """Dataset with the variable ``flags``, whose attribute ``flag_meanings`` names the bits.

        Its variable ``content_hash`` and its attributes ``store_uuid`` and ``store_version`` say of which samples.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """Return policy and verdict as JSON."""
        ...


class _TagTakenError(MlffstoreError):
    """The tag exists; never leaves `Store.tag`."""


class Store(LabelledStore):
    """A dataset of labelled samples that many processes append to and read from at once.

    `mlffstore.create` and `mlffstore.open` make it. It can be pickled and used after a fork.
    """

    _hashes: HashIndex | None = None

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
        units: Mapping[str, str] | None = None,
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
            Name of the teacher whose labels the frames hold (a batch has the names of its teachers).
        require : sequence of {"energy", "forces", "stress"}, optional
            Labels that every sample must have. ``()`` stores structures to be labelled later.
        source, sampler : str or sequence of str, optional
            Origin of the seeds of the frames, and the method that made the structures (a batch has both itself).
        teachers : mapping of str to mapping, optional
            JSON about each teacher that the log keeps. Two different values of "fingerprint" under one name are refused.
        provenance : mapping, optional
            JSON that the log entry keeps.
        on_duplicate : {"keep", "skip", "error"}, optional
            What to do with structures that the store or these samples hold already, bit for bit (equal content_hash).
            This is safe against other writers that skip too: if two append the same structure at once, it is kept once.
        units : mapping of str to str, optional
            Units of labels of frames that are not in ASE's: ``{"dipole": "Debye"}``. A batch converts when it is made.

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
            ignored = {
                "source": source != "unknown", "sampler": sampler != "unknown", "teacher": teacher != DEFAULT_TEACHER,
                "units": bool(units),
            }  # fmt: skip
            if names := ", ".join(name for name, given in ignored.items() if given):
                raise DataError(
                    f"{names}: expected frames beside it, got a batch; say it when the batch is made, as in "
                    "SampleBatch(units=...)"
                )
            batch = samples
        else:
            frames = [samples] if hasattr(samples, "positions") else list(samples)
            batch = SampleBatch.from_ase(frames, teacher=teacher, source=source, sampler=sampler, units=units)
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

        `append` does the same without a quarantine. The pipeline uses `commit` so that the samples of a task and its
        rejected samples, each with the reason, appear together or not at all.

        Parameters
        ----------
        batch : SampleBatch or None
            Samples to append.
        rejected : SampleBatch, optional
            Samples to put into quarantine; their values are not checked.
        reasons : sequence of str, optional
            Reason for the rejection of each rejected sample.
        key, require, teachers, provenance, on_duplicate
            As for `append`.

        Returns
        -------
        int
        """
        while True:
            with (
                self.transaction(
                    key=key, require=require, teachers=teachers, provenance=provenance, on_duplicate=on_duplicate
                ) as tx,
                contextlib.suppress(RemovedMeanwhileError),
            ):
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
        """Begin a commit of more samples than memory holds: each `add` writes a batch, `commit` makes all of them visible.

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
            Hashes of structures in the precision of the store, such as ``batch.astype(store.precision).content_hash``.

        Returns
        -------
        ndarray of bool, shape (S,)
        """
        problems: list[str] = []
        hashes = cast("content_hash", content_hash, "uint64", problems)
        if hashes.ndim != 1:
            problems.append(f"content_hash: expected one hash for each structure, got shape {hashes.shape}")
        if problems:
            raise DataError(problems_message("these are not hashes of structures:", problems))
        with self._log.guard():
            index = self._index()
            index.update(self._log.refresh())
            return index.holds(hashes)

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
            Number of waiting samples that causes a commit.
        key : str, optional
            The commits get the idempotency keys ``key/0``, ``key/1``, ...: the same samples written again in the same
            order are recognised. After an exception only whole blocks are committed, so that the same program can be run
            again.
        teacher, require, teachers, provenance, on_duplicate
            As for `append`.
        """
        return Writer(
            self, flush_samples, key=key, teacher=teacher, require=require, teachers=teachers, provenance=provenance,
            on_duplicate=on_duplicate,
        )  # fmt: skip

    def tag(self, name: str, version: int | None = None, *, selection: Selection | None = None) -> int:
        """Name a version (the latest by default), or a selection; return the version of the commit that records the tag.

        A `selection` of a snapshot of this store stands in place of a version: the tag names its version, and says which
        samples are chosen and why; `Store.selection` returns it. A tag that names the same dataset already stays as it is,
        and the latest version is returned. Without `version` this is the case if only tags and expiries were committed since
        the version that the tag names.

        Raises
        ------
        ConflictError
            If the tag names another dataset, or other samples, already: a tag never moves.
        DataError
            If the name or the version is not possible, or the selection is of another store.
        """
        self.check_writable()
        check_tag(name)
        if selection is not None and not isinstance(selection, Selection):
            raise DataError(
                f"selection: expected samples that snapshot.select or the like chose, got {type(selection).__name__}"
            )
        if selection is not None and version is not None:
            raise DataError(f"version: expected a version or a selection, got both ({version})")
        if selection is not None:
            version = version_of(self._log, selection.snapshot)
        with self._log.guard():
            target = self._log.refresh().version if version is None else integer("version", version)

            def check(state: State) -> None:
                check_version(target, state.version)
                if not state.retains(target):
                    raise DataError(f"version {target} has expired and cannot be tagged")
                if name in state.tags:
                    raise _TagTakenError

            body: dict[str, Any] = {"tag": name, "target": target}
            if selection is not None:
                body["selection"] = selection_document(selection.indices, [step.to_json() for step in selection.steps])
            try:
                return self._log.commit("tag", None, body, check)[0]
            except _TagTakenError:
                state = self._log.refresh()
                named = state.tags[name]
                if selection is not None or name in state.selections:
                    kept = self.selection(name) if name in state.selections else None
                    if selection is not None and kept is not None and kept.digest == selection.digest:
                        return state.version
                    raise ConflictError(
                        f"tag {name!r} names other samples already; tags never move, use another"
                    ) from None
                if named == target or (version is None and self._same_data(named, target)):
                    return state.version
                raise ConflictError(
                    f"tag {name!r} names version {named} already; tags never move, use another"
                ) from None

    def _same_data(self, earlier: int, later: int) -> bool:
        """Return whether two versions hold the same samples, because only tags and expiries lie between them."""
        between = self._log.entries(earlier + 1, later + 1)
        return all(entry.operation in ("tag", "untag", "expire") for entry, _, _ in between)

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
        """Add a user column to samples that are stored already: one atomic commit, nothing is rewritten.

        Parameters
        ----------
        name : str
            An identifier that is neither a standard name nor a dimension, such as `xyz`.
        values : array_like, shape (S, ...) or (A, ...)
            One row per sample or per atom of the snapshot. Rows without a value are NaN; for an integer or boolean column,
            pass a `numpy.ma.MaskedArray`.
        unit : str, optional
            Unit of the values; "1" if they have none.
        axis : {"sample", "atom"}, optional
            What a row of `values` stands for. By default the number of rows decides; where each sample has one atom, a row
            stands for a sample.
        long_name : str, optional
            A description of one line.
        snapshot : Snapshot, optional
            The snapshot whose samples get the values; the newest by default. Samples that were appended since lack the
            column: they read as NaN, or are masked in `SampleBatch.masks` if the dtype is an integer or bool.
        provenance : mapping, optional
            JSON that the log entry keeps.

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
        self.check_writable()
        notes = json_mapping("provenance", provenance or {})
        return layers.add_column(
            self._storage, self._log, self.snapshot() if snapshot is None else snapshot, name, values,
            unit=unit, axis=axis, long_name=long_name, provenance=notes,
        )  # fmt: skip

    def add_flags(self, validation: SampleFlags, name: str = "quality", *, snapshot: Snapshot | None = None) -> int:
        """Keep the flags of a validation as the column `name`: a bit for each check that a sample fails.

        Parameters
        ----------
        validation : Validation
            The validation of a snapshot of this store; see `mlffstore.validate`.
        name : str, optional
            Name of the column.
        snapshot : Snapshot, optional
            The snapshot that was validated, which the validation of a snapshot knows.

        Returns
        -------
        int
            The version of the commit. Its provenance has the policy and the verdict.

        Raises
        ------
        DataError
            If the flags are those of other samples.
        ConflictError
            If some of the samples were merged or removed since, or have such a column.
        """
        found = validation.flags
        if snapshot is None:
            known = found.attrs.get("store_uuid") == self.uuid
            snapshot = self.snapshot(version=int(found.attrs["store_version"])) if known else self.snapshot()
        hashes = found.get("content_hash")
        if hashes is not None and not np.array_equal(hashes, snapshot.read(columns=["content_hash"]).content_hash):
            raise DataError(
                f"validation: expected the samples of version {snapshot.version} in their order, got others; validate this "
                "snapshot, or name the one that was validated with snapshot=..."
            )
        flags = found["flags"]
        checks = flags.attrs["flag_meanings"].split()
        text = "failed checks, by bit: " + ", ".join(f"{bit} {check}" for bit, check in enumerate(checks))
        return self.add_column(
            name,
            flags.values,
            axis="sample",
            long_name=text,
            snapshot=snapshot,
            provenance={"validation": validation.to_json()},
        )
