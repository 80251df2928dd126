"""`Snapshot`: a dataset as of one version. It never changes, whatever is committed meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from mlffstore.data.batch import SampleBatch, assemble
from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import missing_rows
from mlffstore.data.ragged import Ints, normalise_indices, offsets, row_indices
from mlffstore.data.schema import CODED, LABELS, STANDARD, Array, Column, is_mask, label_key, mask_key, split_key
from mlffstore.data.splits import SPLITS, assign
from mlffstore.data.vocabulary import UNKNOWN_ONLY, merge_words, translate
from mlffstore.errors import DataError
from mlffstore.format.reader import ChunkCache, ColumnReader
from mlffstore.format.records import known_column
from mlffstore.format.segment_list import SegmentList
from mlffstore.format.totals import Totals
from mlffstore.runtime.threads import cpu_pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import xarray as xr
    from ase import Atoms

    from mlffstore.format.records import Segment
    from mlffstore.format.state import State
    from mlffstore.storage import Storage

#: Reads of more bytes than this are spread over threads.
_PARALLEL_NBYTES = 4 << 20


class Snapshot:
    """The samples of a store as of a version: a sequence of `ase.Atoms` and a reader of batches.

    Made by `Store.snapshot`. Pickling keeps the place and the version, so a snapshot can be sent to other processes.

    Examples
    --------
    >>> import mlffstore as ml
    >>> snap = ml.open("d.zarr").snapshot()  # doctest: +SKIP
    >>> snap[0], snap.read([5, 3, 3])  # doctest: +SKIP
    """

    def __init__(self, storage: Storage, state: State, opener: Opener) -> None:
        self._storage = storage
        self._opener: Opener = opener
        self._segments, self._totals = state.segments.copy(), state.totals.copy()
        self._starts = offsets(self._segments.n_samples)
        self._reader = ColumnReader(storage, ChunkCache())
        self._teachers = {who: dict(info) for who, info in state.teachers.items()}
        self._user = dict(state.user)
        self._rejected, self._rejected_totals = state.quarantine.copy(), state.rejected.copy()
        self._state_settings = dict(state.settings)
        self._precision = state.precision
        self.version = state.version
        #: Digest of the last log entry; it covers the entries before, so that it names the content of this version.
        self.digest = state.parent
        self.store_uuid = state.store
        self._root: npt.NDArray[np.uint64] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self._opener, self.version))

    # -- what is there -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def n_atoms(self) -> int:
        """Atoms of all samples together."""
        return sum(self._segments.n_atoms)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers that labelled something, in the order of their first commit."""
        return tuple(who for who in self._teachers if self._totals.labelled.get(who))

    def teacher_info(self, teacher: str) -> dict[str, Any]:
        """Return what was recorded of a teacher: identity, licence, domain, versions; empty if nothing was."""
        return dict(self._teachers[choose_teacher(tuple(self._teachers), teacher)])

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments, in order. Those of a large store are parsed when they are looked at."""
        return self._segments

    @property
    def user_columns(self) -> dict[str, Column]:
        """The user columns."""
        return dict(self._user)

    @property
    def url(self) -> str:
        """Where the store is."""
        return self._storage.url

    @property
    def precision(self) -> str:
        """dtype of the stored positions."""
        return self._precision

    @property
    def settings(self) -> dict[str, Any]:
        """What was fixed when the store was made: split fractions and seed."""
        return dict(self._state_settings)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns on disk."""
        return self._totals.nbytes

    @property
    def n_quarantined(self) -> int:
        """Number of rejected samples on record."""
        return sum(self._rejected.n_samples)

    def elements(self) -> dict[int, int]:
        """Return atomic number -> number of atoms, from the log alone."""
        return dict(sorted(self._totals.elements.items()))

    def summary(self) -> dict[str, Any]:
        """Return the figures that `mlffstore info` shows, as plain types, from the log alone."""
        from ase.data import chemical_symbols

        totals = self._totals
        return {
            "url": self.url,
            "uuid": self.store_uuid,
            "version": self.version,
            "samples": len(self),
            "atoms": self.n_atoms,
            "periodic": totals.n_periodic,
            "n_atoms_min": totals.n_atoms_min,
            "n_atoms_max": totals.n_atoms_max,
            "elements": {chemical_symbols[z]: n for z, n in self.elements().items()},
            "teachers": {who: totals.labelled[who] for who in self.teachers},
            "segments": len(self._segments),
            "nbytes": self.nbytes,
            "nbytes_raw": totals.nbytes_raw,
            "quarantined": self.n_quarantined,
            "precision": self.precision,
        }

    @property
    def quarantine(self) -> Snapshot:
        """The rejected samples as a snapshot of their own; `reasons` says why."""
        other = Snapshot.__new__(Snapshot)
        other.__dict__.update(self.__dict__)
        other._segments, other._totals = self._rejected, self._rejected_totals
        other._rejected, other._rejected_totals = SegmentList(), Totals()
        other._starts = offsets(self._rejected.n_samples)
        other._opener, other._root = _QuarantineOpener(self._opener), None
        other.digest = f"{self.digest} quarantine"
        return other

    def reasons(self) -> list[str]:
        """Return why each sample was rejected (only on `quarantine`)."""
        out: list[str] = []
        for segment in self._segments:
            if "reason" not in segment.columns:
                raise DataError("reasons: these samples were not rejected; use snapshot.quarantine.reasons()")
            codes = np.empty(segment.n_samples, np.uint16)
            self._reader.read(segment.columns["reason"], 0, segment.n_samples, codes)
            out += [segment.vocabulary["reason"][code] for code in codes]
        return out

    def provenance(self) -> list[dict[str, Any]]:
        """Return the provenance of the commits up to this version, oldest first; see `Store.provenance`."""
        return self._opener.provenance(self.version)

    def committed(self) -> str:
        """Return when this version was committed, ISO 8601, UTC."""
        return self._opener.committed(self.version)

    def __repr__(self) -> str:
        who = ", ".join(self.teachers) or "no labels"
        return (
            f"<Snapshot of {self.url} at version {self.version}: {len(self):,} samples, {self.n_atoms:,} atoms, {who}>"
        )

    # -- frames --------------------------------------------------------------------------------------------------

    @overload
    def __getitem__(self, item: int) -> Atoms: ...
    @overload
    def __getitem__(self, item: slice | Sequence[int]) -> list[Atoms]: ...
    def __getitem__(self, item: int | slice | Sequence[int]) -> Atoms | list[Atoms]:
        if isinstance(item, slice):
            return self.atoms(np.arange(*item.indices(len(self))))
        if np.ndim(item) == 0:
            return self.atoms([item])[0]
        return self.atoms(item)

    def __iter__(self) -> Iterator[Atoms]:
        for start in range(0, len(self), 1024):
            yield from self[start : start + 1024]

    def atoms(self, indices: npt.ArrayLike, teacher: str | None = None) -> list[Atoms]:
        """Return samples as ASE frames with the labels of `teacher` in a SinglePointCalculator.

        A frame that the teacher did not label has no calculator. Without `teacher` each frame gets the labels of the only
        teacher that labelled it; a frame that several labelled is an error.

        Raises
        ------
        TeacherError
            If the snapshot has no labels of that teacher at all, or `teacher` is needed to choose.
        """
        return self.read(indices, teacher=teacher).to_ase(teacher)

    # -- batches -------------------------------------------------------------------------------------------------

    def read(
        self,
        indices: npt.ArrayLike | slice | None = None,
        *,
        teacher: str | Sequence[str] | None = None,
        columns: Iterable[str] | None = None,
    ) -> SampleBatch:
        """Read samples into memory.

        Parameters
        ----------
        indices : array_like of int, boolean mask or slice, optional
            In any order, duplicates allowed, negative ones from the end. Everything by default.
        teacher : str or sequence of str, optional
            Whose labels to read; all by default. Samples that a named teacher did not label have NaN.
        columns : iterable of str, optional
            Names of the columns wanted beside `n_atoms`, standard, label or user; all that these samples have by default. A
            user column that is named is in the batch even if none of these samples has it. A batch without the structure
            columns serves for statistics only.

        Returns
        -------
        SampleBatch
            In request order. Labels and user columns that a sample lacks are NaN; integer and boolean user columns keep
            their dtype, and the `masks` of the batch say where they have a value.

        Raises
        ------
        IndexError
            If an index is outside.
        TeacherError
            If the snapshot has no labels of that teacher at all.
        CorruptionError
            If bytes on disk are damaged; they are never returned as data.
        """
        index = self._indices(indices)
        wanted = None if columns is None else {"n_atoms", *columns}
        known = set(STANDARD) | set(LABELS) | set(self._user) | {"reason"}
        if wanted and wanted - known:
            raise DataError(f"columns: expected some of {', '.join(sorted(known))}, got {sorted(wanted - known)}")
        if not len(index):
            return self._nothing(wanted)
        if teacher is None:
            who = None
        else:
            named = [teacher] if isinstance(teacher, str) else teacher
            who = list(dict.fromkeys(choose_teacher(self.teachers, one) for one in named))
        contiguous = len(index) > 0 and bool(np.all(np.diff(index) == 1))
        plan = _Plan(self, index, contiguous)
        n_atoms = self._read_sample_column("n_atoms", plan)
        plan.set_atoms(n_atoms, self._reader)
        keys = list(dict.fromkeys(key for part in plan.parts for key in part.segment.columns))
        keys = [key for key in keys if key != "n_atoms" and not is_mask(key) and self._wanted(key, wanted, who)]
        jobs = [(key, part) for key in keys for part in plan.parts if key in part.segment.columns]
        keys += [name for name in self._user if name in (wanted or ()) and name not in keys]
        held = {split_key(key)[1] for key in keys}
        keys += [key for one in who or () if one not in held for key in _label_keys(one, wanted)]
        columns = {key: self._column(key, plan) for key in keys}
        out = {key: self._empty(key, columns[key], plan) for key in keys}
        masks = {key: np.zeros(len(out[key]), bool) for key in keys if self._is_masked(key, columns[key], plan)}
        vocabularies = {
            key: merge_words(part.segment.vocabulary.get(key, UNKNOWN_ONLY) for part in plan.parts)
            for key in (*CODED, "reason")
            if key in keys
        }

        def fill(job: tuple[str, _Part]) -> None:
            key, part = job
            values = part.values(self._reader, key)
            if key in vocabularies:
                words = part.segment.vocabulary.get(key, UNKNOWN_ONLY)
                values = translate(values, words, vocabularies[key], f"{part.segment.path}/{key}")
            part.place(out[key], values, columns[key].axis)
            if key in masks:
                masked = mask_key(key) in part.segment.columns
                part.place(masks[key], part.values(self._reader, mask_key(key)) if masked else True, columns[key].axis)

        if plan.nbytes(keys) > _PARALLEL_NBYTES:
            list(cpu_pool().map(fill, jobs))
        else:
            for job in jobs:
                fill(job)
        user = {key: columns[key] for key in keys if known_column(key) is None}
        masks = {key: mask for key, mask in masks.items() if not mask.all()}
        return self._assemble(out, n_atoms, vocabularies, user, masks)

    def _nothing(self, wanted: set[str] | None) -> SampleBatch:
        """Return a batch without samples, with the columns that were asked for and without labels."""
        specs = STANDARD | self._user
        specs["positions"] = specs["positions"].with_dtype(self._precision)
        names = [name for name in specs if wanted is None or name in wanted]
        columns = {name: np.empty((0, *specs[name].shape), specs[name].dtype) for name in names}
        user = {name: self._user[name] for name in names if name in self._user}
        vocabulary = {name: UNKNOWN_ONLY for name in CODED if name in names}
        return assemble(columns, {}, user, vocabulary)

    def _indices(self, indices: npt.ArrayLike | slice | None) -> Ints:
        if indices is None:
            return np.arange(len(self))
        if isinstance(indices, slice):
            return np.arange(*indices.indices(len(self)))
        index = np.asarray(indices)
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise IndexError(f"boolean mask: expected shape ({len(self)},), got {index.shape}")
            index = np.flatnonzero(index)
        return normalise_indices(np.atleast_1d(index) if index.size else index.reshape(-1), len(self))

    @staticmethod
    def _wanted(key: str, wanted: set[str] | None, who: Sequence[str] | None) -> bool:
        name, teacher = split_key(key)
        if teacher is not None and who is not None and teacher not in who:
            return False
        return wanted is None or name in wanted

    def _column(self, key: str, plan: _Plan) -> Column:
        """Return the description of a column that is read."""
        held = next((part.segment.columns[key] for part in plan.parts if key in part.segment.columns), None)
        return held.column if held is not None else known_column(key) or self._user[key]

    @staticmethod
    def _empty(key: str, column: Column, plan: _Plan) -> Array:
        """Return the output of a column, with missing values if some rows will not be filled."""
        rows = len(plan.index) if column.axis == "sample" else plan.n_atoms
        if all(key in part.segment.columns for part in plan.parts):
            return np.empty((rows, *column.shape), column.dtype)
        return missing_rows(column, rows)

    @staticmethod
    def _is_masked(key: str, column: Column, plan: _Plan) -> bool:
        """Return whether a column may lack values that NaN does not mark."""
        if np.dtype(column.dtype).kind == "f" or known_column(key) is not None:
            return False
        held = [part.segment.columns for part in plan.parts]
        return any(key not in columns or mask_key(key) in columns for columns in held)

    def _read_sample_column(self, key: str, plan: _Plan) -> Array:
        out = np.empty(len(plan.index), STANDARD[key].dtype)
        for part in plan.parts:
            values = self._reader.gather(part.segment.columns[key], part.rows)
            out[part.where] = values
        return out

    def _assemble(
        self,
        out: dict[str, Array],
        n_atoms: Array,
        vocabularies: dict[str, tuple[str, ...]],
        user: dict[str, Column],
        masks: dict[str, Array],
    ) -> SampleBatch:
        columns = {"n_atoms": n_atoms}
        labels: dict[str, dict[str, Array]] = {}
        for key, array in out.items():
            name, teacher = split_key(key)
            if teacher is not None:
                labels.setdefault(teacher, {})[name] = array
            else:
                columns[key] = array
        ordered = {who: labels[who] for who in self._teachers if who in labels}
        return assemble(columns, ordered, user, vocabularies, masks=masks)

    def to_xarray(self, *, chunks: Any = (), teachers: str | Sequence[str] | None = None) -> xr.Dataset:
        """Return the samples as a lazy `xarray.Dataset` with the accessor ``.mlff``.

        Parameters
        ----------
        chunks : optional
            As in `xarray.Dataset.chunk`. By default dask chunks of whole samples; None leaves dask out.
        teachers : str or sequence of str, optional
            Whose labels; all by default.
        """
        from mlffstore.lazy.engine import dataset

        out = dataset(self, teachers)
        if chunks is None:
            return out
        preferred: dict[Any, Any] = {}
        for variable in out.variables.values():
            preferred |= variable.encoding.get("preferred_chunks", {})
        return out.chunk(preferred if chunks == () else chunks)

    # -- splits --------------------------------------------------------------------------------------------------

    def split_indices(self, split: str | None, teacher: str | None = None) -> Ints:
        """Return the indices of the samples of a split, in store order.

        Parameters
        ----------
        split : {"train", "val", "test"} or None
            None for all samples.
        teacher : str, optional
            Only samples that this teacher labelled.

        Raises
        ------
        DataError
            If there is no such split.
        """
        index = np.arange(len(self))
        if split is not None:
            if split not in SPLITS:
                raise DataError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
            index = np.flatnonzero(self.split_codes() == SPLITS.index(split))
        if teacher is not None:
            choose_teacher(self.teachers, teacher)
            energy = self.read(index, teacher=teacher, columns=["energy"]).labels.get(teacher, {}).get("energy")
            index = index[:0] if energy is None else index[~np.isnan(energy)]
        return index

    def roots(self) -> npt.NDArray[np.uint64]:
        """Return the root of every sample, shape (S,); it is read once."""
        if self._root is None:
            self._root = np.empty(len(self), np.uint64)
            for i, segment in enumerate(self._segments):
                out = self._root[self._starts[i] : self._starts[i + 1]]
                self._reader.read(segment.columns["root"], 0, segment.n_samples, out)
        return self._root

    def split_codes(self) -> npt.NDArray[np.uint8]:
        """Return the split of every sample, an index into `mlffstore.data.splits.SPLITS`, shape (S,)."""
        settings = self._state_settings
        return assign(self.roots(), settings["splits"], settings["split_seed"])


