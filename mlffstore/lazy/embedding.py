"""A map of a dataset: structures as points in the plane of their two main components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mlffstore.data.geometry import pairs
from mlffstore.errors import DataError
from mlffstore.lazy.inputs import one_form
from mlffstore.lazy.reductions import count_elements

if TYPE_CHECKING:
    from mlffstore.data.schema import Array

#: Variables that the features of a structure need.
STRUCTURE_VARIABLES = ("n_atoms", "numbers", "positions", "cell", "pbc")
#: Edges of the shells in which neighbours are counted, angstrom.
_SHELLS = (0.0, 1.2, 1.6, 2.0, 2.4, 2.8, 3.2, 3.6, 4.2, 5.0)


def embed_dataset(ds: xr.Dataset, *, n_samples: int = 3000, seed: int = 0) -> xr.Dataset:
    """Return the principal components of some structures, drawn at random.

    Parameters
    ----------
    ds : Dataset
        As the engine ``mlffstore`` opens it.
    n_samples : int, optional
        Largest number of structures that are drawn.
    seed : int, optional
        Seed of the draw.

    Returns
    -------
    Dataset
        ``pc`` (point, 2); ``explained`` (2,), the shares of the variance; ``sample`` (point,), indices in the dataset.

    Notes
    -----
    The features of a structure, each block scaled to unit variance: the square roots of its elements' fractions; neighbours
    per atom in shells out to 5 angstrom; the logarithms of the number of atoms and, in crystals, of the volume per atom.
    """
    ds = one_form(ds, STRUCTURE_VARIABLES)
    chosen = np.sort(np.random.default_rng(seed).permutation(ds.sizes["sample"])[:n_samples])
    if not len(chosen):
        raise DataError("embed: expected at least one structure, got none")
    part = ds[list(STRUCTURE_VARIABLES)].mlff.isel(chosen).compute()
    x = _features(part)
    x = x - x.mean(axis=0)
    _, singular, rows = np.linalg.svd(x, full_matrices=False)
    two = min(2, len(singular))
    pc = np.zeros((len(x), 2))
    pc[:, :two] = x @ rows[:two].T
    share = np.zeros(2)
    share[:two] = singular[:two] ** 2 / max((singular**2).sum(), 1e-300)
    return xr.Dataset(
        {"pc": (("point", "component"), pc), "explained": ("component", share), "sample": ("point", chosen)}
    )


def _features(part: xr.Dataset) -> Array:
    counts = part["n_atoms"].values
    starts = np.concatenate([[0], np.cumsum(counts)])
    numbers, pbc, cell = part["numbers"].values, part["pbc"].values.astype(bool), part["cell"].values
    element = count_elements(counts, numbers) / counts[:, None]
    close = pairs(starts, part["positions"].values, cell, pbc, _SHELLS[-1])
    shell = np.searchsorted(_SHELLS, close.distance, side="right") - 1
    sample = np.repeat(np.arange(len(counts)), close.counts)
    shells = np.bincount(sample * len(_SHELLS) + shell, minlength=len(counts) * len(_SHELLS)).reshape(len(counts), -1)
    full = np.asarray(pbc.all(axis=1))
    volume = np.abs(np.linalg.det(np.where(full[:, None, None], cell, np.eye(3)))) / counts
    size = np.stack([np.log(counts), np.where(full, np.log(np.maximum(volume, 1e-3)), 0.0)], axis=1)
    blocks: list[Any] = [np.sqrt(element), 2 * shells / counts[:, None], size]
    return np.concatenate([block / max(np.sqrt(block.var(axis=0).sum()), 1e-12) for block in blocks], axis=1)
