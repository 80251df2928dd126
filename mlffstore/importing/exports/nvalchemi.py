"""The export `nvalchemi` as a source of samples: its Zarr stores, with the group that nvalchemi ignores."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError
from mlffstore.importing.exports.columns import FileColumn, batch_of, words_of
from mlffstore.importing.packed import reading
from mlffstore.importing.values import voigt_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

_GROUPS = ("core", "custom", "mlffstore")


def blocks_of_nvalchemi(path: Path, teachers: tuple[str, ...], n_samples: int) -> Iterator[tuple[SampleBatch, Array]]:
    """Yield the samples of one store after another, some at a time, and the split of each.

    Samples that nvalchemi has deleted are left out.

    Raises
    ------
    DataError
        If a store is damaged, or nvalchemi has added samples to it, which lack what this library keeps of each.
    """
    for code, split in enumerate(SPLITS):
        for store in sorted((path / split).glob("*.zarr")):
            with reading("a store of an export for nvalchemi", functools.partial(str, store), Exception):
                for batch in _of_store(store, teachers, n_samples):
                    yield batch, np.full(len(batch), code)


def _of_store(store: Path, teachers: tuple[str, ...], n_samples: int) -> Iterator[SampleBatch]:
    import zarr

    group: Any = zarr.open_group(store, mode="r", use_consolidated=False)
    arrays = {
        str(array.attrs["column"]): array
        for name in _GROUPS
        for _, array in group[name].arrays()
        if "column" in array.attrs
    }
    attributes = {name: dict(array.attrs) for name, array in arrays.items()}
    starts, there = np.asarray(group["meta/atoms_ptr"][:]), np.asarray(group["meta/samples_mask"][:])
    rows = {"sample": len(there), "atom": int(starts[-1])}
    for name, array in arrays.items():
        if array.shape[0] != rows[str(attributes[name]["axis"])]:
            raise DataError(
                f"{store}: expected {rows[str(attributes[name]['axis'])]} rows of {name!r}, got {array.shape[0]}; samples "
                "were added by other software: import the store by itself, with the format 'nvalchemi'"
            )
    masks = {name: str(attrs["ancillary_variables"]) for name, attrs in attributes.items()
             if "ancillary_variables" in attrs}  # fmt: skip
    for low in range(0, len(there), n_samples):
        high = min(low + n_samples, len(there))
        span = {"sample": slice(low, high), "atom": slice(int(starts[low]), int(starts[high]))}
        values = {name: np.asarray(array[span[str(attributes[name]["axis"])]]) for name, array in arrays.items()}
        columns = [FileColumn("n_atoms", np.diff(starts[low : high + 1]).astype(np.int32), {"axis": "sample"})]
        for name, attrs in attributes.items():
            if name in masks.values():
                continue
            mask = values[masks[name]].astype(bool) if name in masks else None
            words = words_of(attrs, name) if "meanings" in attrs else None
            columns.append(FileColumn(name, _as_column(name, values[name], attrs), attrs, mask, words))
        if "cell" not in arrays:
            columns += [
                FileColumn("cell", np.zeros((high - low, 3, 3)), {"axis": "sample"}),
                FileColumn("pbc", np.zeros((high - low, 3), bool), {"axis": "sample"}),
            ]
        batch, kept = batch_of(columns, teachers), np.flatnonzero(there[low:high])
        if len(kept):
            yield batch if len(kept) == len(batch) else batch.take(kept)


def _as_column(name: str, values: Array, attrs: dict[str, Any]) -> Array:
    """Return the values of a field in the shape and dtype of its column."""
    if name == "stress":
        values = voigt_rows(values)
    elif name in ("energy", "charge", "multiplicity"):
        values = values[:, 0]
    return values.astype(str(attrs["dtype"]))
