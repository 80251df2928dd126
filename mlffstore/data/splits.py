"""Splits: which samples train, validate and test, decided by a hash of their root.

All descendants of a seed fall into one split, a growing store never reshuffles, and every reader that knows the seed and
the fractions agrees. Nothing is stored per sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: In the order in which the unit interval is cut.
SPLITS = ("train", "val", "test")
DEFAULT_FRACTIONS: dict[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}


def check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    """Return the fractions in order; raise `DataError` unless they are of the three splits and add up to 1."""
    values = {name: float(fractions.get(name, 0.0)) for name in SPLITS}
    if set(fractions) - set(SPLITS) or min(values.values()) < 0 or abs(sum(values.values()) - 1) > 1e-9:
        raise DataError(
            f"splits: expected fractions of {', '.join(SPLITS)} that are not negative and add up to 1, got {dict(fractions)}"
        )
    return values


def assign(
    root: npt.NDArray[np.uint64], fractions: Mapping[str, float] = DEFAULT_FRACTIONS, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Return the split of each sample as an index into `SPLITS`.

    Parameters
    ----------
    root : ndarray, shape (S,), uint64
        What names the seed of each sample; see ``docs/format.md``.
    fractions : mapping, optional
        Share of each split; they add up to 1.
    seed : int, optional
        Another seed gives another split.

    Returns
    -------
    ndarray, shape (S,), uint8

    Notes
    -----
    With ``mix`` of `mlffstore.data.hashing`, ``u = (mix(root ^ mix(seed + G)) >> 11) / 2**53`` is uniform in [0, 1), and the
    split is the first whose cumulative fraction exceeds it.

    Examples
    --------
    >>> assign(np.arange(5, dtype=np.uint64)).tolist() == assign(np.arange(9, dtype=np.uint64)).tolist()[:5]
    True
    """
    from mlffstore.data.hashing import GOLDEN, mix

    values = check_fractions(fractions)
    salt = mix(np.array([seed % 2**64], np.uint64) + GOLDEN)
    u = (mix(np.asarray(root, np.uint64) ^ salt) >> np.uint64(11)).astype(np.float64) / 2.0**53
    edges = np.cumsum([values[name] for name in SPLITS])[:-1]
    return np.searchsorted(edges, u, side="right").astype(np.uint8)
