"""`SampleBatch`: many samples in memory as flat columns, the form in which data moves through the whole library.

It checks shapes and casts dtypes when it is made; whether the *values* may be stored is decided by
`mlffstore.data.rules` at append. It never touches a disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlffstore.data.hashing import content_hash
from mlffstore.data.masks import check_masks, join_masks, missing_rows, unmask
from mlffstore.data.ragged import Ints, offsets, row_indices
from mlffstore.data.schema import CODED, LABELS, STANDARD, STRUCTURE, Array, Column, check_teacher_name, user_column
from mlffstore.errors import DataError, TeacherError, problems_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ase import Atoms

#: Name of the teacher when nobody gave one.
DEFAULT_TEACHER = "reference"
Labels = dict[str, Array]


class SampleBatch:
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
        Who made these labels.
    labels : mapping of str to mapping, optional
        Labels of several teachers, ``{"orb-v2": {"energy": ..., "forces": ...}}``, instead of the three above.
    source, sampler : str, sequence of str, or (codes, meanings), optional
        Where the seeds came from and what made the structures.
    root : array_like, shape (S,), uint64, optional
        `content_hash` of the seed of each sample. By default a sample is its own root.
    extra : mapping of str to (array, unit, axis), optional
        User columns: any numeric array with one row per sample or per atom. Rows without a value are NaN; in an integer
        or boolean column, pass a `numpy.ma.MaskedArray`.

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

    __slots__ = ("columns", "labels", "masks", "offsets", "user", "vocabulary")

    #: Columns by name: structure, root, source and sampler codes, and user columns.
    columns: dict[str, Array]
    #: Teacher -> {"energy", "forces", "stress"}, those that it has.
    labels: dict[str, Labels]
    #: Descriptions of the user columns.
    user: dict[str, Column]
    #: Name of a user column -> where it has a value, shape (rows,), bool. A name is absent when every row has a value,
    #: and for floating dtypes, where NaN says so. What is masked out reads as 0 in `columns`.
    masks: dict[str, Array]
    #: Meanings of the codes in `source` and `sampler`.
    vocabulary: dict[str, tuple[str, ...]]
    #: Start of each sample in the atom axis, shape (S+1,), int64.
    offsets: Ints

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
    ) -> None:
        problems: list[str] = []
        counts = _cast("n_atoms", n_atoms, "int32", problems)
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
            array = _cast(spec.name, values, dtype or spec.dtype, problems)
            expected = (rows[spec.axis], *spec.shape)
            if array.shape != expected:
                problems.append(
                    f"{spec.name}: expected shape {expected} ({', '.join(spec.dims)}; {n} samples, {total} atoms), "
                    f"got {array.shape}"
                )
                return np.zeros(expected, array.dtype)
            return array

        number_array = column(STRUCTURE["numbers"], numbers)
        position_array = column(STRUCTURE["positions"], positions, _float_dtype(positions))
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
            multiplicity_array = _lowest_multiplicity(number_array, charge_array, starts)
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
            codes, self.vocabulary[name] = _codes(name, value, n, problems)
            self.columns[name] = codes
        self.labels = {}
        given = {name: v for name, v in (("energy", energy), ("forces", forces), ("stress", stress)) if v is not None}
        if given and labels:
            problems.append("labels: expected either labels={teacher: ...} or energy, forces and stress, got both")
        for who, named in (labels or ({teacher: given} if given else {})).items():
            check_teacher_name(who)
            unknown = set(named) - set(LABELS)
            if unknown:
                problems.append(f"labels[{who!r}]: expected {', '.join(LABELS)}, got {', '.join(sorted(unknown))}")
            self.labels[who] = {name: column(LABELS[name], named[name]) for name in LABELS if name in named}
        self.user, self.masks = {}, {}
        for name, (values, unit, axis) in (extra or {}).items():
            array, mask = unmask(name, values, problems)
            if axis not in ("sample", "atom"):
                problems.append(f"{name}: expected axis 'sample' or 'atom', got {axis!r}")
                continue
            spec = user_column(name, array, unit, "sample" if axis == "sample" else "atom")
            self.user[name] = spec
            self.columns[name] = column(spec, array)
            if mask is not None:
                self.masks[name] = mask
        if problems:
            raise DataError(problems_message("these columns are not samples:", problems))
        self.offsets = starts

    # -- shape and columns ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.columns["n_atoms"])

    @property
    def n_atoms_total(self) -> int:
        """Atoms of all samples together."""
        return int(self.offsets[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        labels = [array for named in self.labels.values() for array in named.values()]
        return sum(array.nbytes for array in (*labels, *self.columns.values(), *self.masks.values()))

    @property
    def n_atoms(self) -> Array:
        """Atoms of each sample, shape (S,), int32."""
        return self.columns["n_atoms"]

    @property
    def numbers(self) -> Array:
        """Atomic numbers, shape (A,), uint8."""
        return self.columns["numbers"]

    @property
    def positions(self) -> Array:
        """Positions, shape (A, 3), angstrom."""
        return self.columns["positions"]

    @property
    def cell(self) -> Array:
        """Cells, shape (S, 3, 3), float64, angstrom, rows are lattice vectors."""
        return self.columns["cell"]

    @property
    def pbc(self) -> Array:
        """Periodicity, shape (S, 3), bool."""
        return self.columns["pbc"]

    @property
    def charge(self) -> Array:
        """Total charges, shape (S,), int16, e."""
        return self.columns["charge"]

    @property
    def multiplicity(self) -> Array:
        """Spin multiplicities, shape (S,), int16."""
        return self.columns["multiplicity"]

    @property
    def content_hash(self) -> Array:
        """Hash of each structure in the present dtype of the positions, shape (S,), uint64."""
        if "content_hash" in self.columns:
            return self.columns["content_hash"]
        return content_hash(
            self.n_atoms, self.numbers, self.positions, self.cell, self.pbc, self.charge, self.multiplicity
        )

    @property
    def root(self) -> Array:
        """Hash of the seed of each sample, shape (S,), uint64; the sample's own where nobody said."""
        if "root" in self.columns:
            return self.columns["root"]
        return self.content_hash

    @property
    def source(self) -> list[str]:
        """Where each seed came from."""
        return self.meaning("source")

    @property
    def sampler(self) -> list[str]:
        """What made each structure."""
        return self.meaning("sampler")

    def meaning(self, name: str) -> list[str]:
        """Return the codes of the column `name` as strings."""
        words = self.vocabulary[name]
        return [words[code] for code in self.columns[name].tolist()]

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers with labels here."""
        return tuple(self.labels)

    def label(self, name: str, teacher: str | None = None) -> Array:
        """Return one label column.

        Parameters
        ----------
        name : {"energy", "forces", "stress"}
        teacher : str, optional
            Needed when there are several: energies of different teachers have different zeros and are never mixed.

        Raises
        ------
        TeacherError
            If there are no labels, several teachers and none was chosen, or the chosen one lacks this label.
        """
        who = choose_teacher(self.teachers, teacher)
        if name not in self.labels[who]:
            raise TeacherError(
                f"teacher {who!r} gave no {name} here; it gave {', '.join(self.labels[who]) or 'nothing'}"
            )
        return self.labels[who][name]

    @property
    def energy(self) -> Array:
        """Energies of the only teacher, shape (S,), float64, eV."""
        return self.label("energy")

    @property
    def forces(self) -> Array:
        """Forces of the only teacher, shape (A, 3), float32, eV/angstrom."""
        return self.label("forces")

    @property
    def stress(self) -> Array:
        """Stresses of the only teacher, shape (S, 6), float32, eV/angstrom^3, tension positive."""
        return self.label("stress")

    # -- other batches -------------------------------------------------------------------------------------------

    def _replace(
        self,
        columns: dict[str, Array],
        labels: dict[str, Labels],
        vocabulary: dict[str, tuple[str, ...]] | None = None,
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
        )

    def astype(self, precision: str) -> SampleBatch:
        """Return the batch with positions in `precision` (itself if nothing changes).

        A stored hash is dropped when the positions change: it is a hash of what is stored.
        """
        if self.positions.dtype == precision:
            return self
        columns = {k: v for k, v in self.columns.items() if k != "content_hash"}
        return self._replace(columns | {"positions": self.positions.astype(precision)}, self.labels)

    def hashed(self) -> SampleBatch:
        """Return the batch with `content_hash` and `root` as columns, so that they are computed once."""
        if "content_hash" in self.columns and "root" in self.columns:
            return self
        own = self.content_hash
        return self._replace({"root": own, **self.columns, "content_hash": own}, self.labels)

    def with_labels(self, teacher: str, **labels: npt.ArrayLike) -> SampleBatch:
        """Return the batch with the labels `energy`, `forces`, `stress` of `teacher` added or replaced."""
        check_teacher_name(teacher)
        problems: list[str] = []
        named = {name: _cast(name, labels[name], LABELS[name].dtype, problems) for name in LABELS if name in labels}
        for name, array in named.items():
            spec = LABELS[name]
            expected = (len(self) if spec.axis == "sample" else self.n_atoms_total, *spec.shape)
            if array.shape != expected:
                problems.append(f"{name}: expected shape {expected}, got {array.shape}")
        problems += [f"{name}: expected one of {', '.join(LABELS)}" for name in labels if name not in LABELS]
        if problems:
            raise DataError(problems_message(f"these are not labels of {teacher!r}:", problems))
        return self._replace(self.columns, self.labels | {teacher: named})

    def with_columns(self, **columns: npt.ArrayLike) -> SampleBatch:
        """Return the batch with the standard sample columns `root`, `charge` or `multiplicity` replaced."""
        new = dict(self.columns)
        for name, values in columns.items():
            if name not in ("root", "charge", "multiplicity"):
                raise DataError(f"with_columns: expected root, charge or multiplicity, got {name!r}")
            new[name] = np.ascontiguousarray(np.broadcast_to(np.asarray(values, STANDARD[name].dtype), (len(self),)))
            if name != "root":
                new.pop("content_hash", None)
        return self._replace(new, self.labels)

    def check_masks(self) -> None:
        """Raise `DataError` if a mask that was set by hand does not fit its column."""
        if self.masks:
            check_masks(self.masks, self.user, {"sample": len(self), "atom": self.n_atoms_total})

    def with_source(self, source: str, sampler: str) -> SampleBatch:
        """Return the batch with one source and one sampler for all samples."""
        zeros = np.zeros(len(self), np.uint16)
        return self._replace(
            self.columns | {"source": zeros, "sampler": zeros},
            self.labels,
            {"source": (source,), "sampler": (sampler,)},
        )

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

        def pick(spec_axis: str, array: Array) -> Array:
            return array[index] if spec_axis == "sample" else array[atoms]

        return self._replace(
            {name: pick(self._axis(name), array) for name, array in self.columns.items()},
            {
                who: {name: pick(LABELS[name].axis, array) for name, array in named.items()}
                for who, named in self.labels.items()
            },
            starts=offsets(counts),
            masks={
                name: picked
                for name, mask in self.masks.items()
                if not (picked := pick(self.user[name].axis, mask)).all()
            },
        )

    def _axis(self, name: str) -> str:
        return self.user[name].axis if name in self.user else STANDARD[name].axis if name in STANDARD else "sample"

    def __getitem__(self, item: int | slice) -> SampleBatch:
        if isinstance(item, slice):
            start, stop, step = item.indices(len(self))
            return self.take(np.arange(start, stop, step))
        return self.take([item])

    def __iter__(self) -> Iterator[SampleBatch]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        who = ", ".join(self.teachers) or "no labels"
        return f"<SampleBatch: {len(self):,} samples, {self.n_atoms_total:,} atoms, {who}>"

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
    ) -> SampleBatch:
        """Gather ASE frames into columns.

        Labels come from the results that each frame's calculator already holds (nothing is computed), or from
        `labels`. A frame without a label has NaN there; a label that no frame has makes no column.
        `info["charge"]` and `info["multiplicity"]` (or "spin") of a frame are taken over.

        Parameters
        ----------
        frames : sequence of ase.Atoms
        teacher : str, optional
            Whose labels these are.
        labels : sequence of mapping, optional
            For each frame "energy" (eV), "forces" (N, 3) (eV/angstrom) and "stress" (6,) or (3, 3) (eV/angstrom^3,
            tension positive), instead of the calculator's results.
        source, sampler : str or sequence of str, optional
            Where the seeds came from and what made the structures.
        root : array_like, shape (S,), uint64, optional
            Hash of the seed of each frame.

        Raises
        ------
        DataError
            If a frame is no `ase.Atoms`, has no atoms, or labels of the wrong shape; every problem is listed.
        """
        from mlffstore.data.ase import gather

        return cls(**gather(frames, teacher=teacher, labels=labels), source=source, sampler=sampler, root=root)

    def to_ase(self, teacher: str | None = None) -> list[Atoms]:
        """Return the samples as ASE frames, with a SinglePointCalculator that holds the labels of `teacher`.

        With several teachers and none named, each frame gets the labels of the only teacher that labelled it;
        a frame that several labelled is an error. Charge and multiplicity are in `info`.
        """
        from mlffstore.data.ase import scatter

        return scatter(self, teacher)


def assemble(
    columns: dict[str, Array],
    labels: dict[str, Labels],
    user: dict[str, Column],
    vocabulary: dict[str, tuple[str, ...]],
    starts: Ints | None = None,
    masks: dict[str, Array] | None = None,
) -> SampleBatch:
    """Make a batch of columns that are known to fit together, without looking at them again."""
    batch = SampleBatch.__new__(SampleBatch)
    batch.columns, batch.labels, batch.user, batch.vocabulary = columns, labels, user, vocabulary
    batch.masks = {} if masks is None else masks
    batch.offsets = offsets(columns["n_atoms"]) if starts is None else starts
    return batch


def concatenate(batches: Sequence[SampleBatch]) -> SampleBatch:
    """Join batches in order. What some of them lack is missing there: labels and user columns are NaN or masked.

    Raises
    ------
    DataError
        If there is nothing to join, or a user column is described differently in two batches.
    """
    batches = [batch for batch in batches if len(batch)] or list(batches[:1])
    if not batches:
        raise DataError("concatenate: expected at least one batch, got none")
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    user = merge_user_columns([batch.user for batch in batches])
    rooted = any("root" in batch.columns for batch in batches)
    hashed = all("content_hash" in batch.columns for batch in batches)
    names = [name for name in first.columns if name not in ("root", "content_hash", *CODED) and name not in user]
    columns = {name: np.concatenate([batch.columns[name] for batch in batches]) for name in names}
    if rooted:
        columns["root"] = np.concatenate([batch.root for batch in batches])
    if hashed:
        columns["content_hash"] = np.concatenate([batch.columns["content_hash"] for batch in batches])
    vocabulary = {}
    for name in first.vocabulary:
        columns[name], vocabulary[name] = merge_codes([(b.columns[name], b.vocabulary[name]) for b in batches])
    labels: dict[str, Labels] = {}
    for who in dict.fromkeys(who for batch in batches for who in batch.labels):
        present = {name for batch in batches for name in batch.labels.get(who, ())}
        labels[who] = {
            name: np.concatenate([batch.labels.get(who, {}).get(name, missing_label(name, batch)) for batch in batches])
            for name in LABELS
            if name in present
        }
    masks: dict[str, Array] = {}
    for name, column in user.items():
        rows = [len(batch) if column.axis == "sample" else batch.n_atoms_total for batch in batches]
        columns[name] = np.concatenate(
            [
                batch.columns[name] if name in batch.user else missing_rows(column, n)
                for batch, n in zip(batches, rows, strict=True)
            ]
        )
        parts = [(n, name in batch.user, batch.masks.get(name)) for batch, n in zip(batches, rows, strict=True)]
        if (mask := join_masks(column, parts)) is not None:
            masks[name] = mask
    return assemble(columns, labels, user, vocabulary, masks=masks)


def merge_user_columns(descriptions: Iterable[Mapping[str, Column]]) -> dict[str, Column]:
    """Return the user columns of several batches together.

    Raises
    ------
    DataError
        If one name has two dtypes, shapes, axes or units.
    """
    merged: dict[str, Column] = {}
    for columns in descriptions:
        for name, column in columns.items():
            known = merged.setdefault(name, column)
            if known is not column and not known.same_kind(column):
                raise DataError(
                    f"user column {name!r}: expected {known.dtype} {known.dims} in {known.unit!r} as in the samples before, "
                    f"got {column.dtype} {column.dims} in {column.unit!r}; convert it or rename it"
                )
    return merged


def missing_label(name: str, batch: SampleBatch) -> Array:
    """Return the NaN column that stands for a label that `batch` does not have."""
    spec = LABELS[name]
    rows = len(batch) if spec.axis == "sample" else batch.n_atoms_total
    return np.full((rows, *spec.shape), np.nan, spec.dtype)


def merge_codes(parts: Sequence[tuple[Array, tuple[str, ...]]]) -> tuple[Array, tuple[str, ...]]:
    """Join coded columns whose vocabularies differ into one column with one vocabulary, in order of appearance."""
    meanings = tuple(dict.fromkeys(word for _, words in parts for word in words))
    if len(meanings) > np.iinfo(np.uint16).max:
        raise DataError(f"vocabulary: expected at most 65535 different strings, got {len(meanings)}")
    lookup = {word: code for code, word in enumerate(meanings)}
    joined = [np.array([lookup[word] for word in words] or [0], np.uint16)[codes] for codes, words in parts]
    return np.concatenate(joined), meanings


def choose_teacher(available: Sequence[str], teacher: str | None) -> str:
    """Return the teacher to use: the one asked for, or the only one there is.

    Raises
    ------
    TeacherError
        If there is none, the one asked for is not there, or there are several and none was asked for.
    """
    if teacher is not None:
        if teacher not in available:
            raise TeacherError(
                f"teacher: expected one of {', '.join(available) or '(no labels here)'}, got {teacher!r}"
            )
        return teacher
    if len(available) == 1:
        return available[0]
    if not available:
        raise TeacherError("there are no labels here: label the samples first")
    raise TeacherError(
        f"there are labels of several teachers ({', '.join(available)}), and their energies have different zeros: "
        "choose one with teacher=..."
    )


def normalise_indices(index: Array, n: int) -> Ints:
    """Return integer indices with negative ones counted from the end; raise IndexError for any outside."""
    if index.ndim != 1:
        raise IndexError(f"indices: expected one dimension, got shape {index.shape}")
    if len(index) and index.dtype.kind not in "iu":
        raise IndexError(f"indices: expected integers, got {index.dtype}")
    index = index.astype(np.int64)
    if len(index) and (index.min() < -n or index.max() >= n):
        bad = int(index[(index < -n) | (index >= n)][0])
        raise IndexError(f"index {bad} is outside the {n} samples")
    return np.where(index < 0, index + n, index)


def _float_dtype(values: npt.ArrayLike) -> str:
    return "float32" if getattr(values, "dtype", None) == np.float32 else "float64"


def _cast(name: str, values: npt.ArrayLike, dtype: str, problems: list[str]) -> Array:
    """Return `values` as a contiguous array of `dtype`, with a problem noted if that would change them."""
    if np.ma.is_masked(values):
        problems.append(
            f"{name}: expected a value everywhere, got a masked array with masked values; fill or drop them"
        )
    try:
        array = np.asarray(values)
        if array.dtype == dtype:
            return np.ascontiguousarray(array) if array.ndim else array
        target = np.dtype(dtype)
        if array.dtype.kind not in "biuf":
            raise TypeError
    except (TypeError, ValueError):
        problems.append(f"{name}: expected numbers of dtype {dtype}, got {type(values).__name__} of something else")
        return np.zeros(np.shape(values) if not isinstance(values, list) else (len(values),), dtype)
    if target.kind in "iu" and array.size:
        limits = np.iinfo(target)
        if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
            problems.append(f"{name}: expected integers, got fractions")
        elif not (limits.min <= array.min() and array.max() <= limits.max):
            problems.append(f"{name}: expected values within {dtype}, got {array.min()} to {array.max()}")
    with np.errstate(invalid="ignore", over="ignore"):
        return np.ascontiguousarray(array.astype(target)) if array.ndim else array.astype(target)


def _codes(name: str, value: Any, n: int, problems: list[str]) -> tuple[Array, tuple[str, ...]]:
    """Turn a string, a list of strings or (codes, meanings) into codes and meanings."""
    if isinstance(value, str):
        return np.zeros(n, np.uint16), (value,)
    if isinstance(value, tuple) and len(value) == 2 and not isinstance(value[0], str):
        codes, meanings = _cast(name, value[0], "uint16", problems), tuple(str(word) for word in value[1])
        if codes.shape != (n,) or (n and int(codes.max()) >= len(meanings)):
            problems.append(f"{name}: expected {n} codes below {len(meanings)}, got shape {codes.shape}")
            return np.zeros(n, np.uint16), ("unknown",)
        return codes, meanings
    words = list(value)
    if len(words) != n or not all(isinstance(word, str) for word in words):
        problems.append(f"{name}: expected one string a sample ({n}), got {len(words)} entries")
        return np.zeros(n, np.uint16), ("unknown",)
    return (
        merge_codes([(np.zeros(1, np.uint16), (word,)) for word in words])
        if words
        else (
            np.zeros(0, np.uint16),
            ("unknown",),
        )
    )


def _lowest_multiplicity(numbers: Array, charge: Array, starts: Ints) -> Array:
    """Return 1 where the number of electrons is even and 2 where it is odd, shape (S,), int16."""
    if len(starts) == 1:
        return np.zeros(0, np.int16)
    electrons = np.add.reduceat(numbers.astype(np.int64), starts[:-1]) - charge
    return (1 + electrons % 2).astype(np.int16)