def _label_keys(teacher: str, wanted: set[str] | None) -> list[str]:
    """Return the label columns, all of them missing, that stand for a teacher who labelled none of some samples."""
    names = ["energy"] if wanted is None else [name for name in LABELS if name in wanted]
    return [label_key(name, teacher) for name in names]


class _Part:
    """The share of one segment in a request."""

    __slots__ = ("atom_counts", "atom_rows", "atom_span", "atom_where", "rows", "segment", "where")

    def __init__(self, segment: Segment, rows: Ints, where: Ints | slice) -> None:
        self.segment, self.rows, self.where = segment, rows, where
        self.atom_rows: Ints | None = None
        self.atom_span: tuple[int, int] | None = None
        self.atom_where: Ints | slice = slice(0)

    def values(self, reader: ColumnReader, key: str) -> Array:
        """Return the rows of a column that the request wants."""
        stored = self.segment.columns[key]
        if stored.column.axis == "sample":
            if isinstance(self.where, slice):
                return self._span(reader, key, int(self.rows[0]), int(self.rows[-1]) + 1)
            return reader.gather(stored, self.rows)
        if self.atom_span is not None:
            return self._span(reader, key, *self.atom_span)
        assert self.atom_rows is not None
        return reader.gather(stored, self.atom_rows)

    def _span(self, reader: ColumnReader, key: str, start: int, stop: int) -> Array:
        stored = self.segment.columns[key]
        out = np.empty((stop - start, *stored.column.shape), stored.column.dtype)
        reader.read(stored, start, stop, out)
        return out

    def place(self, out: Array, values: Array | bool, axis: str) -> None:
        """Put the rows, or one value for all of them, where the request wants them."""
        out[self.where if axis == "sample" else self.atom_where] = values


