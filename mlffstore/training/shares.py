"""How the ranks of a distributed training share the samples of an epoch. Pure arithmetic; nothing is read here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.casting import integer
from mlffstore.data.ragged import offsets
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array


def check_rank(rank: int, world_size: int) -> tuple[int, int]:
    """Return rank and world size as int; raise `DataError` unless the rank is one of the world."""
    rank, world_size = integer("rank", rank, least=0), integer("world_size", world_size, least=1)
    if rank >= world_size:
        raise DataError(f"rank: expected 0 to {world_size - 1} of world_size={world_size}, got {rank}")
    return rank, world_size


def n_batches(n: int, batch_size: int, world_size: int = 1, *, drop_last: bool = False) -> int:
    """Return how many batches each rank gets of `n` samples."""
    full, rest = _steps(n, batch_size, world_size, drop_last)
    return full - (-rest // (batch_size * world_size))


def batch_sizes(n: int, batch_size: int, rank: int = 0, world_size: int = 1, *, drop_last: bool = False) -> Ints:
    """Return the samples of each batch that a rank gets of `n` samples, see `share`, shape (B,), int64."""
    full, rest = _steps(n, batch_size, world_size, drop_last)
    n_last = -(-rest // (batch_size * world_size)) * world_size
    last = rest // max(n_last, 1) + (np.arange(n_last) < rest % max(n_last, 1))
    return np.concatenate([np.full(full, batch_size), last[rank::world_size]])


def share(
    order: Array, batch_size: int, *, rank: int = 0, world_size: int = 1, drop_last: bool = False
) -> tuple[Array, Ints]:
    """Return the part of an epoch that a rank gets.

    Batch ``rank``, ``rank + world_size``, ... of the epoch. All ranks get equally many batches, since they wait for each
    other after each, and every sample is in one batch of one rank: the samples that are left for the last batches are spread
    evenly over all ranks, so that these batches are smaller than the others and none is empty.

    Parameters
    ----------
    order : ndarray, shape (N,), int64
        All samples of the epoch, in order.
    batch_size : int
    rank, world_size : int, optional
    drop_last : bool, optional
        Leave out the samples that do not fill a batch of every rank.

    Returns
    -------
    samples : ndarray, shape (n,), int64
        The rank's samples, in order.
    sizes : ndarray, shape (B,), int64
        Samples of each of its batches: `batch_size`, but for the last one or two.

    Notes
    -----
    Where that cannot be, with fewer samples than ranks, or with batches of one sample whose number the ranks do not divide,
    the first samples of the epoch are repeated at the end, as `torch.utils.data.DistributedSampler` does.
    """
    full, rest = _steps(len(order), batch_size, world_size, drop_last)
    step = batch_size * world_size
    if world_size == 1:
        return order[: full * step + rest], batch_sizes(len(order), batch_size, drop_last=drop_last)
    if full * step + rest > len(order):
        order = np.resize(order, full * step + rest)
    sizes = [batch_sizes(len(order), batch_size, r, world_size, drop_last=drop_last) for r in range(world_size)]
    ends = full * step + offsets(np.stack([sizes_of_rank[full:] for sizes_of_rank in sizes], axis=1).reshape(-1))
    regular = order[: full * step].reshape(-1, world_size, batch_size)[:, rank].reshape(-1)
    last = [order[ends[k] : ends[k + 1]] for k in range(rank, len(ends) - 1, world_size)]
    return np.concatenate([regular, *last]), sizes[rank]


def _steps(n: int, batch_size: int, world_size: int, drop_last: bool) -> tuple[int, int]:
    """Return the steps with a full batch for every rank, and the samples of the one or two steps after them.

    The samples can be more than `n` in all.
    """
    step = batch_size * world_size
    full, rest = divmod(n, step)
    if drop_last or not rest:
        return full, 0
    if rest < world_size and full and batch_size > 1:
        return full - 1, rest + step  # too few for one step: the one before gives some of its samples
    return full, max(rest, world_size)
