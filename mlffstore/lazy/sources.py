"""What analyses accept: a Dataset, a snapshot, a store, or the path of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from mlffstore.lazy.inputs import one_form
from mlffstore.store.facade import Store
from mlffstore.store.opening import open as open_store
from mlffstore.store.snapshot import Snapshot

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


def as_snapshot(data: Snapshot | Store | str | os.PathLike[str]) -> Snapshot:
    """Return a snapshot: the newest of a store, or of the store at a path or URL."""
    if isinstance(data, Snapshot):
        return data
    return (data if isinstance(data, Store) else open_store(data)).snapshot()


def as_dataset(
    data: xr.Dataset | Snapshot | Store | str | os.PathLike[str], needed: Sequence[str] = ("n_atoms",)
) -> xr.Dataset:
    """Return the Dataset of samples from any source, in one form.

    Parameters
    ----------
    data : Dataset, Snapshot, Store, path or URL
    needed : sequence of str, optional
        Variables that must be there.

    Raises
    ------
    DataError
        If a Dataset lacks one of them, or does not hold whole samples any more.
    """
    return one_form(data if isinstance(data, xr.Dataset) else as_snapshot(data).to_xarray(), needed)
