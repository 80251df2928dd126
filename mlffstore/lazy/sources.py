"""What analyses accept: a Dataset, samples, a store, or the path of a store or a release."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from mlffstore.lazy import accessor as _accessor  # noqa: F401  registers Dataset.mlff, also for saved Datasets
from mlffstore.lazy.inputs import one_form
from mlffstore.store.facade import Store
from mlffstore.store.opening import open as open_store
from mlffstore.store.samples import Samples

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


def as_samples(data: Samples | Store | str | os.PathLike[str]) -> Samples:
    """Return samples: those given, the newest of a store, or those of a store or release at a path or URL."""
    if isinstance(data, Samples):
        return data
    if isinstance(data, Store):
        return data.snapshot()
    from mlffstore.release.samples import is_release, open_release

    return open_release(data) if is_release(data) else open_store(data).snapshot()


def as_dataset(
    data: xr.Dataset | Samples | Store | str | os.PathLike[str], needed: Sequence[str] = ("n_atoms",)
) -> xr.Dataset:
    """Return the Dataset of samples from any source, in one form.

    Parameters
    ----------
    data : Dataset, Samples, Store, path or URL
    needed : sequence of str, optional
        Variables that must be there.

    Raises
    ------
    DataError
        If a Dataset lacks one of them, or does not hold whole samples any more.
    """
    return one_form(data if isinstance(data, xr.Dataset) else as_samples(data).to_xarray(), needed)
