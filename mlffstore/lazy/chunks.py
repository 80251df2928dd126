"""Dask chunks of ragged columns: whole samples, of about `mlffstore.data.ragged.TARGET_ATOMS` atoms each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data import ragged
from mlffstore.errors import DataError
from mlffstore.lazy.inputs import check_atoms

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from mlffstore.format.reader import ColumnReader
    from mlffstore.format.records import Segment


def segment_chunks(segments: Sequence[Segment], reader: ColumnReader) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return chunk sizes of a snapshot along samples and along atoms, without reading small segments.

    Parameters
    ----------
    segments : sequence of Segment
    reader : ColumnReader
        It reads `n_atoms` of the segments that are larger than a chunk.
    """
    samples: list[int] = []
    atoms: list[int] = []
    full = True
    for segment in segments:
        if segment.n_atoms <= ragged.TARGET_ATOMS:
            pieces = [(segment.n_samples, segment.n_atoms)]
        else:  # a large segment is cut between samples, so their sizes are needed
            counts = np.empty(segment.n_samples, np.int32)
            reader.read(segment.columns["n_atoms"], 0, segment.n_samples, counts)
            pieces = list(zip(*ragged.cut(counts), strict=True))
        for n_samples, n_atoms in pieces:
            if full or atoms[-1] + n_atoms > ragged.TARGET_ATOMS:
                samples.append(0)
                atoms.append(0)
            samples[-1] += n_samples
            atoms[-1] += n_atoms
            full = atoms[-1] >= ragged.TARGET_ATOMS
    return tuple(samples), tuple(atoms)


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
