"""`SampleBatch`: many samples in memory as flat columns, the form in which data moves through the whole library.

It checks shapes and casts dtypes when it is made; whether the *values* may be stored is decided by
`mlffstore.data.rules` at append. It never touches a disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlffstore.data.ase import gather, scatter
from mlffstore.data.casting import cast, float_dtype
from mlffstore.data.columns import SampleColumns
from mlffstore.data.electrons import lowest_multiplicity
from mlffstore.data.labels import DEFAULT_TEACHER, Labels, cast_labels, in_store_units
from mlffstore.data.masks import check_masks, unmask
from mlffstore.data.properties import merge_properties
from mlffstore.data.ragged import Ints, normalise_indices, offsets, row_indices
from mlffstore.data.schema import STANDARD, STRUCTURE, Array, Column, check_teacher_name, user_column
from mlffstore.data.vocabulary import Words, coded_column, encode_strings, holds_strings
from mlffstore.errors import DataError, problems_message
from mlffstore.runtime.words import is_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ase import Atoms

    from mlffstore.data.properties import Property


class SampleBatch(SampleColumns):
    """S samples with A atoms in all, as flat columns.

    Parameters
    ----------
    n_atoms : array_like, shape (S,)
        Atoms of each sample, at least 1 each.
    numbers : array_like, shape (A,)
        Atomic numbers.
    positions : array_like, shape (A, 3)
        Angstrom. float32 and float64 are kept, anything else becomes float64.
    cell : array_like, shape (S, 3, 3), optional
        Angstrom, ROWS are lattice vectors (as in ASE). Zeros by default. Zeroed for samples that are periodic nowhere.
    pbc : array_like, shape (S, 3) or (S,), bool, optional
        False by default. Never inferred from the cell.
    charge : array_like, shape (S,), optional
        In units of e; 0 by default.
    multiplicity : array_like, shape (S,), optional
        Spin multiplicity 2S+1; by default the lowest that the number of electrons allows (1 or 2).
    energy : array_like, shape (S,), optional
        eV, of `teacher`.
    forces : array_like, shape (A, 3), optional
        eV/angstrom, of `teacher`.
    stress : array_like, shape (S, 6), optional
        eV/angstrom^3 in the order xx yy zz yz xz xy, tension positive (ASE's sign), of `teacher`. NaN where it does
        not apply.
    teacher : str, optional
        Name of the teacher that made these labels.
    labels : mapping of str to mapping, optional
        Labels of several teachers, ``{"orb-v2": {"energy": ..., "charges": ...}}``, instead of the three above: any property
        that is built in or registered (`mlffstore.Property`), in its unit. NaN where a sample has none.
    source, sampler : str, sequence of str, or (codes, meanings), optional
        Where the seeds came from and what made the structures.
    root : array_like, shape (S,), uint64, optional
        `content_hash` of the seed of each sample. By default each sample is its own root.
    extra : mapping of str to (array, unit, axis), optional
        User columns: any numeric array with one row per sample or per atom, or one string for each. Rows without a value
        are NaN, and None among strings; in an integer or boolean column, pass a `numpy.ma.MaskedArray`.
    properties : sequence of Property, optional
        Descriptions of properties among the labels that are not registered in this process.
    units : mapping of str to str, optional
        Units of labels that are not given in the unit of their property: ``{"dipole": "Debye"}``. They are converted.

    Raises
    ------
    DataError
        With all problems found, when shapes do not fit together or dtypes cannot be cast safely.

    Examples
    --------
    >>> batch = SampleBatch(n_atoms=[1, 2], numbers=[2, 1, 1], positions=[[0, 0, 0], [0, 0, 0], [0, 0, 0.74]])
    >>> len(batch), batch.n_atoms_total
    (2, 3)
    >>> batch[1].numbers
    array([1, 1], dtype=uint8)
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        n_atoms: npt.ArrayLike,
        numbers: npt.ArrayLike,
        positions: npt.ArrayLike,
        cell: npt.ArrayLike | None = None,
        pbc: npt.ArrayLike | None = None,
        charge: npt.ArrayLike | None = None,
        multiplicity: npt.ArrayLike | None = None,
        energy: npt.ArrayLike | None = None,
        forces: npt.ArrayLike | None = None,
        stress: npt.ArrayLike | None = None,
        teacher: str = DEFAULT_TEACHER,
        labels: Mapping[str, Mapping[str, npt.ArrayLike]] | None = None,
        source: str | Sequence[str] | tuple[npt.ArrayLike, Sequence[str]] = "unknown",
        sampler: str | Sequence[str] | tuple[npt.ArrayLike, Sequence[str]] = "unknown",
        root: npt.ArrayLike | None = None,
        extra: Mapping[str, tuple[npt.ArrayLike, str, str]] | None = None,
        properties: Sequence[Property] = (),
        units: Mapping[str, str] | None = None,
    ) -> None:
        problems: list[str] = []
        counts = cast("n_atoms", n_atoms, "int32", problems)
        if counts.ndim != 1:
            problems.append(f"n_atoms: expected one dimension, got shape {counts.shape}")
        elif len(counts) and counts.min() < 1:
            bad = int(np.argmax(counts < 1))
            problems.append(f"n_atoms: expected at least 1 everywhere, got {counts[bad]} in sample {bad}")
        if problems:
            raise DataError(problems_message("these columns are not samples:", problems))
        n, total = len(counts), int(counts.sum(dtype=np.int64))
        rows = {"sample": n, "atom": total}

        def column(spec: Column, values: npt.ArrayLike, dtype: str | None = None) -> Array:
            array = cast(spec.name, values, dtype or spec.dtype, problems)
            expected = (rows[spec.axis], *spec.shape)
            if array.shape != expected:
                problems.append(
                    f"{spec.name}: expected shape {expected} ({', '.join(spec.dims)}; {n} samples, {total} atoms), "
                    f"got {array.shape}"
                )
                return np.zeros(expected, array.dtype)
            return array

        number_array = column(STRUCTURE["numbers"], numbers)
        position_array = column(STRUCTURE["positions"], positions, float_dtype(positions))
        pbc_array = np.zeros((n, 3), bool) if pbc is None else np.asarray(pbc)
        if pbc_array.shape == (n,) and n:
            pbc_array = np.repeat(pbc_array[:, None], 3, axis=1)
        pbc_array = column(STRUCTURE["pbc"], pbc_array)
        cell_array = np.zeros((n, 3, 3)) if cell is None else column(STRUCTURE["cell"], cell)
        molecular = ~np.any(pbc_array, axis=1)
        if molecular.any() and cell_array[molecular].any():
            cell_array = np.where(molecular[:, None, None], 0.0, cell_array)
        charge_array = np.zeros(n, np.int16) if charge is None else column(STRUCTURE["charge"], charge)
        starts = offsets(counts)
        if multiplicity is None:
            multiplicity_array = lowest_multiplicity(number_array, charge_array, starts)
        else:
            multiplicity_array = column(STRUCTURE["multiplicity"], multiplicity)

        self.columns = {
            "n_atoms": counts,
            "numbers": number_array,
            "positions": position_array,
            "cell": cell_array,
            "pbc": pbc_array,
            "charge": charge_array,
            "multiplicity": multiplicity_array,
        }
        if root is not None:
            self.columns["root"] = column(STANDARD["root"], root)
        self.vocabulary = {}
        for name, value in (("source", source), ("sampler", sampler)):
            self.columns[name], self.vocabulary[name] = coded_column(name, value, n, problems)
        self.labels, self.properties = {}, {one.name: one for one in properties if not one.built_in}
        given = {name: v for name, v in (("energy", energy), ("forces", forces), ("stress", stress)) if v is not None}
        if given and labels:
            problems.append("labels: expected either labels={teacher: ...} or energy, forces and stress, got both")
        named_labels = labels or ({teacher: given} if given else {})
        if units:
            named_labels = in_store_units(named_labels, units, self.properties, problems)
        for teacher_name, named in named_labels.items():
            check_teacher_name(teacher_name)
            self.labels[teacher_name] = cast_labels(teacher_name, named, rows, self.properties, problems)
        self.user, self.masks = {}, {}
        for name, (values, unit, axis) in (extra or {}).items():
            if axis not in ("sample", "atom"):
                problems.append(f"{name}: expected axis 'sample' or 'atom', got {axis!r}")
                continue
            if any(name in named for named in self.labels.values()):
                problems.append(f"{name}: expected a label or a user column of this name, got both; rename the column")
                continue
            words = None
            if holds_strings(values):
                array, mask, words = encode_strings(name, values, problems)
                self.vocabulary[name] = words
            else:
                array, mask = unmask(name, values, problems)
            spec = user_column(name, array, unit, "sample" if axis == "sample" else "atom", coded=words is not None)
            self.user[name] = spec
            self.columns[name] = column(spec, array)
            if mask is not None:
                self.masks[name] = mask
        if problems:
            raise DataError(problems_message("these columns are not samples:", problems))
        self.offsets = starts
        self._describe()

    def _describe(self) -> None:
        """Keep the descriptions of those properties that are not built in and that some teacher has, and no others."""
        names = {name for named in self.labels.values() for name in named}
        self.properties = {name: spec for name in names if not (spec := self.property_of(name)).built_in}

    # -- other batches -------------------------------------------------------------------------------------------

    def _replace(
        self,
        columns: dict[str, Array],
        labels: dict[str, Labels],
        vocabulary: dict[str, Words] | None = None,
        starts: Ints | None = None,
        masks: dict[str, Array] | None = None,
    ) -> SampleBatch:
        return assemble(
            columns,
            labels,
            self.user,
            self.vocabulary if vocabulary is None else vocabulary,
            self.offsets if starts is None else starts,
            self.masks if masks is None else masks,
            self.properties,
        )

    def astype(self, precision: str) -> SampleBatch:
        """Return the batch with positions in `precision` (itself if nothing changes).

        A stored hash is dropped when the positions change: it is a hash of what is stored.
        """
        if self.positions.dtype == precision:
            return self
        columns = {k: v for k, v in self.columns.items() if k != "content_hash"}
        return self._replace(columns | {"positions": self.positions.astype(precision)}, self.labels)

    def hashed(self, *, anew: bool = False) -> SampleBatch:
        """Return the batch with `content_hash` and `root` as columns; `anew` computes hashes again that are there."""
        columns = {name: values for name, values in self.columns.items() if not (anew and name == "content_hash")}
        if "content_hash" in columns and "root" in columns:
            return self
        hashes = self._replace(columns, self.labels).content_hash
        return self._replace({"root": hashes, **columns, "content_hash": hashes}, self.labels)

    def with_labels(self, teacher: str, /, **labels: npt.ArrayLike) -> SampleBatch:
        """Return the batch with labels of `teacher` instead of those that it has of this teacher.

        Parameters
        ----------
        teacher : str
        **labels : array_like
            Labels by property: `energy`, `forces`, `charges`, any that is built in or registered.
        """
        return self.with_properties(teacher, labels)

    def with_properties(
        self, teacher: str, labels: Mapping[str, npt.ArrayLike], properties: Mapping[str, Property] | None = None
    ) -> SampleBatch:
        """Return the batch with labels of `teacher` instead of those that it has of this teacher.

        Parameters
        ----------
        teacher : str
        labels : mapping of str to array_like
            Labels by property.
        properties : mapping of str to Property, optional
            Descriptions of properties that are not registered in this process.
        """
        check_teacher_name(teacher)
        problems: list[str] = []
        out = self._replace(self.columns, {})
        out.properties = merge_properties([self.properties, properties or {}])
        rows = {"sample": len(self), "atom": self.n_atoms_total}
        out.labels = self.labels | {teacher: cast_labels(teacher, labels, rows, out.properties, problems)}
        problems += [f"{name}: expected a label or a user column of this name, got both" for name in labels
                     if name in self.user]  # fmt: skip
        if problems:
            raise DataError(problems_message(f"these are not labels of {teacher!r}:", problems))
        out._describe()
        return out

    def with_columns(self, **columns: npt.ArrayLike) -> SampleBatch:
        """Return the batch with the standard sample columns `root`, `charge` or `multiplicity` replaced."""
        new, problems = dict(self.columns), list[str]()
        for name, values in columns.items():
            if name not in ("root", "charge", "multiplicity"):
                raise DataError(f"with_columns: expected root, charge or multiplicity, got {name!r}")
            array = cast(name, values, STANDARD[name].dtype, problems)
            if array.shape not in ((), (1,), (len(self),)):
                problems.append(f"{name}: expected one value or shape ({len(self)},), got {array.shape}")
                continue
            new[name] = np.ascontiguousarray(np.broadcast_to(array, (len(self),)))
            if name != "root":
                new.pop("content_hash", None)
        if problems:
            raise DataError(problems_message("these columns are not of the samples:", problems))
        return self._replace(new, self.labels)

    def check_masks(self) -> None:
        """Raise `DataError` if a mask that was set by hand does not fit its column."""
        if self.masks:
            check_masks(self.masks, self.user, {"sample": len(self), "atom": self.n_atoms_total})

    def with_source(self, source: str, sampler: str) -> SampleBatch:
        """Return the batch with one source and one sampler for all samples."""
        for name, word in (("source", source), ("sampler", sampler)):
            if not isinstance(word, str) or not is_text(word):
                raise DataError(f"with_source: {name}: expected text without NUL and lone surrogates, got {word!r}")
        zeros = np.zeros(len(self), np.uint32)
        words: dict[str, Words] = {"source": (source,), "sampler": (sampler,)}
        return self._replace(self.columns | dict.fromkeys(words, zeros), self.labels, words)

    def structures(self) -> SampleBatch:
        """Return the batch without labels."""
        return self._replace(self.columns, {})

    def take(self, indices: npt.ArrayLike) -> SampleBatch:
        """Return the samples at `indices` (integers in any order, duplicates allowed, or a boolean mask)."""
        index = np.asarray(indices)
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise IndexError(f"boolean mask: expected shape ({len(self)},), got {index.shape}")
            index = np.flatnonzero(index)
        index = normalise_indices(index, len(self))
        counts = self.n_atoms[index]
        atoms = row_indices(self.offsets[index], counts)

        def pick(axis: str, array: Array) -> Array:
            return array[index] if axis == "sample" else array[atoms]

        return self._replace(
            {name: pick(self.axis_of(name), array) for name, array in self.columns.items()},
            {
                teacher: {name: pick(self.property_of(name).axis, array) for name, array in named.items()}
                for teacher, named in self.labels.items()
            },
            starts=offsets(counts),
            masks={
                name: picked
                for name, mask in self.masks.items()
                if not (picked := pick(self.user[name].axis, mask)).all()
            },
        )

    def __getitem__(self, item: int | slice) -> SampleBatch:
        if isinstance(item, slice):
            start, stop, step = item.indices(len(self))
            return self.take(np.arange(start, stop, step))
        return self.take([item])

    def __iter__(self) -> Iterator[SampleBatch]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        teachers = ", ".join(self.teachers) or "no labels"
        return f"<SampleBatch: {len(self):,} samples, {self.n_atoms_total:,} atoms, {teachers}>"

    # -- ASE -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_ase(
        cls,
        frames: Sequence[Atoms],
        *,
        teacher: str = DEFAULT_TEACHER,
        labels: Sequence[Mapping[str, Any]] | None = None,
        source: str | Sequence[str] = "unknown",
        sampler: str | Sequence[str] = "unknown",
        root: npt.ArrayLike | None = None,
        units: Mapping[str, str] | None = None,
    ) -> SampleBatch:
        """Gather ASE frames into columns.

        Labels come from the results that each frame's calculator already holds (nothing is computed), or from
        `labels`. Every result counts that is a registered property; those that ASE does not know are read from `info` and
        `arrays`. A frame without a label has NaN there; a label that no frame has makes no column.
        `info["charge"]` and `info["multiplicity"]` (or "spin") of a frame are taken over.

        Parameters
        ----------
        frames : sequence of ase.Atoms
        teacher : str, optional
            Name of the teacher that made these labels.
        labels : sequence of mapping, optional
            For each frame "energy" (eV), "forces" (N, 3) (eV/angstrom) and "stress" (6,) or (3, 3) (eV/angstrom^3,
            tension positive), instead of the calculator's results.
        source, sampler : str or sequence of str, optional
            Where the seeds came from and what made the structures.
        root : array_like, shape (S,), uint64, optional
            Hash of the seed of each frame.
        units : mapping of str to str, optional
            Units of labels that are not in ASE's units, as for `SampleBatch`.

        Raises
        ------
        DataError
            If a frame is not an `ase.Atoms`, has no atoms, has a calculator with results of another structure (one that
            several frames share, or that computed before the frame was changed), or has labels of the wrong shape; every
            problem is listed.
        """
        columns = gather(frames, teacher=teacher, labels=labels)
        return cls(**columns, source=source, sampler=sampler, root=root, units=units)

    def to_ase(self, teacher: str | None = None) -> list[Atoms]:
        """Return the samples as ASE frames, with a SinglePointCalculator that holds the labels of `teacher`.

        Parameters
        ----------
        teacher : str, optional
            By default each frame gets the labels of the only teacher that labelled it.

        Returns
        -------
        list of ase.Atoms
            Charge and multiplicity are in `info`.

        Raises
        ------
        TeacherError
            If no teacher is named and several teachers labelled one frame.
        """
        return scatter(self, teacher)


def assemble(
    columns: dict[str, Array],
    labels: dict[str, Labels],
    user: dict[str, Column],
    vocabulary: dict[str, Words],
    starts: Ints | None = None,
    masks: dict[str, Array] | None = None,
    properties: dict[str, Property] | None = None,
) -> SampleBatch:
    """Return a batch of columns that are known to fit together, without checking them again.

    Parameters
    ----------
    columns, labels, user, vocabulary, masks, properties
        As the attributes of the batch; see `mlffstore.data.columns.SampleColumns`. They are not copied.
    starts : ndarray, shape (S+1,), int64, optional
        Start of each sample in the atom axis; computed from ``columns["n_atoms"]`` by default.
    """
    batch = SampleBatch.__new__(SampleBatch)
    batch.columns, batch.labels, batch.user, batch.vocabulary = columns, labels, user, vocabulary
    batch.masks = {} if masks is None else masks
    batch.properties = {} if properties is None else properties
    batch.offsets = offsets(columns["n_atoms"]) if starts is None else starts
    return batch
