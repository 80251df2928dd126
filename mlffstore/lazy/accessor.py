"""``Dataset.mlff``: operations on ragged columns, in which atoms follow their samples, unlike in plain xarray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mlffstore.data.ragged import cut, offsets, reduce_rows, row_indices
from mlffstore.errors import DataError
from mlffstore.lazy.inputs import check_atoms, meanings, one_form, teachers_of
from mlffstore.lazy.labels import label_variables
from mlffstore.lazy.missing import mask_of, with_nan
from mlffstore.lazy.reductions import (
    N_ELEMENTS,
    REDUCTIONS,
    UNPAIRED,
    bin_edges,
    check_total,
    count_elements,
    reduce_atoms,
    repeat_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.lazy.plots import Plots


@xr.register_dataset_accessor("mlff")  # type: ignore[no-untyped-call]
class Mlff:
    """Ragged operations on a Dataset of the engine ``mlffstore``. Lazy unless said otherwise.

    Notes
    -----
    Plain ``ds.isel(sample=...)``, ``ds.sortby`` and ``ds.where`` pick or move samples and leave the atoms where they are:
    use ``ds.mlff.isel``, ``sortby``, ``where`` and ``sel``. ``ds.sel(teacher=...)``, ``drop_vars``, ``compute`` and
    ``load`` are fine.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        if "n_atoms" not in ds or "sample" not in ds.dims:
            raise DataError(
                "mlff: expected a dataset with n_atoms along sample, as engine='mlffstore' opens it; choose one sample with "
                ".mlff.isel([i]) and keep n_atoms"
            )
        self._ds = ds

    def isel(self, sample: npt.ArrayLike | slice) -> xr.Dataset:
        """Return some samples with their atoms, in request order. Reads `n_atoms`.

        Parameters
        ----------
        sample : int, array_like of int, boolean mask or slice
            A single number gives a dataset of one sample.
        """
        counts = np.asarray(self._ds["n_atoms"])
        check_atoms(self._ds, counts)
        chosen_samples = (
            sample if isinstance(sample, slice) else np.asarray(sample, int if np.size(sample) == 0 else None)
        )
        index = np.atleast_1d(np.arange(len(counts))[chosen_samples])
        starts, chosen = offsets(counts), counts[index]
        out = self._ds.isel(sample=index)
        if "atom" in self._ds.dims:
            out = out.isel(atom=row_indices(starts[index], chosen))
        if any(variable.chunks for variable in self._ds.variables.values()) and len(index):
            sizes = dict(zip(("sample", "atom"), cut(chosen), strict=True))
            out = out.chunk({dim: size for dim, size in sizes.items() if dim in out.dims})
        return out

    def head(self, n: int = 5) -> xr.Dataset:
        """Return the first samples with their atoms."""
        return self.isel(slice(n))

    def where(self, condition: xr.DataArray) -> xr.Dataset:
        """Return the samples for which a boolean array along ``sample`` is true, with their atoms. Computes it.

        A value that is missing meets no condition, if the array has kept the attributes of the variable that it was computed
        from, as comparisons do.
        """
        mask = np.asarray(condition)
        if mask.dtype != bool or mask.shape != (self._ds.sizes["sample"],):
            n = self._ds.sizes["sample"]
            raise DataError(f"where: expected booleans of shape ({n},) along sample, got {mask.dtype} {mask.shape}")
        known = mask_of(condition, self._ds) if isinstance(condition, xr.DataArray) else None
        return self.isel(np.flatnonzero(mask if known is None else mask & np.asarray(known)))

    def sel(self, **conditions: Any) -> xr.Dataset:
        """Return the samples that meet all conditions, with their atoms. Computes the columns that are asked for.

        Parameters
        ----------
        **conditions
            ``split="train"``, ``source="nci"``, ``sampler=["rattle", "md"]``: the sample has this string, or one of several.
            ``n_atoms=(10, 50)`` and any other numeric column: the sample has this value, or one between lowest and highest.
            ``periodic=True``: the sample is periodic in all three directions; False: it is not.
            ``elements="Cu"`` or ``["C", "H"]``: the sample contains all of these elements.
            ``teacher="orb-v2"`` or several: the sample has a label of one of them, and only their labels are returned.

        Examples
        --------
        >>> ds.mlff.sel(split="train", periodic=True, elements=["O"])  # doctest: +SKIP
        """
        self._check_atoms()
        ds, keep = one_form(self._ds), np.ones(self._ds.sizes["sample"], bool)
        for name, wanted in conditions.items():
            if name == "periodic":
                if not isinstance(wanted, (bool, np.bool_)):
                    raise DataError(f"sel: periodic: expected True or False, got {wanted!r}")
                keep &= np.asarray(ds["pbc"].all("vector")) == bool(wanted)
            elif name == "elements":
                counts = self.composition()
                expected = "symbols of elements, such as 'Cu'"
                for symbol in _strings(name, wanted, expected):
                    if symbol not in counts["element"].values:
                        raise DataError(f"sel: elements: expected {expected}, got {symbol!r}")
                    keep &= np.asarray(counts.sel(element=symbol)) > 0
            elif name == "teacher":
                ds, has = _labelled_by(_strings(name, wanted), ds)
                keep &= has
            elif name not in ds or ds[name].dims != ("sample",):
                known = [str(k) for k, v in ds.items() if v.dims == ("sample",)]
                raise DataError(f"sel: expected periodic, elements, teacher or one of {', '.join(known)}, got {name!r}")
            elif "flag_values" in ds[name].attrs:
                words, chosen = meanings(ds[name]), set(_strings(name, wanted))
                if chosen - set(words):
                    raise DataError(
                        f"sel: {name}: expected some of {', '.join(words)}, got {sorted(chosen - set(words))}"
                    )
                codes = [i for i, word in enumerate(words) if word in chosen]
                keep &= np.isin(np.asarray(ds[name]), codes) & _present(ds[name], ds)
            else:
                low, high = _bounds(name, wanted)
                values = np.asarray(ds[name])
                keep &= (values >= low) & (values <= high) & _present(ds[name], ds)
        return ds.mlff.isel(np.flatnonzero(keep))  # type: ignore[no-any-return]

    def sortby(self, name: str | xr.DataArray, *, ascending: bool = True) -> xr.Dataset:
        """Return the samples with their atoms in the order of a variable along ``sample``, missing last. Computes it."""
        array = self._ds[name] if isinstance(name, str) else name
        values = np.asarray(array)
        if values.shape != (self._ds.sizes["sample"],):
            raise DataError(f"sortby: expected a variable along sample alone, got shape {values.shape}")
        order, mask = np.argsort(values, kind="stable"), mask_of(array, self._ds)
        missing = (values != values if mask is None else ~np.asarray(mask))[order]
        return self.isel(np.concatenate([order[~missing][:: 1 if ascending else -1], order[missing]]))

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
            With ``sample`` instead of ``atom``; NaN where a value of some atom is missing. The sum of booleans is a count.
        """
        array = with_nan(self._ds[name] if isinstance(name, str) else name, self._ds)
        if not array.dims or array.dims[0] != "atom" or how not in REDUCTIONS:
            raise DataError(
                f"reduce: expected a variable along atom and one of {', '.join(REDUCTIONS)}, got {array.dims} and {how!r}"
            )
        norm = how.startswith("norm_")
        if norm:
            _check_norm("reduce", how, array)
        inner = array.dims[1:-1] if norm else array.dims[1:]
        dtype = np.dtype("float64") if array.dtype.kind == "f" or how.endswith(("mean", "rms")) or norm else array.dtype
        if how.endswith("sum") and dtype.kind in "uib":
            dtype = np.dtype("uint64" if dtype == "uint64" else "int64")
        data = self._blocks(
            lambda counts, values: reduce_atoms(values, counts, how, dtype), array, range(array.ndim - norm), dtype
        )
        attributes = {name: array.attrs[name] for name in ("units",) if name in array.attrs}
        coordinates = {dim: array.coords[dim] for dim in inner if dim in array.coords}
        return xr.DataArray(data, coordinates, ("sample", *inner), f"{array.name}_{how}", attributes)

    def _blocks(
        self,
        function: Callable[[Array, Array], Array],
        array: xr.DataArray,
        axes: Sequence[int],
        dtype: Any,
        **options: Any,
    ) -> Any:
        """Apply a function of n_atoms and the rows of the atoms to each block of samples, or to all.

        `axes` are those of the result: numbers of axes of the array, or of `new_axes`.
        """
        counts = self._ds["n_atoms"]
        n_atoms, rows = counts.data, array.data
        if not len(counts) or not (array.chunks or counts.chunks):
            return function(np.asarray(n_atoms), np.asarray(rows))
        import dask.array as da

        if not (array.chunks and counts.chunks):
            n_atoms = np.asarray(n_atoms)
            check_total(n_atoms, len(rows))
            samples, atoms = cut(n_atoms)
            n_atoms, rows = da.from_array(n_atoms, chunks=(samples,)), da.asarray(rows).rechunk({0: atoms})
        elif len(array.chunks[0]) != len(counts.chunks[0]):
            raise DataError(f"{array.name}: expected as many chunks of atoms as of samples. {UNPAIRED}")
        letters = tuple(range(array.ndim))
        rows = rows.rechunk(dict.fromkeys(letters[1:], -1)) if array.ndim > 1 else rows
        return da.blockwise(
            function, tuple(axes), n_atoms, (0,), rows, letters, align_arrays=False, concatenate=True, dtype=dtype,
            meta=np.empty((0,) * len(axes), dtype), **options,
        )  # fmt: skip

    def broadcast(self, name: str | xr.DataArray) -> xr.DataArray:
        """Return a variable along ``sample`` with its value repeated for each atom, along ``atom``.

        Integers and booleans with missing values become float64 with NaN.
        """
        array = with_nan(self._ds[name] if isinstance(name, str) else name, self._ds)
        if not array.dims or array.dims[0] != "sample" or array.sizes["sample"] != self._ds.sizes["sample"]:
            raise DataError(
                f"broadcast: expected a variable along sample, {self._ds.sizes['sample']} rows, got {dict(array.sizes)}"
            )
        counts = self._ds["n_atoms"]
        if not array.chunks:
            total = self._ds.sizes.get("atom", counts.values.sum(dtype=np.int64))
            values: Any = repeat_rows(counts.values, array.values, np.array([total]))
        else:
            import dask.array as da

            letters, samples = tuple(range(array.ndim)), (counts.chunks or array.chunks)[0]
            n, rows = (da.asarray(variable.data).rechunk({0: samples}) for variable in (counts, array))
            atoms = self._atom_chunks(samples)
            if len(atoms) != len(samples):
                raise DataError(f"{array.name}: expected as many chunks of atoms as of samples. {UNPAIRED}")
            values = da.blockwise(
                repeat_rows, letters, n, (0,), rows, letters, da.from_array(np.array(atoms), chunks=1), (0,),
                align_arrays=False, concatenate=True, dtype=array.dtype, adjust_chunks={0: atoms},
                meta=np.empty((0,) * array.ndim, array.dtype),
            )  # fmt: skip
        coordinates = {dim: array.coords[dim] for dim in array.dims[1:] if dim in array.coords}
        attributes = {key: value for key, value in array.attrs.items() if key != "ancillary_variables"}
        return xr.DataArray(values, coordinates, ("atom", *array.dims[1:]), array.name, attributes)

    def _atom_chunks(self, samples: Sequence[int]) -> tuple[int, ...]:
        """Return the atoms of each block of samples: known from the atoms' chunks, or else read."""
        for variable in self._ds.variables.values():
            if variable.dims[:1] == ("atom",) and variable.chunks:
                return tuple(variable.chunks[0])
        totals = offsets(np.asarray(self._ds["n_atoms"]))[offsets(samples)]
        return tuple(np.diff(totals).tolist())

    def composition(self) -> xr.DataArray:
        """Return how many atoms of each element every sample has, (sample, element), int32; elements by symbol."""
        from ase.data import chemical_symbols

        values = self._blocks(count_elements, self._ds["numbers"], (0, 1), np.int32, new_axes={1: N_ELEMENTS})
        coordinates = {"element": list(chemical_symbols[:N_ELEMENTS])}
        return xr.DataArray(values, coordinates, ("sample", "element"), "composition", {"units": "1"})

    def _check_atoms(self) -> None:
        check_atoms(self._ds, np.asarray(self._ds["n_atoms"]))

    def per_element(self, name: str | xr.DataArray, how: str = "rms") -> xr.DataArray:
        """Reduce a variable along ``atom`` to the elements: ``mean``, ``rms``, ``max`` or ``count``; NaN for absent ones.

        Dimensions after the first, such as ``teacher``, stay; ``norm_rms`` and so on take the norm of the last one first.
        Missing values are left out. Reads `n_atoms`; the rest is lazy.
        """
        from ase.data import chemical_symbols

        array = with_nan(self._ds[name] if isinstance(name, str) else name, self._ds)
        kind = how.removeprefix("norm_")
        if not array.dims or array.dims[0] != "atom" or kind not in ("mean", "rms", "max", "count"):
            raise DataError(
                f"per_element: expected a variable along atom, and mean, rms, max or count, got {array.dims}, {how!r}"
            )
        self._check_atoms()
        if array.sizes["atom"] != self._ds.sizes["atom"]:
            raise DataError(
                f"per_element: expected {self._ds.sizes['atom']} rows of atoms, got {array.sizes['atom']}; choose samples "
                "of the Dataset with .mlff.isel"
            )
        if array.dtype.kind == "b":
            array = array.astype(float)
        if kind != how:
            _check_norm("per_element", how, array)
            array = (array.astype(float) ** 2).sum(array.dims[-1:], skipna=False) ** 0.5
        numbers = self._ds["numbers"]
        table = np.arange(N_ELEMENTS)
        parts = []
        for z in table[1:]:  # lazily, one element after another; Dask shares the reading
            selected = array.where(numbers == z)
            if kind == "count":
                parts.append(selected.count("atom"))
            elif kind == "rms":
                parts.append((selected.astype(float) ** 2).mean("atom") ** 0.5)
            elif kind == "max" and not len(numbers):  # of no numbers there is no maximum
                parts.append(selected.astype(float).sum("atom") * np.nan)
            else:
                parts.append(getattr(selected.astype(float), kind)("atom"))
        out = xr.concat(parts, "element").assign_coords(element=list(chemical_symbols[1:N_ELEMENTS]))
        out.attrs = {key: array.attrs[key] for key in ("units",) if key in array.attrs and kind != "count"}
        return out.rename(f"{array.name}_{how}")

    def hist(self, name: str | xr.DataArray, bins: int | npt.ArrayLike = 50) -> xr.DataArray:
        """Return the histogram of a variable, missing values left out: counts along ``bin``, whose coordinate is the middle.

        A variable with the dimension ``teacher`` gives one histogram per teacher, over the same bins.

        Parameters
        ----------
        name : str or DataArray
        bins : int or array_like, optional
            Number of bins between the smallest and the largest value (which are computed), or the edges of the bins.
        """
        array = with_nan(self._ds[name] if isinstance(name, str) else name, self._ds)
        if "atom" in array.dims:
            self._check_atoms()
        if array.dtype.kind == "b":
            array = array.astype(float)
        edges = bin_edges(array, bins)
        middle = ("bin", 0.5 * (edges[1:] + edges[:-1]), {"units": array.attrs.get("units", "1")})
        if "teacher" in array.dims:
            parts = [self.hist(array.isel(teacher=t), edges) for t in range(array.sizes["teacher"])]
            return xr.concat(parts, array["teacher"], coords="minimal", compat="override").transpose("bin", "teacher")
        if array.chunks:
            import dask.array as da

            counts: Any = da.histogram(array.data.ravel(), bins=edges)[0]
        else:
            counts = np.histogram(array.values.ravel(), bins=edges)[0]
        return xr.DataArray(counts, {"bin": middle}, ("bin",), f"{array.name}_histogram")

    @property
    def plot(self) -> Plots:
        """Plots: ``size``, ``energy``, ``force``, ``composition``, ``parity``, ``map``. Need matplotlib."""
        from mlffstore.lazy.plots import Plots

        self._check_atoms()
        return Plots(one_form(self._ds))

    def iter_batches(self, n_samples: int = 1024) -> Iterator[SampleBatch]:
        """Yield the samples as batches of columns, in order; one is in memory at a time."""
        if n_samples < 1:
            raise DataError(f"iter_batches: n_samples: expected at least 1, got {n_samples}")
        for start in range(0, self._ds.sizes["sample"], n_samples):
            yield self.isel(slice(start, start + n_samples)).mlff.to_batch()

    def disagreement(self) -> xr.Dataset:
        """Return how much the teachers differ: the standard deviation of the force on an atom over the teachers.

        Returns
        -------
        Dataset
            ``force_max`` and ``force_mean`` along ``sample``, eV/angstrom: over the atoms, the largest and the mean root
            of the sum over x, y, z of the variances. NaN where fewer than two teachers labelled a sample. Energies are
            left out: the zeros of two teachers differ.
        """
        ds = one_form(self._ds)
        if "forces" not in ds or ds.sizes.get("teacher", 0) < 2:
            raise DataError("disagreement: expected forces of at least two teachers")
        forces = ds["forces"]
        several = forces.count("teacher").min("xyz") >= 2
        variance = forces.astype(float).var("teacher").sum("xyz", skipna=False)
        spread = (variance**0.5).where(several)
        spread.attrs["units"] = forces.attrs.get("units", "eV/angstrom")
        return xr.Dataset({"force_max": self.reduce(spread, "max"), "force_mean": self.reduce(spread, "mean")})

    def to_ase(self, teacher: str | None = None) -> list[Atoms]:
        """Read the samples and return them as ASE frames with the labels of a teacher."""
        return self.to_batch().to_ase(teacher)

    def to_batch(self) -> SampleBatch:
        """Read the samples and return them as one batch of columns.

        User columns come along: variables of numbers along ``sample`` or ``atom``, alone or with dimensions of their own.
        Others that are not the store's, such as one with the dimension ``teacher``, are left out, and a warning is logged.

        Raises
        ------
        DataError
            If plain xarray took something away from the samples, such as their atoms.
        """
        from mlffstore.lazy.inputs import to_batch

        return to_batch(self._ds)


