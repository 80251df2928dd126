"""The export `zarr` as a source of samples: one plain Zarr v3 group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import offsets
from mlffstore.importing.exports.columns import FileColumn, batch_of, words_of
from mlffstore.importing.packed import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

#: How the attribute `format` of such a group begins.
FORMAT = "mlffstore-zarr"
_SPLIT = "split"
_WHAT = "the Zarr group of an export"


def attributes_of_zarr(path: Path) -> dict[str, Any]:
    """Return the attributes of the group."""
    import zarr

    with reading(_WHAT, lambda: str(path), Exception):  # zarr raises whatever a damaged group makes it raise
        return dict(zarr.open_group(path, mode="r", use_consolidated=False).attrs)


def blocks_of_zarr(path: Path, teachers: tuple[str, ...], n_samples: int) -> Iterator[tuple[SampleBatch, Array]]:
    """Yield the samples in their order, some at a time, and the split of each.

    Raises
    ------
    DataError
        If the group is damaged.
    """
    import zarr

    name = ""
    with reading(_WHAT, lambda: f"{path}, {name!r}", Exception):
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        arrays = {name: array for name, array in group.arrays() if "axis" in array.attrs}
        attributes = {name: dict(array.attrs) for name, array in arrays.items()}
        masks = {name: str(attrs["ancillary_variables"]) for name, attrs in attributes.items()
                 if "ancillary_variables" in attrs}  # fmt: skip
        words = {name: words_of(attrs, name) for name, attrs in attributes.items()
                 if "meanings" in attrs and name != _SPLIT}  # fmt: skip
        starts = offsets(np.asarray(arrays["n_atoms"][:]))
        for low in range(0, len(starts) - 1, n_samples):
            high = min(low + n_samples, len(starts) - 1)
            rows = {"sample": slice(low, high), "atom": slice(int(starts[low]), int(starts[high]))}

            def values(name: str, rows: dict[str, slice] = rows) -> Array:
                return np.asarray(arrays[name][rows[str(attributes[name]["axis"])]])

            columns = []
            for name, attrs in attributes.items():
                if name == _SPLIT or name in masks.values():
                    continue
                there = values(masks[name]).astype(bool) if name in masks else None
                columns.append(FileColumn(name, values(name), attrs, there, words.get(name)))
            yield batch_of(columns, teachers), values(_SPLIT).astype(np.int64)
