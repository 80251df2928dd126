"""The xarray engine ``mlffstore``, which opens stores by path.

>>> import xarray as xr
>>> ds = xr.open_dataset("d.zarr", engine="mlffstore", chunks={})  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xarray.backends import BackendEntrypoint

from mlffstore.lazy.dataset import dataset
from mlffstore.lazy.sources import as_samples

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    import xarray as xr


class MlffstoreBackend(BackendEntrypoint):
    """Opens stores: ``xr.open_dataset(path, engine="mlffstore", chunks={})``."""

    description = "Open stores of labelled atomistic samples as lazy ragged columns"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "version", "tag", "teachers", "storage_options")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        version: int | None = None,
        tag: str | None = None,
        teachers: str | Sequence[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Open a version of a store, or a release; xarray passes on what is not its own option."""
        from mlffstore.store.opening import open as open_store

        if version is None and tag is None and not storage_options:
            return dataset(as_samples(filename_or_obj), teachers, drop_variables)
        store = open_store(filename_or_obj, storage_options=storage_options)
        return dataset(store.snapshot(version=version, tag=tag), teachers, drop_variables)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return False: a bare ``.zarr`` may be anything, so the engine has to be named."""
        return False
