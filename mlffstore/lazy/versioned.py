"""`VersionedVariable`: a lazily read variable whose dask arrays are named after the version of the samples.

It does nothing else. xarray names the dask arrays of ``open_dataset(store, chunks={})`` after the path and the time at which
the folder changed. A commit does not change that time, and a URL has none: arrays of two versions would have one name, and
Dask computes arrays of one name once.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

#: Entry of `Variable.encoding` that names the samples.
VERSION = "samples"


class VersionedVariable(xr.Variable):
    """A variable that adds the entry `VERSION` of its encoding to the names which xarray finds for dask arrays."""

    __slots__ = ()

    def chunk(self, *args: Any, from_array_kwargs: Any = None, **kwargs: Any) -> xr.Variable:  # type: ignore[override]
        """Return a plain variable of a dask array; see `xarray.Variable.chunk`."""
        options = dict(from_array_kwargs or {})
        if isinstance(options.get("name"), str):
            options["name"] += f"-{self.encoding.get(VERSION, '')}"
        chunked = super().chunk(*args, from_array_kwargs=options, **kwargs)  # type: ignore[misc]
        return chunked.to_base_variable()
