"""A map of a dataset: structures as points in the plane of their two main components."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.lazy.embedding import STRUCTURE_VARIABLES, embed_dataset
from mlffstore.lazy.sources import as_dataset

if TYPE_CHECKING:
    import os

    import xarray as xr

    from mlffstore.store.facade import Store
    from mlffstore.store.samples import Samples


def embed(
    data: xr.Dataset | Samples | Store | str | os.PathLike[str], *, n_samples: int = 3000, seed: int = 0
) -> xr.Dataset:
    """Return the principal components of some structures, drawn at random.

    Parameters
    ----------
    data : Dataset, Samples, Store, path or URL
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
    For the features of a structure see `mlffstore.lazy.embedding.embed_dataset`.
    """
    return embed_dataset(as_dataset(data, STRUCTURE_VARIABLES), n_samples=n_samples, seed=seed)
