"""``Dataset.mlff``: what plain xarray cannot do with ragged columns, because atoms have to follow their samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mlffstore.errors import DataError
from mlffstore.ragged import offsets, reduce_rows, row_indices

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from ase import Atoms

    from mlffstore.schema import Array

_UFUNCS = {"max": np.maximum, "min": np.minimum, "sum": np.add, "mean": np.add, "rms": np.add}
#: What `Mlff.reduce` can do; with ``norm_`` before it, to the Euclidean norm of the last dimension.
REDUCTIONS = (*_UFUNCS, *(f"norm_{how}" for how in _UFUNCS))


@xr.register_dataset_accessor("mlff")  # type: ignore[no-untyped-call]
class Mlff:
    """Ragged operations on a Dataset of the engine ``mlffstore``. Lazy unless said otherwise.

    Notes
    -----
    Plain ``ds.isel(sample=...)`` picks samples and leaves all atoms: use ``ds.mlff.isel``.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        if "n_atoms" not in ds or "sample" not in ds.dims:
            raise DataError("mlff: expected a dataset with n_atoms along sample, as engine='mlffstore' opens it")
        self._ds = ds

    def isel(self, sample: npt.ArrayLike | slice) -> xr.Dataset:
        """Return some samples with their atoms, in request order. Reads `n_atoms`.

        Parameters
        ----------
        sample : int, array_like of int, boolean mask or slice
            A single number gives a dataset of one sample.
        """
        from mlffstore.xarray_engine import cut

        counts = np.asarray(self._ds["n_atoms"])
        chosen_samples = (
            sample if isinstance(sample, slice) else np.asarray(sample, int if np.size(sample) == 0 else None)
        )
        index = np.atleast_1d(np.arange(len(counts))[chosen_samples])
        starts, chosen = offsets(counts), counts[index]
        out = self._ds.isel(sample=index)
        if "atom" in self._ds.dims:
            out = out.isel(atom=row_indices(starts[index], chosen))
        if self._ds.chunks and len(index):
            sizes = dict(zip(("sample", "atom"), cut(chosen), strict=True))
            out = out.chunk({dim: size for dim, size in sizes.items() if dim in out.dims})
        return out

    def head(self, n: int = 5) -> xr.Dataset:
        """Return the first samples with their atoms."""
        return self.isel(slice(n))

    def where(self, condition: xr.DataArray) -> xr.Dataset:
        """Return the samples for which a boolean array along ``sample`` is true, with their atoms. Computes it."""
        mask = np.asarray(condition)
        if mask.dtype != bool or mask.shape != (self._ds.sizes["sample"],):
            n = self._ds.sizes["sample"]
            raise DataError(f"where: expected booleans of shape ({n},) along sample, got {mask.dtype} {mask.shape}")
        return self.isel(np.flatnonzero(mask))

    def reduce(self, name: str | xr.DataArray, how: str) -> xr.DataArray:
        """Reduce the atoms of every sample, in float64 for sums.

        Parameters
        ----------
        name : str or DataArray
            A variable whose first dimension is ``atom``.
        how : str
            ``max``, ``min``, ``sum``, ``mean`` or ``rms``; with ``norm_`` before it, of the Euclidean norm of the last
            dimension, so that ``reduce("forces", "norm_max")`` is the largest force of every sample.

        Returns
        -------
        DataArray
            With ``sample`` instead of ``atom``; NaN where a label is missing.
        """
        array = self._ds[name] if isinstance(name, str) else name
        if not array.dims or array.dims[0] != "atom" or how not in REDUCTIONS:
            raise DataError(
                f"reduce: expected a variable along atom and one of {', '.join(REDUCTIONS)}, got {array.dims} and {how!r}"
            )
        norm = how.startswith("norm_")
        if norm and array.ndim < 2:
            raise DataError(f"reduce: {how} needs a last dimension such as xyz, got {array.dims}")
        inner = array.dims[1:-1] if norm else array.dims[1:]
        dtype = np.dtype("float64") if array.dtype.kind == "f" or how.endswith(("mean", "rms")) or norm else array.dtype
        if how.endswith("sum") and dtype.kind in "ui":
            dtype = np.dtype("int64")
        data = self._blocks(lambda counts, values: _reduce(values, counts, how, dtype), array, dtype, norm)
        attributes = {name: array.attrs[name] for name in ("units",) if name in array.attrs}
        coordinates = {dim: array.coords[dim] for dim in inner if dim in array.coords}
        return xr.DataArray(data, coordinates, ("sample", *inner), f"{array.name}_{how}", attributes)

    def _blocks(self, function: Callable[[Array, Array], Array], array: xr.DataArray, dtype: Any, drop: bool) -> Any:
        counts = self._ds["n_atoms"]
        if not array.chunks and not counts.chunks:
            return function(counts.values, array.values)
        import dask.array as da

        if not (array.chunks and counts.chunks) or len(array.chunks[0]) != len(counts.chunks[0]):
            raise DataError("reduce: the chunks of atoms and samples do not fit; open with chunks={} or use .mlff.isel")
        letters = tuple(range(array.ndim))
        values = array.data.rechunk(dict.fromkeys(letters[1:], -1)) if array.ndim > 1 else array.data
        return da.blockwise(
            function, letters[:-1] if drop else letters, counts.data, (0,), values, letters,
            align_arrays=False, concatenate=True, dtype=dtype, meta=np.empty((0,) * (array.ndim - drop), dtype),
        )  # fmt: skip

    def disagreement(self) -> xr.Dataset:
        """Return how much the teachers differ: the standard deviation of the force on an atom over the teachers.

        Returns
        -------
        Dataset
            ``force_max`` and ``force_mean`` along ``sample``, eV/angstrom: over the atoms, the largest and the mean root
            of the sum over x, y, z of the variances. NaN where fewer than two teachers labelled a sample. Energies are
            left out: the zeros of two teachers differ.
        """
        if "forces" not in self._ds or self._ds.sizes.get("teacher", 0) < 2:
            raise DataError("disagreement: expected forces of at least two teachers")
        forces = self._ds["forces"]
        several = forces.count("teacher").min("xyz") >= 2
        variance = forces.astype(float).var("teacher").sum("xyz", skipna=False)
        spread = (variance**0.5).where(several)
        spread.attrs["units"] = forces.attrs.get("units", "eV/angstrom")
        return xr.Dataset({"force_max": self.reduce(spread, "max"), "force_mean": self.reduce(spread, "mean")})

    def to_ase(self, teacher: str | None = None) -> list[Atoms]:
        """Return the samples as ASE frames with the labels of a teacher. Reads them."""
        from mlffstore.batch import SampleBatch
        from mlffstore.schema import LABELS, STRUCTURE

        ds = self._ds.load() if not self._ds.chunks else self._ds.compute()
        labels: dict[str, dict[str, Array]] = {}
        for who in ds["teacher"].values.tolist() if "teacher" in ds.coords else ():
            mine = {name: ds[name].sel(teacher=who).values for name in LABELS if name in ds}
            labels[str(who)] = {name: array for name, array in mine.items() if not np.isnan(array).all()}
        structure: dict[str, Any] = {name: ds[name].values for name in STRUCTURE}
        batch = SampleBatch(
            **structure,
            labels={who: named for who, named in labels.items() if named},
        )
        return batch.to_ase(teacher)


def _reduce(values: Array, counts: Array, how: str, dtype: Any) -> Array:
    starts = offsets(counts)
    if starts[-1] != len(values):
        raise DataError(
            f"reduce: {starts[-1]} atoms by n_atoms, but {len(values)} rows; plain isel was used: use .mlff.isel"
        )
    kind = how.removeprefix("norm_")
    values = values.astype(dtype, copy=False)
    if how != kind:
        values = np.sqrt((values**2).sum(axis=-1))
    if not len(counts):
        return values[:0]
    if kind == "rms":
        values = values**2
    out = reduce_rows(_UFUNCS[kind], values, starts)
    if kind in ("mean", "rms"):
        out = out / counts.reshape(-1, *(1,) * (out.ndim - 1))
    return np.asarray(np.sqrt(out) if kind == "rms" else out, dtype)
