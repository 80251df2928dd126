"""The rows of a table of samples: the figures of a block of samples as Arrow columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.labels import has_label
from mlffstore.data.ragged import reduce_rows
from mlffstore.data.splits import SPLITS
from mlffstore.lazy.reductions import count_elements

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Array, Column
    from mlffstore.lazy.blocks import Block

#: Variables of a Dataset that the figures of structures and their origin need.
STRUCTURE = ("n_atoms", "numbers", "cell", "pbc", "charge", "multiplicity", "split", "source", "sampler", "root")


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """A variable of labels: the property, and the teachers along its second axis, or its only one."""

    variable: str
    spec: Property
    teachers: tuple[str, ...]
    shared: bool


@dataclass(frozen=True, slots=True)
class UserPlan:
    """A user column along samples: its name in the table, its mask, and the strings that its codes stand for."""

    name: str
    column: Column
    mask: str | None
    words: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Figures:
    """A function of a block of samples: their rows of the table.

    Attributes
    ----------
    teachers : tuple of str
        All teachers, in the order of their columns.
    labels : tuple of LabelPlan
    user : tuple of UserPlan
    sources, samplers : tuple of str
        Strings of the coded columns.
    """

    teachers: tuple[str, ...]
    labels: tuple[LabelPlan, ...]
    user: tuple[UserPlan, ...]
    sources: tuple[str, ...]
    samplers: tuple[str, ...]

    def __call__(self, block: Block) -> pa.Table:
        """Return the rows of a block, without the column `sample`."""
        import pyarrow as pa

        columns: dict[str, tuple[Any, str, str]] = self._structure(block)
        columns |= self._labels(block)
        columns |= {plan.name: (_user(plan, block), plan.column.unit, plan.column.long_name) for plan in self.user}
        fields = [
            pa.field(name, array.type, metadata={"unit": unit, "description": text})
            for name, (array, unit, text) in columns.items()
        ]
        return pa.Table.from_arrays([array for array, _, _ in columns.values()], schema=pa.schema(fields))

    def _structure(self, block: Block) -> dict[str, tuple[Any, str, str]]:
        import pyarrow as pa
        from ase.data import chemical_symbols

        n_atoms, pbc = block["n_atoms"], block["pbc"].astype(bool)
        counts = count_elements(n_atoms, block["numbers"])
        volume = np.abs(np.linalg.det(block["cell"].astype(np.float64))) / np.maximum(n_atoms, 1)
        volume = np.where(pbc.all(axis=1), volume, np.nan)
        one = "1"
        return {
            "formula": (pa.array(formulas(counts), pa.string()), one, "chemical formula in the order of Hill"),
            "elements": (words_lists(counts > 0, chemical_symbols[: counts.shape[1]]), one,
                         "symbols of the elements, by atomic number"),
            "n_elements": (pa.array((counts > 0).sum(axis=1), pa.int16()), one, "number of different elements"),
            "n_atoms": (pa.array(n_atoms, pa.int32()), one, "number of atoms"),
            "periodic": (pa.array(pbc.any(axis=1)), one, "whether the structure is periodic along some vector"),
            "periodic_dimensions": (pa.array(pbc.sum(axis=1), pa.int8()), one, "number of periodic directions"),
            "volume_per_atom": (reals(volume), "angstrom^3", "volume of the cell per atom, if all directions are periodic"),
            "charge": (pa.array(block["charge"], pa.int16()), "e", "total charge"),
            "multiplicity": (pa.array(block["multiplicity"], pa.int16()), one, "spin multiplicity 2S+1"),
            "split": (coded(block["split"], SPLITS), one, "split, which the root decides"),
            "source": (coded(block["source"], self.sources), one, "origin of the seed"),
            "sampler": (coded(block["sampler"], self.samplers), one, "method that made the structure"),
            "root": (pa.array(block["root"], pa.uint64()), one, "group that a split never separates"),
        }  # fmt: skip

    def _labels(self, block: Block) -> dict[str, tuple[Any, str, str]]:
        n_atoms = block["n_atoms"]
        described = {plan.spec.name: plan.spec for plan in self.labels}
        there: dict[str, dict[str, Array]] = {teacher: {} for teacher in self.teachers}
        figures: dict[str, dict[str, tuple[Any, str, str]]] = {teacher: {} for teacher in self.teachers}
        for plan in self.labels:
            for k, teacher in enumerate(plan.teachers):
                values = block[plan.variable]
                values = values[:, k] if plan.shared else values
                has = has_label(plan.spec.name, values, n_atoms, described)
                there[teacher][plan.spec.name] = has
                for name, (figure, unit, text) in _of_label(plan.spec, values, block).items():
                    figures[teacher][name] = (reals(np.where(has, figure, np.nan)), unit, text)
        none = np.zeros((len(block), 0), bool)
        any_of = [np.any([*named.values(), none.any(axis=1)], axis=0) for named in there.values()]
        labelled = np.stack(any_of, axis=1) if any_of else none
        out = {"teachers": (words_lists(labelled, self.teachers), "1", "teachers of its labels")}
        for teacher in self.teachers:
            has = np.stack(list(there[teacher].values()), axis=1) if there[teacher] else none
            lists = words_lists(has, list(there[teacher]))
            out[f"properties.{teacher}"] = (lists, "1", f"properties that {teacher} gave")
            out |= {f"{name}.{teacher}": figure for name, figure in figures[teacher].items()}
        return out


def _of_label(spec: Property, values: Array, block: Block) -> dict[str, tuple[Array, str, str]]:
    """Return the figures of a label of one teacher by name, each with unit and description."""
    if spec.name == "energy":
        return {"energy_per_atom": (values / block["n_atoms"], spec.unit, "total energy over the number of atoms")}
    if spec.name == "stress":
        pressure = -values[:, :3].astype(np.float64).mean(axis=1)
        return {"pressure": (pressure, spec.unit, "minus the mean of the normal stresses: positive if compressed")}
    if spec.axis == "sample":
        return {spec.name: (values, spec.unit, spec.long_name)} if values.ndim == 1 else {}
    if values.ndim > 2 or (values.ndim == 2 and values.shape[1] != 3):
        return {}
    square = values.astype(np.float64) ** 2
    square = square.sum(axis=1) if values.ndim == 2 else square
    largest = np.sqrt(reduce_rows(np.maximum, square, block.starts))
    if spec.name != "forces":
        return {f"max_{spec.name}": (largest, spec.unit, f"largest magnitude over the atoms: {spec.long_name}")}
    rms = np.sqrt(reduce_rows(np.add, square, block.starts) / (3 * block["n_atoms"]))
    return {
        "max_force": (largest, spec.unit, "largest force on an atom"),
        "rms_force": (rms, spec.unit, "root mean square of the components of the forces"),
    }


def _user(plan: UserPlan, block: Block) -> Any:
    """Return the values of a user column, null where a sample has none."""
    import pyarrow as pa

    values = block[plan.column.name]
    absent: Any = None if plan.mask is None else ~block[plan.mask].astype(bool)
    if plan.words is not None:
        return coded(values, plan.words, absent)
    if values.dtype.kind == "f":
        values = values.astype(np.float32) if values.dtype.itemsize < 4 else values
        absent = np.isnan(values.reshape(len(values), int(np.prod(plan.column.shape)))).all(axis=1)
    if values.ndim == 1:
        return pa.array(values, mask=absent)
    width = int(np.prod(plan.column.shape))
    mask = None if absent is None else pa.array(absent)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width, mask=mask)


def reals(values: Array) -> Any:
    """Return numbers as float64, null where they are NaN."""
    import pyarrow as pa

    values = np.asarray(values, np.float64)
    return pa.array(values, mask=np.isnan(values))


def coded(codes: Array, words: Sequence[str], absent: Array | None = None) -> Any:
    """Return strings by their codes."""
    import pyarrow as pa

    indices = pa.array(np.asarray(codes, np.int32), mask=absent)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(words), pa.string()))


def words_lists(there: Array, words: Sequence[str]) -> Any:
    """Return a list of words for each sample.

    Parameters
    ----------
    there : ndarray, shape (S, W), bool
        Which words each sample has.
    words : sequence of str, length W
    """
    import pyarrow as pa

    starts = np.zeros(len(there) + 1, np.int32)
    np.cumsum(there.sum(axis=1), out=starts[1:])
    codes = np.nonzero(there)[1].astype(np.int16)
    values = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(words), pa.string()))
    return pa.ListArray.from_arrays(pa.array(starts), values)


def formulas(counts: Array) -> list[str]:
    """Return the formula of each composition in the order of Hill: C, H, then by letters.

    Parameters
    ----------
    counts : ndarray, shape (S, Z)
        Atoms of each element by atomic number.

    Examples
    --------
    >>> formulas(np.array([[0, 4, 0, 0, 0, 0, 1, 0, 1], [0, 2, 0, 0, 0, 0, 0, 0, 1]]))
    ['CH4O', 'H2O']
    """
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[z] for z in range(counts.shape[1])]
    by_letters = sorted(range(counts.shape[1]), key=symbols.__getitem__)
    carbon_first = [6, 1, *(z for z in by_letters if z not in (1, 6))]
    rank = np.empty((2, counts.shape[1]), np.int64)
    rank[0, by_letters], rank[1, [z for z in carbon_first if z < counts.shape[1]]] = (
        np.arange(counts.shape[1]), np.arange(counts.shape[1])
    )  # fmt: skip
    owner, element = np.nonzero(counts)
    has_carbon = counts[:, 6] > 0 if counts.shape[1] > 6 else np.zeros(len(counts), bool)
    order = np.lexsort((rank[has_carbon[owner].astype(int), element], owner))
    parts: list[list[str]] = [[] for _ in range(len(counts))]
    for i, z, n in zip(
        owner[order].tolist(), element[order].tolist(), counts[owner, element][order].tolist(), strict=True
    ):
        parts[i].append(symbols[z] if n == 1 else f"{symbols[z]}{n}")
    return ["".join(part) for part in parts]
