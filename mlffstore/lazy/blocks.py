"""One pass over a Dataset of ragged columns: a function of blocks of whole samples, its results merged in a tree.

Dask decides where the blocks run: in threads, or on the active distributed client. At most a few blocks per worker and the
merged results are in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from mlffstore.data.ragged import offsets
from mlffstore.data.schema import LABELS
from mlffstore.lazy.chunks import chunked
from mlffstore.lazy.inputs import HASHED, check_rows, teachers_of
from mlffstore.runtime.dask_client import require_scheduler

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
    n_teachers : int
        Teachers of the dataset, see `mlffstore.lazy.inputs.teachers_of`.
    """

    first: int
    columns: dict[str, Array]
    starts: Ints
    n_teachers: int = 0

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
        n_teachers = next((self.columns[name].shape[1] for name in LABELS if name in self.columns), self.n_teachers)
        return np.full((len(self), n_teachers), np.nan)


@dataclass(frozen=True, slots=True)
class Pass(Generic[T]):
    """A pass that was not run yet.

    Attributes
    ----------
    delayed : dask.delayed.Delayed
        It computes the merged result.
    n_blocks : int
    """

    delayed: Any
    n_blocks: int

    def compute(self) -> T:
        """Run the pass; Dask decides where.

        Raises
        ------
        ExecutorError
            If the active Dask client has no connection to its scheduler.
        """
        require_scheduler()
        return self.delayed.compute()  # type: ignore[no-any-return]


def sample_pass(
    ds: xr.Dataset, names: Sequence[str], function: Callable[[Block], T], merge: Callable[[Sequence[T]], T]
) -> Pass[T]:
    """Prepare a pass over some variables of a dataset.

    Parameters
    ----------
    ds : Dataset
        A Dataset of one form, lazy or in memory; see `mlffstore.lazy.inputs.one_form`.
    names : sequence of str
        Variables that the function uses. `n_atoms` is always included; variables that the dataset lacks are left out.
    function : callable
        It computes the result of a `Block`.
    merge : callable
        It merges several results in the order of the samples, and must be associative.
    """
    from dask.delayed import delayed

    hashed = HASHED if all(name in ds.variables for name in HASHED) else ()
    wanted = dict.fromkeys(name for name in ("n_atoms", *names, *hashed) if name in ds.variables)
    n_teachers = len(teachers_of(ds))
    ds = chunked(ds[list(wanted)])
    columns = {str(name): ds[name].data.to_delayed().reshape(ds[name].data.numblocks) for name in ds.data_vars}
    starts = offsets(ds.chunks["sample"])
    run = delayed(_run, pure=False)
    level = [
        run(
            function,
            int(starts[i]),
            {name: parts[(i, *(0,) * (parts.ndim - 1))] for name, parts in columns.items()},
            n_teachers,
        )
        for i in range(len(starts) - 1)
    ]
    n_blocks = len(level)
    join = delayed(merge, pure=False)
    while len(level) > 1:
        level = [join(level[i : i + _FAN]) for i in range(0, len(level), _FAN)]
    return Pass(level[0], n_blocks)


def _run(function: Callable[[Block], T], first: int, columns: dict[str, Array], n_teachers: int) -> T:
    starts = offsets(columns["n_atoms"])
    check_rows(columns, starts)
    return function(Block(first, columns, starts, n_teachers))
