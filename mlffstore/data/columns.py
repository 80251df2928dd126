"""`SampleColumns`: the flat columns of many samples, to be looked at.

This is the part of a batch that everything else in the library reads. Making a batch, choosing from it and converting it
is `mlffstore.data.batch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.data.hashing import content_hash
from mlffstore.data.labels import Labels, choose_teacher
from mlffstore.data.properties import Axis, Property, property_of
from mlffstore.data.schema import STANDARD, Array, Column, label_column
from mlffstore.errors import TeacherError

if TYPE_CHECKING:
    from mlffstore.data.ragged import Ints
    from mlffstore.data.vocabulary import Words


class SampleColumns:
    """S samples with A atoms in all, as flat columns. Made by `mlffstore.SampleBatch`."""

    __slots__ = ("columns", "labels", "masks", "offsets", "properties", "user", "vocabulary")

    #: Columns by name: structure, root, source and sampler codes, and user columns.
    columns: dict[str, Array]
    #: Teacher -> its labels by property, those that it has.
    labels: dict[str, Labels]
    #: Descriptions of the properties among the labels that are not built in.
    properties: dict[str, Property]
    #: Descriptions of the user columns.
    user: dict[str, Column]
    #: Name of a user column -> where it has a value, shape (rows,), bool. A name is absent when every row has a value,
    #: and for floating dtypes, where NaN says so. What is masked out reads as 0 in `columns`.
    masks: dict[str, Array]
    #: Meanings of the codes in `source`, `sampler` and the user columns of strings.
    vocabulary: dict[str, Words]
    #: Start of each sample in the atom axis, shape (S+1,), int64.
    offsets: Ints

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
        """Hash of the seed of each sample, shape (S,), uint64; by default the hash of the sample itself."""
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

    def strings(self, name: str) -> list[str | None]:
        """Return a user column of strings, None where a row has no value."""
        mask = self.masks.get(name)
        words = self.vocabulary[name]
        codes = self.columns[name].tolist()
        if mask is None:
            return [words[code] for code in codes]
        return [words[code] if there else None for code, there in zip(codes, mask.tolist(), strict=True)]

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers with labels here."""
        return tuple(self.labels)

    def property_of(self, name: str) -> Property:
        """Return the property of a label by its name."""
        return property_of(name, self.properties)

    def label_column(self, name: str, teacher: str) -> Column:
        """Return the column of a label that is here under its on-disk name."""
        return label_column(self.property_of(name), teacher, self.labels[teacher][name])

    def label_columns(self) -> list[Column]:
        """Return the columns of all labels under their on-disk names."""
        return [self.label_column(name, teacher) for teacher, named in self.labels.items() for name in named]

    def label(self, name: str, teacher: str | None = None) -> Array:
        """Return one label column.

        Parameters
        ----------
        name : str
            A property, such as "energy" or "charges".
        teacher : str, optional
            Needed when there are several: energies of different teachers have different zeros and are never mixed.

        Raises
        ------
        TeacherError
            If there are no labels, several teachers and none was chosen, or the chosen one lacks this label.
        """
        chosen = choose_teacher(self.teachers, teacher)
        labels = self.labels[chosen]
        if name not in labels:
            raise TeacherError(f"teacher {chosen!r} gave no {name} here; it gave {', '.join(labels) or 'nothing'}")
        return labels[name]

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

    def axis_of(self, name: str) -> Axis:
        """Return whether a column has one row per sample or one row per atom."""
        known = self.user.get(name) or STANDARD.get(name)
        return "sample" if known is None else known.axis
