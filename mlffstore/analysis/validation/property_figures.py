"""Figures of the properties of every sample beside energy, forces and stress, measured in a pass of their own."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.dipoles import from_charges, from_electronegativity
from mlffstore.data.ragged import reduce_rows
from mlffstore.data.schema import LABELS
from mlffstore.lazy.blocks import sample_pass
from mlffstore.lazy.inputs import teachers_of
from mlffstore.lazy.labels import label_variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block, Pass

#: Variables that the figures need beside the properties.
_COLUMNS = ("numbers", "positions", "cell", "pbc", "charge", "energy")
#: A property of a teacher.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PropertyFigures:
    """Figures of S samples.

    Attributes
    ----------
    samples : dict of (str, str) to dict of str to ndarray, shape (S,)
        Teacher and property -> figures: ``has`` (the sample has it) and ``broken`` (a part of it is missing or infinite),
        bool; ``least`` and ``largest``, the extremes of its numbers, in its unit; ``gap``, of charges how far their sum is
        from the total charge (e), of atomic energies how far theirs is from the energy, per atom (eV). Of dipoles of
        neutral molecules the products ``charge_xy``, ``charge_xx``, ``bond_xy``, ``bond_xx`` of the estimates x of
        `mlffstore.analysis.validation.dipoles` and the dipole y, and its square ``yy`` (e^2*angstrom^2). Of Hessian
        products ``share``, the size of their sum over that of as many random vectors, and ``curvature`` along the probe
        (eV/angstrom^2). float32, NaN where there is none.
    """

    samples: dict[Key, dict[str, Array]]

    @classmethod
    def merge(cls, parts: Sequence[PropertyFigures]) -> PropertyFigures:
        """Join the figures of blocks in order."""
        first = parts[0].samples
        return cls(
            {
                key: {name: np.concatenate([part.samples[key][name] for part in parts]) for name in figures}
                for key, figures in first.items()
            }
        )

    def teachers(self, name: str) -> list[str]:
        """Return the teachers that gave a property to some sample."""
        return [
            teacher for teacher, other in self.samples if other == name and self.samples[teacher, other]["has"].any()
        ]


def property_pass(ds: xr.Dataset) -> Pass[PropertyFigures] | None:
    """Prepare the pass over the properties of a Dataset of one form; None if there are none."""
    variables = {name: (one.spec, one.teacher) for name, one in label_variables(ds).items() if name not in LABELS}
    if not variables:
        return None
    function = functools.partial(measure_properties, variables=variables, teachers=teachers_of(ds))
    return sample_pass(ds, (*_COLUMNS, *variables), function, PropertyFigures.merge)


def measure_properties(
    block: Block, variables: Mapping[str, tuple[Property, str | None]], teachers: Sequence[str]
) -> PropertyFigures:
    """Measure a block.

    Parameters
    ----------
    block : Block
    variables : mapping of str to (Property, str or None)
        Variable -> its property, and its teacher; None for a variable with the dimension `teacher`.
    teachers : sequence of str
        Names along that dimension.
    """
    out: dict[Key, dict[str, Array]] = {}
    values: dict[Key, Array] = {}
    for name, (spec, teacher) in variables.items():
        array = block[name]
        pairs = [(teacher, array)] if teacher else list(zip(teachers, np.moveaxis(array, 1, 0), strict=False))
        for one, rows in pairs:
            values[str(one), spec.name] = rows
            out[str(one), spec.name] = _sizes(rows, spec, block.starts)
    for (teacher, name), rows in values.items():
        figures = out[teacher, name]
        if name == "charges" and "charge" in block:
            figures["gap"] = _sums(rows, block) - block["charge"].astype(np.float64)
        elif name == "atomic_energies" and teacher in teachers[: block.energy.shape[1]]:
            energy = block.energy[:, teachers.index(teacher)].astype(np.float64)
            figures["gap"] = (_sums(rows, block) - energy) / np.diff(block.starts)
        elif name == "dipole":
            figures |= _dipoles(rows, values.get((teacher, "charges")), block)
        elif name == "hessian_product":
            figures |= _hessian(rows, values.get((teacher, "hessian_probe")), block)
    return PropertyFigures(
        {key: {name: one if one.dtype == bool else one.astype(np.float32) for name, one in figures.items()}
         for key, figures in out.items()}
    )  # fmt: skip


def _sizes(rows: Array, spec: Property, starts: Array) -> dict[str, Array]:
    """Return whether each sample has a property, whether it is broken, and its smallest and largest number."""
    flat = rows.reshape(len(rows), -1)
    missing, infinite = np.isnan(flat), np.asarray(np.isinf(flat).any(axis=1))
    some, every = np.asarray(missing.any(axis=1)), np.asarray(missing.all(axis=1))
    with np.errstate(invalid="ignore"):
        low, high = flat.min(axis=1, initial=np.inf), flat.max(axis=1, initial=-np.inf)
    if spec.axis == "atom":
        infinite, some = (reduce_rows(np.logical_or, one, starts) for one in (infinite, some))
        every = reduce_rows(np.logical_and, every, starts)
        low, high = reduce_rows(np.minimum, low, starts), reduce_rows(np.maximum, high, starts)
    broken = infinite | (some & ~every)
    return {
        "has": ~every,
        "broken": broken,
        "least": np.where(some, np.nan, low),
        "largest": np.where(some, np.nan, high),
    }


def _sums(rows: Array, block: Block) -> Array:
    return np.asarray(np.add.reduceat(rows.astype(np.float64), block.starts[:-1]))


def _dipoles(dipole: Array, charges: Array | None, block: Block) -> dict[str, Array]:
    """Return the products of dipoles of neutral molecules with their estimates."""
    neutral = ~block["pbc"].astype(bool).any(axis=1) & (np.diff(block.starts) > 1)
    if "charge" in block:
        neutral &= block["charge"] == 0
    x, y = block["positions"].astype(np.float64), np.where(neutral[:, None], dipole, np.nan)
    by_bonds = from_electronegativity(block.starts, x, block["numbers"], neutral)
    by_charges = np.full_like(y, np.nan)
    if charges is not None:
        by_charges = from_charges(block.starts, x, charges.astype(np.float64)) + 0 * y
    products = {"yy": np.einsum("ij,ij->i", y, y)}
    for name, estimate in (("charge", by_charges), ("bond", by_bonds)):
        products[f"{name}_xy"] = np.einsum("ij,ij->i", estimate, y)
        products[f"{name}_xx"] = np.einsum("ij,ij->i", estimate, estimate) + 0 * products["yy"]
    return products


def _hessian(product: Array, probe: Array | None, block: Block) -> dict[str, Array]:
    """Return the figures of Hessian products: a shift of all atoms changes no force, so that they sum to zero."""
    h, starts = product.astype(np.float64), block.starts
    square = np.add.reduceat(np.einsum("ij,ij->i", h, h), starts[:-1])
    n_atoms = np.diff(starts)
    curvature = np.full(len(block), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.linalg.norm(np.add.reduceat(h, starts[:-1]), axis=1) / np.sqrt(square)
        if probe is not None:
            v = probe.astype(np.float64)
            along, length = (np.add.reduceat(np.einsum("ij,ij->i", v, one), starts[:-1]) for one in (h, v))
            curvature = along / length
    return {"share": np.where(n_atoms > 1, share, np.nan), "curvature": np.where(n_atoms > 1, curvature, np.nan)}
