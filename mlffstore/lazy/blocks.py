"""One pass over a Dataset of ragged columns: a function of blocks of whole samples, its results merged in a tree.

Dask decides where the blocks run: in threads, or on the active distributed client. At most a few blocks per worker and the
merged results are in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from mlffstore.data.ragged import cut, offsets
from mlffstore.data.schema import LABELS
from mlffstore.errors import DataError
from mlffstore.lazy.inputs import HASHED, check_atoms, check_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array

T = TypeVar("T")
#: Results merged at a time.
_FAN = 8


@dataclass(frozen=True, slots=True)
class Block:
    """Whole samples, as plain arrays.

    Attributes
    ----------
    first : int
        Index of the first sample in the dataset.
    columns : dict of str to ndarray
        Variables by name; labels have the teacher as their second axis.
    starts : ndarray, shape (S+1,), int64
        Rows of the first atoms.
    """

    first: int
    columns: dict[str, Array]
    starts: Ints

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def energy(self) -> Array:
        """Energies, shape (S, T); NaN if there are other labels alone, and T = 0 without any."""
        if "energy" in self.columns:
            return self.columns["energy"]
        n_teachers = next((self.columns[name].shape[1] for name in LABELS if name in self.columns), 0)
        return np.full((len(self), n_teachers), np.nan)


@dataclass(frozen=True, slots=True)
class Pass(Generic[T]):
    """A pass that has not run yet.

    Attributes
    ----------
    delayed : dask.delayed.Delayed
        Gives the merged result.
    n_blocks : int
    """

    delayed: Any
    n_blocks: int

    def compute(self) -> T:
        """Run it where Dask decides."""
        return self.delayed.compute()  # type: ignore[no-any-return]


def sample_pass(
    ds: xr.Dataset, names: Sequence[str], function: Callable[[Block], T], merge: Callable[[Sequence[T]], T]
) -> Pass[T]:
    """Prepare a pass over some variables of a dataset.

    Parameters
    ----------
    ds : Dataset
        As the engine ``mlffstore`` opens it, or with arrays in memory.
    names : sequence of str
        Variables that the function wants; `n_atoms` comes anyway, those that the dataset lacks are left out.
    function : callable
        Of a `Block`.
    merge : callable
        Of several results, in the order of the samples. Associative.
    """
    from dask.delayed import delayed

    hashed = HASHED if all(name in ds.variables for name in HASHED) else ()
    wanted = dict.fromkeys(name for name in ("n_atoms", *names, *hashed) if name in ds.variables)
    ds = chunked(ds[list(wanted)])
    columns = {str(name): ds[name].data.to_delayed().reshape(ds[name].data.numblocks) for name in ds.data_vars}
    starts = offsets(ds.chunks["sample"])
    run = delayed(_run, pure=False)
    level = [
        run(function, int(starts[i]), {name: parts[(i, *(0,) * (parts.ndim - 1))] for name, parts in columns.items()})
        for i in range(len(starts) - 1)
    ]
    n_blocks = len(level)
    join = delayed(merge, pure=False)
    while len(level) > 1:
        level = [join(level[i : i + _FAN]) for i in range(0, len(level), _FAN)]
    return Pass(level[0], n_blocks)


def _run(function: Callable[[Block], T], first: int, columns: dict[str, Array]) -> T:
    starts = offsets(columns["n_atoms"])
    check_rows(columns, starts)
    return function(Block(first, columns, starts))


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
    samples, atoms = cut(counts)
    return ds.chunk({"sample": samples, **({"atom": atoms} if "atom" in ds.dims else {}), **whole})


def _fits(ds: xr.Dataset, samples: tuple[int, ...], atoms: tuple[int, ...]) -> bool:
    """Return whether chunks of atoms and samples pair off. Whether each pair fits, each block checks when it runs."""
    return len(samples) == len(atoms) and all(
        v.chunks is None
        or ("atom" in v.dims and v.chunks[0] == atoms)
        or ("sample" in v.dims and v.chunks[0] == samples)
        for v in ds.variables.values()
    )
