"""`Window`: the arrays of one or several batches, filled in one call of a kernel. Torch is not needed here.

The memory of a window can serve again. Whether it may is decided by leases, see `Window.lend`: what a user keeps of a batch,
for however long, is never overwritten.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.training.layout import ALIGN, in_memory

if TYPE_CHECKING:
    from mlffstore.data.schema import Array
    from mlffstore.training.columns import Columns

#: Names of the columns with a row for each atom, beside user columns.
ATOM = frozenset({"numbers", "positions", "forces", "batch"})
#: Names that batches give to what is no user column.
RESERVED = ATOM | {
    "cell", "pbc", "charge", "multiplicity", "n_atoms", "energy", "stress", "ptr", "edge_index", "shift", "energy_mask",
    "forces_mask", "stress_mask",
}  # fmt: skip


class Window:
    """Columns of one or several batches, filled in one call of a kernel.

    Its arrays can be larger than what is used, so that they serve again.

    Attributes
    ----------
    columns : dict of str to ndarray
        The memory. Only `fill` and `lend` use it: a view of these arrays is no lease.
    atom : frozenset of str
        Names of the columns with a row per atom.
    batch_size : int
        Samples per batch.
    n, atoms : int
        Samples and atoms that are used.
    room : int
        Atoms for which there is memory.
    """

    __slots__ = ("_extra", "_leases", "_memory", "atom", "atoms", "batch_size", "columns", "n", "room")

    def __init__(
        self,
        columns: dict[str, Array],
        atom: frozenset[str],
        batch_size: int,
        n: int,
        atoms: int,
        room: int,
        hidden: frozenset[str],
        extra: ExtraRoom,
    ) -> None:
        self._extra = extra
        self.columns, self.atom, self.batch_size, self.n, self.atoms, self.room = (
            columns, atom, batch_size, n, atoms, room
        )  # fmt: skip
        self._memory = {
            name: ("ptr" if name == "ptr" else "atom" if name in atom else "sample", x.shape[1:], x.dtype, _buffer(x))
            for name, x in columns.items()
            if name not in hidden
        }
        self._leases: list[weakref.ref[Array]] = []

    @classmethod
    def empty(cls, n: int, batch_size: int, atoms: int, like: Columns, real: Any, room: int | None = None) -> Window:
        """Return a window for `n` samples with room for so many atoms."""
        room = atoms if room is None else room
        columns = {
            "numbers": np.empty(room, np.int64),
            "positions": np.empty((room, 3), real),
            "batch": np.empty(room, np.int64),
            "ptr": np.empty((-(-n // batch_size), batch_size + 1), np.int64),
            "n_atoms": np.empty(n, np.int64),
            "energy": np.empty(n, np.float64),
            "cell": np.empty((n, 3, 3), real),
            "pbc": np.empty((n, 3), np.bool_),
            "charge": np.empty(n, np.int64),
            "multiplicity": np.empty(n, np.int64),
        }
        if like.has_forces:
            columns["forces"] = np.empty((room, 3), real)
        if like.has_stress:
            columns["stress"] = np.empty((n, 6), real)
        extra = ExtraRoom(like, n, room)
        columns |= extra.columns
        return cls(columns, ATOM | extra.atom, batch_size, n, atoms, room, like.hidden, extra)

    def fill(self, index: Array, source: Columns) -> None:
        """Copy the samples at `index`. The interpreter's lock is not held meanwhile.

        Raises
        ------
        CorruptionError
            If the bytes of a sample are not what was written.
        """
        from mlffstore.training.kernels import gather

        c, real, extra = self.columns, self.columns["positions"].dtype, self._extra
        nothing = np.zeros(0, real)
        bad = gather(
            index, self.batch_size, source.begin, source.n_atoms, source.records, source.record_bytes, source.rows,
            c["numbers"], c["positions"].reshape(-1), c["forces"].reshape(-1) if "forces" in c else nothing, c["batch"],
            c["ptr"], c["n_atoms"], c["energy"], c["cell"].reshape(-1, 9), c.get("stress", nothing.reshape(0, 6)),
            c["pbc"], c["charge"], c["multiplicity"], source.records.view(np.uint64), source.rows.view(np.uint64),
            source.sums, source.checked, source.floats, source.extra_rows, source.extra_rows.view(np.uint64),
            source.extra_sums, source.extra_checked, extra.flags, extra.of_atoms, extra.of_samples, extra.of_flags,
            extra.memory,
        )  # fmt: skip
        if bad >= 0:
            raise source.damaged(bad)

    def lend(self) -> dict[str, Array]:
        """Return what is used of the columns as new arrays over the same memory, lent as long as anything uses one of them.

        A tensor that `torch.from_numpy` makes of such an array keeps the array alive with its storage, which all views of
        the tensor share.
        """
        # NumPy makes the base of a view the last array that is no view itself. Over a buffer that is the lease: over an
        # array, or a memoryview of one, it would be that array, and the lease would end before the views of it do.
        rows = {"atom": self.atoms, "ptr": -(-self.n // self.batch_size), "sample": self.n}
        leases = {
            name: np.ndarray((rows[axis], *shape), dtype, buffer=memory)
            for name, (axis, shape, dtype, memory) in self._memory.items()
        }
        self._leases = [weakref.ref(lease) for lease in leases.values()]
        return leases

    @property
    def is_lent(self) -> bool:
        """Whether an array that the last `lend` returned, or anything made of it, is still in use."""
        return any(lease() is not None for lease in self._leases)


class ExtraRoom:
    """Memory of a window for the masks of labels and for extra columns, and where the kernel finds and puts each of them.

    Parameters
    ----------
    like : Columns
        Which columns there are.
    n, atoms : int
        Samples and atoms for which there is room.

    Attributes
    ----------
    memory : ndarray, uint8
    columns : dict of str to ndarray
        Parts of the memory, as `Window.columns` has them.
    atom : frozenset of str
        Names of those with a row per atom.
    flags : ndarray, shape (S, F), uint8
        The masks of labels of all samples.
    of_atoms, of_samples, of_flags : ndarray, shape (C, 3), int64
        See `mlffstore.training.kernels.gather`.
    """

    __slots__ = ("atom", "columns", "flags", "memory", "of_atoms", "of_flags", "of_samples")

    def __init__(self, like: Columns, n: int, atoms: int) -> None:
        self.flags = like.flags
        # Name -> kind, first byte at the source, dtype and shape of a row.
        parts: dict[str, tuple[str, int, Any, tuple[int, ...]]] = {
            f"{name}_mask": ("flag", i, np.dtype(np.bool_), ()) for i, name in enumerate(like.masks)
        }
        for name, column in like.extra.items():
            parts[name] = (column.axis, column.offset, np.dtype(column.dtype), column.shape)
            if column.mask >= 0:
                parts[f"{name}_mask"] = (column.axis, column.mask, np.dtype(np.bool_), ())
        places: dict[str, list[tuple[int, int, int]]] = {"atom": [], "sample": [], "flag": []}
        ends, end = {}, 0
        for name, (kind, at, dtype, shape) in parts.items():
            row, rows = dtype.itemsize * math.prod(shape), atoms if kind == "atom" else n
            if row:
                places[kind].append((at, row, end))
            ends[name] = end, end + row * rows
            end += -(-row * rows // ALIGN) * ALIGN
        self.memory = in_memory("window", np.uint8, (end,))
        self.columns = {
            name: self.memory[slice(*ends[name])].view(dtype).reshape(atoms if kind == "atom" else n, *shape)
            for name, (kind, _, dtype, shape) in parts.items()
        }
        self.atom = frozenset(name for name, part in parts.items() if part[0] == "atom")
        self.of_atoms, self.of_samples, self.of_flags = (
            np.array(places[kind], np.int64).reshape(-1, 3) for kind in ("atom", "sample", "flag")
        )


def _buffer(array: Array) -> Any:
    """Return the memory of an array as a buffer that is no array; it keeps the array alive."""
    return (ctypes.c_char * array.nbytes).from_buffer(array.data)


class WindowPool:
    """Windows to be filled again: fresh memory costs a page fault for every 4 KiB.

    Several threads may use it without a lock, since each step is one atomic operation on a deque.

    Parameters
    ----------
    size : int
        Windows that are kept while they are lent; more are left to those that use them.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._windows: deque[Window] = deque()

    def __reduce__(self) -> tuple[type[WindowPool], tuple[int]]:
        """Copy and pickle the pool without its windows."""
        return WindowPool, (self.size,)

    def __len__(self) -> int:
        return len(self._windows)

    def put(self, window: Window) -> None:
        """Keep a window, which may be lent."""
        self._windows.append(window)

    def take(self, n: int, atoms: int, batch_size: int) -> Window | None:
        """Return a window that is not lent, for `n` samples and so many atoms, or None.

        Windows that are too small are removed.
        """
        for _ in range(len(self._windows)):
            try:
                window = self._windows.popleft()
            except IndexError:  # another thread took it
                return None
            if window.is_lent:
                if len(self._windows) < self.size:
                    self._windows.append(window)
            elif window.room >= atoms and len(window.columns["n_atoms"]) >= n and window.batch_size == batch_size:
                window.n, window.atoms = n, atoms
                return window
        return None