class _Plan:
    """Which rows of which segments a request needs, and where they go."""

    def __init__(self, snapshot: Snapshot, index: Ints, contiguous: bool) -> None:
        self.index, self.contiguous = index, contiguous
        self.n_atoms = 0
        self.parts: list[_Part] = []
        starts = snapshot._starts
        owner = np.searchsorted(starts, index, side="right") - 1
        if contiguous:
            for i in range(int(owner[0]), int(owner[-1]) + 1) if len(index) else ():
                lo, hi = max(int(starts[i]), int(index[0])), min(int(starts[i + 1]), int(index[-1]) + 1)
                rows = np.arange(lo, hi) - starts[i]
                where = slice(lo - int(index[0]), hi - int(index[0]))
                self.parts.append(_Part(snapshot._segments[i], rows, where))
        else:
            order = np.argsort(owner, kind="stable")
            cuts = np.flatnonzero(np.diff(owner[order])) + 1
            for chosen in np.split(order, cuts) if len(index) else ():
                i = int(owner[chosen[0]])
                self.parts.append(_Part(snapshot._segments[i], index[chosen] - starts[i], chosen))

    def set_atoms(self, n_atoms: Array, reader: ColumnReader) -> None:
        """Work out the atom rows, now that the atom counts of the samples are known."""
        begins = offsets(n_atoms)
        self.n_atoms = int(begins[-1])
        for part in self.parts:
            segment = part.segment
            counts = np.empty(segment.n_samples, np.int32)
            reader.read(segment.columns["n_atoms"], 0, segment.n_samples, counts)
            starts = offsets(counts)
            if starts[-1] != segment.n_atoms or counts.min() < 1:
                raise DataError(f"{segment.path}: n_atoms does not add up to what the log says; the store is damaged")
            if isinstance(part.where, slice):
                part.atom_span = (int(starts[part.rows[0]]), int(starts[part.rows[-1] + 1]))
                part.atom_where = slice(int(begins[part.where.start]), int(begins[part.where.stop]))
            else:
                part.atom_rows = row_indices(starts[part.rows], counts[part.rows])
                part.atom_where = row_indices(begins[part.where], counts[part.rows])

    def nbytes(self, keys: Iterable[str]) -> int:
        """Return about how many bytes the request is."""
        rows = {"sample": len(self.index), "atom": self.n_atoms}
        per_key: Mapping[str, Column] = {
            key: stored.column for part in self.parts for key, stored in part.segment.columns.items()
        }
        return sum(rows[per_key[key].axis] * per_key[key].row_nbytes for key in keys if key in per_key)


class Opener(Protocol):
    """Makes a snapshot of a version again, in another process, and reads what the log says of it."""

    def snapshot(self, version: int) -> Snapshot:
        """Return the snapshot."""
        ...

    def provenance(self, version: int) -> list[dict[str, Any]]:
        """Return the provenance of the commits up to a version."""
        ...

    def committed(self, version: int) -> str:
        """Return when a version was committed."""
        ...


class _QuarantineOpener:
    """Makes the quarantine of a snapshot again; a class and not a closure so that it can be pickled."""

    def __init__(self, opener: Opener) -> None:
        self.opener = opener

    def snapshot(self, version: int) -> Snapshot:
        """Return the quarantine of the snapshot."""
        return self.opener.snapshot(version).quarantine

    def provenance(self, version: int) -> list[dict[str, Any]]:
        """Return the provenance of the commits up to a version."""
        return self.opener.provenance(version)

    def committed(self, version: int) -> str:
        """Return when a version was committed."""
        return self.opener.committed(version)


def _reopen(opener: Opener, version: int) -> Snapshot:
    return opener.snapshot(version)
