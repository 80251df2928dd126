"""`ReadableSamples`: samples in a fixed order that can be described and read; `mlffstore.store.samples` adds choosing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from mlffstore.data.ragged import Ints, as_indices
from mlffstore.data.schema import STANDARD
from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError
from mlffstore.store.presence import labelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt
    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Array, Column
    from mlffstore.store.rows import ColumnRows

#: Samples that are read at a time.
_BLOCK = 4096


class ReadableSamples(ABC):
    """Samples in a fixed order that never change: a sequence of `ase.Atoms` and a reader of batches.

    Attributes
    ----------
    url : str
        Where they are: the store, or the release.
    store_uuid : str
        The store that they are from.
    version : int
        Version of the store.
    digest : str
        It names the content: samples with equal digests are the same.
    precision : str
        dtype of the positions.
    settings : dict
        Split fractions and seed of the store.
    """

    store_uuid: str
    version: int
    digest: str

    # -- description -------------------------------------------------------------------------------------------

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the store or the release is."""

    @property
    @abstractmethod
    def precision(self) -> str:
        """dtype of the stored positions."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings that were fixed when the store was created: split fractions and seed."""

    @property
    @abstractmethod
    def n_atoms(self) -> int:
        """Atoms of all samples together."""

    @property
    @abstractmethod
    def nbytes_on_disk(self) -> int | None:
        """Bytes of the files; None if the samples have no files of their own."""

    @property
    @abstractmethod
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers whose labels there are."""

    @abstractmethod
    def teacher_info(self, teacher: str) -> dict[str, Any]:
        """Return what is on record of a teacher: identity, licence, domain, versions; empty if nothing is."""

    @property
    @abstractmethod
    def properties(self) -> dict[str, Property]:
        """The properties that some teacher gave, by name."""

    @property
    @abstractmethod
    def user_columns(self) -> dict[str, Column]:
        """The user columns."""

    @abstractmethod
    def label_columns(self) -> dict[str, Column]:
        """Return the columns of labels by their on-disk names, such as ``energy.orb-v2``."""

    @abstractmethod
    def mask_names(self) -> dict[str, str]:
        """Return the user columns that some sample may lack, but for floating ones, each with the name of its mask."""

    @abstractmethod
    def vocabulary(self, name: str) -> tuple[str, ...]:
        """Return the strings of a coded column, in order of appearance."""

    @abstractmethod
    def provenance(self) -> list[dict[str, Any]]:
        """Return the provenance of the commits that made the samples, oldest first."""

    @abstractmethod
    def committed(self) -> str:
        """Return when the version was committed, ISO 8601, UTC."""

    def summary(self) -> dict[str, Any]:
        """Return the figures that `mlffstore info` shows, as plain types."""
        from ase.data import chemical_symbols

        elements = np.zeros(256, np.int64)
        sizes = [np.zeros(0, np.int32)]
        periodic = nbytes = 0
        for batch in self.blocks(columns=["numbers", "pbc"]):
            elements += np.bincount(batch.numbers, minlength=256)
            sizes.append(batch.n_atoms)
            periodic += int(batch.pbc.any(axis=1).sum())
        n_atoms = np.concatenate(sizes)
        rows = {"sample": len(n_atoms), "atom": int(n_atoms.sum(dtype=np.int64))}
        nbytes = sum(rows[column.axis] * column.row_nbytes for column in self.stored_columns().values())
        return {
            "url": self.url,
            "uuid": self.store_uuid,
            "version": self.version,
            "samples": rows["sample"],
            "atoms": rows["atom"],
            "periodic": periodic,
            "n_atoms_min": int(n_atoms.min(initial=0 if not len(n_atoms) else n_atoms[0])),
            "n_atoms_max": int(n_atoms.max(initial=0)),
            "elements": {chemical_symbols[z]: int(elements[z]) for z in np.flatnonzero(elements[:119])},
            "teachers": {teacher: int(labelled(self, teacher).sum()) for teacher in self.teachers},
            "nbytes_on_disk": self.nbytes_on_disk,
            "nbytes_raw": nbytes,
            "quarantined": 0,
            "precision": self.precision,
        }

    def stored_columns(self) -> dict[str, Column]:
        """Return all columns by their on-disk names: standard columns, labels, user columns."""
        standard = {**STANDARD, "positions": STANDARD["positions"].with_dtype(self.precision)}
        return {**standard, **self.label_columns(), **self.user_columns}

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
            If there are no labels of that teacher at all, or `teacher` is needed to choose.
        """
        return self.read(indices, teacher=teacher).to_ase(teacher)

    # -- batches -------------------------------------------------------------------------------------------------

    @abstractmethod
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
            If there are no labels of that teacher at all.
        CorruptionError
            If bytes on disk are damaged; they are never returned as data.
        """

    def blocks(
        self, indices: Ints | None = None, *, teacher: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[SampleBatch]:
        """Yield samples in order, a few thousand at a time; see `read`."""
        index = np.arange(len(self)) if indices is None else indices
        for start in range(0, len(index), _BLOCK):
            yield self.read(index[start : start + _BLOCK], teacher=teacher, columns=columns)

    @abstractmethod
    def rows(self) -> ColumnRows:
        """Return the rows of the columns, from which a lazy Dataset is made."""

    @abstractmethod
    def holds(self, key: str) -> Array:
        """Return which samples may have values of a column, by its on-disk name, shape (S,), bool; nothing is read."""

    @abstractmethod
    def files_of(self, indices: Ints) -> list[str]:
        """Return the name of the file that holds each of some samples."""

    # -- splits --------------------------------------------------------------------------------------------------

    @abstractmethod
    def split_codes(self) -> npt.NDArray[np.uint8]:
        """Return the split of every sample, an index into `mlffstore.data.splits.SPLITS`, shape (S,)."""

    @abstractmethod
    def roots(self) -> npt.NDArray[np.uint64]:
        """Return the root of every sample, shape (S,)."""

    def split_indices(self, split: str | None, teacher: str | None = None) -> Ints:
        """Return the indices of the samples of a split, in order.

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
            index = index[labelled(self, teacher, index)[index]]
        return index

    def as_indices(self, indices: npt.ArrayLike | slice | None) -> Ints:
        """Return the indices that a caller names: of all samples for None."""
        if indices is None:
            return np.arange(len(self))
        if isinstance(indices, slice):
            return np.arange(*indices.indices(len(self)))
        return as_indices(indices, len(self))