def _present(array: xr.DataArray, ds: xr.Dataset) -> Any:
    """Return which samples have a value of a column: one that is missing meets no condition."""
    mask = mask_of(array, ds)
    return True if mask is None else np.asarray(mask)


def _check_norm(what: str, how: str, array: xr.DataArray) -> None:
    """Raise `DataError` if the last dimension of a variable is not that of a vector."""
    if array.ndim < 2 or array.dims[-1] in ("sample", "atom", "teacher"):
        raise DataError(
            f"{what}: {how}: expected a variable whose last dimension is that of a vector, such as xyz, got {array.dims}"
        )


def _strings(name: str, wanted: Any, expected: str = "a string or a list of strings") -> list[str]:
    """Return the strings that a condition of `Mlff.sel` asks for: one, or several."""
    strings = [wanted] if isinstance(wanted, str) else sorted(wanted, key=str) if isinstance(wanted, set) else wanted
    wrong = [wanted] if np.ndim(strings) != 1 else [one for one in strings if not isinstance(one, str)]
    if wrong:
        raise DataError(f"sel: {name}: expected {expected}, got {wrong[0]!r}")
    return [str(one) for one in strings]


def _bounds(name: str, wanted: Any) -> tuple[Any, Any]:
    """Return the lowest and the highest value that a condition of `Mlff.sel` asks for."""
    pair = tuple(wanted) if isinstance(wanted, (tuple, list)) else (wanted, wanted)
    if len(pair) != 2 or not all(isinstance(one, (int, float, np.number, np.bool_)) for one in pair):
        raise DataError(f"sel: {name}: expected a number, or the lowest and the highest as a pair, got {wanted!r}")
    return pair


def _labelled_by(teachers: list[str], ds: xr.Dataset) -> tuple[xr.Dataset, Array]:
    """Return a Dataset with the labels of some teachers, and which samples have any label of them, shape (S,), bool."""
    known = teachers_of(ds)
    if not teachers or set(teachers) - set(known):
        expected = f"some of {', '.join(known)}" if known else "a dataset with labels"
        raise DataError(f"sel: teacher: expected {expected}, got {teachers}")
    others = [name for name, label in label_variables(ds).items() if label.teacher not in (None, *teachers)]
    ds = ds.drop_vars(others)
    if "teacher" in ds.dims:
        ds = ds.sel(teacher=[teacher for teacher in teachers if teacher in ds["teacher"].values])
    has = np.zeros(ds.sizes["sample"], bool)
    for name, label in label_variables(ds).items():
        if has.all():
            break
        shared = label.teacher is None
        finite = np.isfinite(np.asarray(ds[name])).all(axis=tuple(range(1 + shared, ds[name].ndim)))
        finite = finite.any(axis=1) if shared else finite
        has |= finite if label.spec.axis == "sample" else reduce_rows(np.logical_or, finite, offsets(ds["n_atoms"]))
    return ds, has
