"""Dask chunks of ragged columns: whole samples, of about `mlffstore.data.ragged.TARGET_ATOMS` atoms each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data import ragged
from mlffstore.errors import DataError
from mlffstore.lazy.inputs import check_atoms

if TYPE_CHECKING:
    import xarray as xr


def chunked(ds: xr.Dataset) -> xr.Dataset:
    """Return the dataset with dask chunks of whole samples, one chunk along every other dimension."""
    if "n_atoms" not in ds or "sample" not in ds.dims:
        raise DataError("expected a dataset with n_atoms along sample, as engine='mlffstore' opens it")
    if not ds.sizes["sample"]:
        raise DataError("expected at least one sample, got an empty dataset")
    whole = {dim: -1 for dim in ds.dims if dim not in ("sample", "atom")}
    sample, atom = ds["n_atoms"].chunks, next((v.chunks for v in ds.variables.values() if "atom" in v.dims), None)
    lazy = all(v.chunks is not None for name, v in ds.variables.items() if name in ds.data_vars)
    if lazy and sample is not None and (atom is None or _fits(ds, sample[0], atom[0])):
        return ds.chunk(whole) if whole else ds
    counts = np.asarray(ds["n_atoms"])
    check_atoms(ds, counts)
    samples, atoms = ragged.cut(counts)
    return ds.chunk({"sample": samples, **({"atom": atoms} if "atom" in ds.dims else {}), **whole})


def _fits(ds: xr.Dataset, samples: tuple[int, ...], atoms: tuple[int, ...]) -> bool:
    """Return whether chunks of atoms and samples pair off. Whether each pair fits, each block checks when it runs."""
    return len(samples) == len(atoms) and all(
        v.chunks is None
        or ("atom" in v.dims and v.chunks[0] == atoms)
        or ("sample" in v.dims and v.chunks[0] == samples)
        for v in ds.variables.values()
    )
