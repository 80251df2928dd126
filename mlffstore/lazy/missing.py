"""Missing values of integers and booleans in a Dataset: a mask beside the variable says which rows have a value."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from xarray import apply_ufunc

from mlffstore.data.masks import EXACT
from mlffstore.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

    from mlffstore.data.schema import Array


def mask_of(array: xr.DataArray, ds: xr.Dataset) -> xr.DataArray | None:
    """Return which rows of a variable have a value, bool; None if NaN says so, or if all have one.

    Parameters
    ----------
    array : DataArray
        A variable of the Dataset, or one that was computed from it and has kept its attributes and its rows.
    ds : Dataset

    Raises
    ------
    DataError
        If the mask is not beside the variable, or has other rows.
    """
    name = array.attrs.get("ancillary_variables")
    if name is None or array.dtype.kind not in "iub":
        return None
    if name not in ds:
        raise DataError(f"{array.name}: expected its mask {name} beside it, got none; keep or drop both")
    mask: xr.DataArray = ds[name]
    if any(array.sizes.get(dim) != n for dim, n in mask.sizes.items()):
        raise DataError(
            f"{array.name}: expected the rows of its mask, {dict(mask.sizes)}, got {dict(array.sizes)}; choose samples of "
            "the Dataset with .mlff.isel, or drop the attribute ancillary_variables"
        )
    return mask.astype(bool)


def with_nan(array: xr.DataArray, ds: xr.Dataset) -> xr.DataArray:
    """Return a variable as it is or, if it has a mask, in float64 with NaN where there is no value.

    Raises
    ------
    DataError
        When it is computed, if there are integers that float64 cannot hold.
    """
    mask = mask_of(array, ds)
    if mask is None:
        return array
    out: xr.DataArray = apply_ufunc(
        partial(_floats, str(array.name)), array, mask, dask="parallelized", output_dtypes=[np.float64], keep_attrs=True
    )
    return out.rename(array.name)


def _floats(name: str, values: Array, mask: Array) -> Array:
    """Return numbers in float64, NaN where the mask is False."""
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        held = np.where(mask, values, 0)
        if (held > EXACT).any() or (held < -EXACT).any():
            raise DataError(
                f"{name}: some samples have no value and others have integers beyond 2^53, which float64, with NaN for "
                "what is missing, cannot hold; read the variable and its mask as they are"
            )
    return np.where(mask, values.astype(np.float64), np.nan)
