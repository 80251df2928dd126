"""`Snapshot`: a dataset as of one version, which later commits never change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from mlffstore.data.labels import choose_teacher
from mlffstore.data.properties import PROPERTIES, Property, known_properties, ordered, property_of
from mlffstore.data.ragged import Ints, as_indices, offsets
from mlffstore.data.schema import STANDARD, Column, is_label, split_key
from mlffstore.data.splits import SPLITS, assign
from mlffstore.errors import DataError
from mlffstore.format.reader import ChunkCache, ColumnReader
from mlffstore.format.segment_list import SegmentList
from mlffstore.format.totals import Totals
from mlffstore.runtime.words import counted
from mlffstore.store.batches import choose_columns, empty_batch, read_batch
from mlffstore.store.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import xarray as xr
    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
    from mlffstore.format.records import Segment
    from mlffstore.format.state import State
    from mlffstore.storage import Storage


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
        self._teachers = {teacher: dict(info) for teacher, info in state.teachers.items()}
        self._user = dict(state.user)
        self._properties = state.properties
        self._rejected, self._rejected_totals = state.quarantine.copy(), state.rejected.copy()
        self._state_settings = dict(state.settings)
        self._precision = state.precision
        self._nbytes_log = state.nbytes_log
        self.version = state.version
        #: Digest of the last log entry; it covers the entries before, so that it names the content of this version.
        self.digest = state.parent
        self.store_uuid = state.store
        self._root: npt.NDArray[np.uint64] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self._opener, self.version))

    # -- description -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def n_atoms(self) -> int:
        """Atoms of all samples together."""
        return sum(self._segments.n_atoms)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers that labelled something, in the order of their first commit."""
        return tuple(teacher for teacher in self._teachers if self._totals.labelled.get(teacher))

    def teacher_info(self, teacher: str) -> dict[str, Any]:
        """Return what the log says of a teacher: identity, licence, domain, versions; empty if it says nothing."""
        return dict(self._teachers[choose_teacher(tuple(self._teachers), teacher)])

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments, in order. Those of a large store are parsed when they are looked at."""
        return self._segments

    @property
    def column_reader(self) -> ColumnReader:
        """The reader of stored columns; its cache of decoded chunks is shared by everything that reads the snapshot."""
        return self._reader

    @property
    def user_columns(self) -> dict[str, Column]:
        """The user columns."""
        return dict(self._user)

    @property
    def properties(self) -> dict[str, Property]:
        """The properties that some teacher gave, by name."""
        names = dict.fromkeys(
            split_key(key)[0] for segment in self._segments for key in segment.columns if is_label(key)
        )
        return {name: property_of(name, self._properties) for name in ordered(names)}

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
        """The settings that were fixed when the store was created: split fractions and seed."""
        return dict(self._state_settings)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns on disk."""
        return self._totals.nbytes

    @property
    def nbytes_on_disk(self) -> int:
        """Bytes of the files of this version: columns and metadata, rejected samples, and the log."""
        return self._totals.nbytes_files + self._rejected_totals.nbytes_files + self._nbytes_log

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
            # Rejected samples may have numbers that are no element's.
            "elements": {
                chemical_symbols[z] if z < len(chemical_symbols) else f"Z{z}": n for z, n in self.elements().items()
            },
            "teachers": {teacher: totals.labelled[teacher] for teacher in self.teachers},
            "segments": len(self._segments),
            "nbytes": self.nbytes,
            "nbytes_on_disk": self.nbytes_on_disk,
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
        """Return the reason for the rejection of each sample (only on `quarantine`)."""
        out: list[str] = []
        for segment in self._segments:
            if "reason" not in segment.columns:
                raise DataError("reasons: these samples were not rejected; use snapshot.quarantine.reasons()")
            codes = np.empty(segment.n_samples, np.uint32)
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
        teachers = ", ".join(self.teachers) or "no labels"
        sizes = f"{counted(len(self), 'sample')}, {counted(self.n_atoms, 'atom')}"
        return f"<Snapshot of {self.url} at version {self.version}: {sizes}, {teachers}>"

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
            Samples to read, in any order; duplicates are allowed, negative indices count from the end. The default is all
            samples.
        teacher : str or sequence of str, optional
            Names of the teachers whose labels are read; all by default. Samples that a named teacher did not label have
            NaN.
        columns : iterable of str, optional
            Names of the columns to read beside `n_atoms`: standard, label or user columns. The default is every column
            that one of these samples has. A user column that is named is in the batch even if none of these samples has
            it. A batch without the structure columns serves for statistics only.

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
        known = {*STANDARD, *PROPERTIES, *self._properties, *self._user, "reason"}
        if wanted and wanted - known - set(known_properties()):
            raise DataError(f"columns: expected some of {', '.join(sorted(known))}, got {sorted(wanted - known)}")
        if not len(index):
            return empty_batch(self._user, self._precision, wanted)
        chosen: list[str] | None = None
        if teacher is not None:
            names = [teacher] if isinstance(teacher, str) else teacher
            chosen = list(dict.fromkeys(choose_teacher(self.teachers, name) for name in names))
        request = Request(self._segments, self._starts, index, self._reader)
        descriptions = choose_columns(request.segments, self._user, wanted, chosen, self._properties)
        return read_batch(request, self._reader, descriptions, self._teachers)

    def _indices(self, indices: npt.ArrayLike | slice | None) -> Ints:
        if indices is None:
            return np.arange(len(self))
        if isinstance(indices, slice):
            return np.arange(*indices.indices(len(self)))
        return as_indices(indices, len(self))

    def to_xarray(self, *, chunks: Any = (), teachers: str | Sequence[str] | None = None) -> xr.Dataset:
        """Return the samples as a lazy `xarray.Dataset` with the accessor ``.mlff``.

        Parameters
        ----------
        chunks : optional
            As in `xarray.Dataset.chunk`. The default is dask chunks of whole samples; None gives a Dataset without dask.
        teachers : str or sequence of str, optional
            Names of the teachers whose labels are variables; all by default.
        """
        from mlffstore.lazy.dataset import dataset  # upwards: the only place where the store calls the lazy layer

        out = dataset(self, teachers)
        if chunks is None:
            return out
        preferred: dict[Any, Any] = {}
        for variable in out.variables.values():
            preferred |= variable.encoding.get("preferred_chunks", {})
        # Dask would otherwise find names for the variables by pickling each, and open the store again for each.
        token = f"{self.store_uuid} {self.digest} {teachers}"
        return out.chunk(preferred if chunks == () else chunks, token=token)

    # -- splits --------------------------------------------------------------------------------------------------

    def split_indices(self, split: str | None, teacher: str | None = None) -> Ints:
        """Return the indices of the samples of a split, in store order.

        Parameters
        ----------
        split : {"train", "val", "test"} or None
            Name of the split; None for all samples.
        teacher : str, optional
            Name of a teacher: only samples that it labelled are returned.

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
