"""`Snapshot`: a dataset as of one version, which later commits never change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import mask_names
from mlffstore.data.properties import PROPERTIES, Property, known_properties, ordered, property_of
from mlffstore.data.ragged import Ints, offsets
from mlffstore.data.schema import STANDARD, Column, is_label, split_key
from mlffstore.data.splits import assign
from mlffstore.errors import DataError
from mlffstore.format.reader import ChunkCache, ColumnReader
from mlffstore.format.segment_list import SegmentList
from mlffstore.format.totals import Totals
from mlffstore.runtime.words import counted
from mlffstore.store.batches import choose_columns, empty_batch, read_batch
from mlffstore.store.request import Request, joint_vocabulary
from mlffstore.store.rows import StoredRows
from mlffstore.store.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.format.records import Segment
    from mlffstore.format.state import State
    from mlffstore.storage import Storage


class Snapshot(Samples):
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
        self.digest = state.parent or ""
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
        names = {split_key(key)[0] for key in self.label_columns()}
        return {name: property_of(name, self._properties) for name in ordered(names)}

    def label_columns(self) -> dict[str, Column]:
        """Return the columns of labels by their on-disk names, such as ``energy.orb-v2``."""
        out: dict[str, Column] = {}
        for segment in self._segments:
            for key, stored in segment.columns.items():
                if key not in out and is_label(key):
                    out[key] = stored.column
        return out

    def mask_names(self) -> dict[str, str]:
        """Return the user columns that some sample may lack, but for floating ones, each with the name of its mask."""
        return mask_names((segment.columns for segment in self._segments), self._user)

    def vocabulary(self, name: str) -> tuple[str, ...]:
        """Return the strings of a coded column, in order of appearance."""
        return joint_vocabulary(self._segments, name)

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
        # Their user columns are their own: nothing checks those of rejected samples against the accepted ones.
        other._user = {}
        for segment in self._rejected:
            other._user |= {name: column for name, column in segment.user.items() if name not in other._user}
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

    # -- batches -------------------------------------------------------------------------------------------------

    def read(
        self,
        indices: npt.ArrayLike | slice | None = None,
        *,
        teacher: str | Sequence[str] | None = None,
        columns: Iterable[str] | None = None,
    ) -> SampleBatch:
        """Read samples into memory; see `mlffstore.store.readable.ReadableSamples.read`."""
        index = self.as_indices(indices)
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

    def rows(self) -> StoredRows:
        """Return the rows of the columns."""
        return StoredRows(self)

    def holds(self, key: str) -> Array:
        """Return which samples lie in a segment that has a column, shape (S,), bool."""
        held = [key in segment.columns for segment in self._segments]
        return np.repeat(np.array(held, bool), self._segments.n_samples)

    def files_of(self, indices: Ints) -> list[str]:
        """Return the path of the segment that holds each of some samples."""
        return [self._segments.paths[i] for i in np.searchsorted(self._starts, indices, side="right") - 1]

    # -- splits --------------------------------------------------------------------------------------------------

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
