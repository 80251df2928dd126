"""Statistics of the properties beside energy, forces and stress, gathered in a pass of their own; they merge exactly."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.statistics.references import N_ELEMENTS
from mlffstore.analysis.statistics.sketch import Moments, Sketch
from mlffstore.data.ragged import reduce_rows
from mlffstore.data.schema import LABELS
from mlffstore.data.splits import SPLITS
from mlffstore.lazy.blocks import sample_pass
from mlffstore.lazy.inputs import teachers_of
from mlffstore.lazy.labels import label_variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block, Pass

#: A teacher and the name of a property.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PropertyPart:
    """One property of one teacher, of some samples.

    Attributes
    ----------
    samples : ndarray, shape (3,)
        Samples that have all of it, by split.
    numbers : Moments
        Its numbers, each component by itself, by split.
    sizes : Sketch
        Its values if each is one number, and else their norms.
    by_element : Moments
        Values, or norms, by element; without groups for a property of samples.
    """

    samples: Array
    numbers: Moments
    sizes: Sketch
    by_element: Moments

    @classmethod
    def merge(cls, parts: Sequence[PropertyPart]) -> PropertyPart:
        """Return the statistics of all samples together."""
        return cls(
            np.sum([part.samples for part in parts], axis=0),
            Moments.merge([part.numbers for part in parts]),
            Sketch.merge([part.sizes for part in parts]),
            Moments.merge([part.by_element for part in parts]),
        )


def property_pass(ds: xr.Dataset) -> Pass[dict[Key, PropertyPart]] | None:
    """Prepare the pass over the properties of a Dataset of one form; None if there are none."""
    variables = {name: (one.spec, one.teacher) for name, one in label_variables(ds).items() if name not in LABELS}
    if not variables:
        return None
    function = functools.partial(_gather, variables=variables, teachers=teachers_of(ds))
    return sample_pass(ds, ("numbers", "split", *variables), function, _merge)


def _merge(parts: Sequence[dict[Key, PropertyPart]]) -> dict[Key, PropertyPart]:
    return {key: PropertyPart.merge([part[key] for part in parts]) for key in parts[0]}


def _gather(
    block: Block, variables: Mapping[str, tuple[Property, str | None]], teachers: Sequence[str]
) -> dict[Key, PropertyPart]:
    split = block["split"] if "split" in block else np.zeros(len(block), np.uint8)
    out = {}
    for name, (spec, teacher) in variables.items():
        array = block[name]
        shared = [(teacher, array)] if teacher else zip(teachers, np.moveaxis(array, 1, 0), strict=False)
        for one, rows in shared:
            out[str(one), spec.name] = _part(rows, spec, split, block)
    return out


def _part(rows: Array, spec: Property, split: Array, block: Block) -> PropertyPart:
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    whole = np.asarray(np.isfinite(flat).all(axis=1))
    of_rows, numbers = split, np.zeros(0, np.uint8)
    if spec.axis == "atom":
        whole = reduce_rows(np.logical_and, whole, block.starts)
        of_rows, numbers = np.repeat(split, np.diff(block.starts)), block["numbers"]
    sizes = np.sqrt(np.einsum("ij,ij->i", flat, flat)) if spec.shape else flat[:, 0]
    by_element = (sizes, numbers, N_ELEMENTS) if spec.axis == "atom" else (np.zeros(0), np.zeros(0, np.int64), 0)
    return PropertyPart(
        np.bincount(split[whole], minlength=len(SPLITS)),
        Moments.of(flat, np.repeat(of_rows, flat.shape[1]), len(SPLITS)),
        Sketch.of(sizes),
        Moments.of(*by_element),
    )


def describe(
    parts: Mapping[Key, PropertyPart],
    specs: Mapping[str, Property],
    teacher: str,
    splits: Sequence[str],
    quantiles: Sequence[float],
) -> dict[str, Any]:
    """Return the properties that a teacher gave to some sample as plain types.

    Parameters
    ----------
    parts : mapping of (str, str) to PropertyPart
    specs : mapping of str to Property
        The properties by name.
    teacher : str
    splits : sequence of str
        Names of the splits, none if there are none.
    quantiles : sequence of float
    """
    from ase.data import chemical_symbols

    out: dict[str, Any] = {}
    for (one, name), part in parts.items():
        if one != teacher or not part.numbers.n.any():
            continue
        spec = specs[name]
        document: dict[str, Any] = {
            "unit": spec.unit, "axis": spec.axis, "samples": int(part.samples.sum()),
            "samples_by_split": dict(zip(splits, part.samples.tolist(), strict=False)),
            **part.numbers.total().row(),
            "by_split": {split: part.numbers.row(i) for i, split in enumerate(splits) if part.numbers.n[i]},
            "quantiles" if not spec.shape else "quantiles_of_norm": {f"{q:g}": part.sizes.quantile(q) for q in quantiles},
        }  # fmt: skip
        if spec.axis == "atom":
            key = "by_element" if not spec.shape else "norm_by_element"
            present = np.flatnonzero(part.by_element.n)
            document[key] = {str(chemical_symbols[z]): part.by_element.row(z) for z in present}
        out[name] = document
    return out
