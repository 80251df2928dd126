"""`cover`: few samples that have an environment in every cell that any sample has one in (a set cover)."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlffstore.data.ragged import Ints


def cover(starts: Ints, cells: Ints, n_cells: int) -> Ints:
    """Return sets that cover all cells, ascending.

    The greedy choice: the set with most cells that are not covered yet, again and again, needs at most ln(N) + 1 times as
    many sets as the fewest (Chvatal, Math. Oper. Res. 4, 233 (1979)). Sets that others made needless go at the end.

    Parameters
    ----------
    starts : ndarray, shape (S+1,), int64
        Where the cells of each set begin.
    cells : ndarray, int64
        The cells of all sets, one set after another, each cell once per set.
    n_cells : int
    """
    covered = np.zeros(n_cells, bool)
    waiting = [(-int(n), i) for i, n in enumerate(np.diff(starts)) if n]
    heapq.heapify(waiting)
    chosen: list[int] = []
    while waiting:
        gain, i = heapq.heappop(waiting)
        fresh = int(np.count_nonzero(~covered[cells[starts[i] : starts[i + 1]]]))
        if not fresh:
            continue
        if -gain > fresh and waiting and -waiting[0][0] > fresh:  # others may cover more by now
            heapq.heappush(waiting, (-fresh, i))
            continue
        covered[cells[starts[i] : starts[i + 1]]] = True
        chosen.append(i)
    return np.array(sorted(_needed(chosen, starts, cells, n_cells)), np.int64)


def _needed(chosen: list[int], starts: Ints, cells: Ints, n_cells: int) -> list[int]:
    """Leave out sets all of whose cells others cover, the last chosen first."""
    times = np.zeros(n_cells, np.int64)
    for i in chosen:
        times[cells[starts[i] : starts[i + 1]]] += 1
    kept = []
    for i in reversed(chosen):
        own = cells[starts[i] : starts[i + 1]]
        if (times[own] > 1).all():
            times[own] -= 1
        else:
            kept.append(i)
    return kept
