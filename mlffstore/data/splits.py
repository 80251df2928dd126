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
#: Names of splits in use -> index into `SPLITS`.
_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), 0),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), 1),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), 2),
}
#: Smallest share of a split that samples can be pinned to.
_LEAST = 1e-4


def check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    """Return the fractions in order; raise `DataError` unless they are of the three splits and add up to 1."""
    try:
        values = {name: float(fractions.get(name, 0.0)) for name in SPLITS}
        # NaN fails both comparisons.
        good = all(share >= 0 for share in values.values()) and abs(sum(values.values()) - 1) <= 1e-9
        good = good and not set(fractions) - set(SPLITS)
    except (TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise DataError(
            f"splits: expected fractions of {', '.join(SPLITS)} that are not negative and add up to 1, got {fractions!r}"
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


def named_split(name: str) -> int | None:
    """Return the split that a name in use stands for, as an index into `SPLITS`; None for another name.

    Examples
    --------
    >>> named_split("Validation"), named_split("train"), named_split("water")
    (1, 0, None)
    """
    return _NAMES.get(name.strip().lower())


def pinned(
    root: npt.NDArray[np.uint64],
    codes: npt.NDArray[np.integer],
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> npt.NDArray[np.uint64]:
    """Return roots whose hash decides for given splits: a split that came with the data is kept as it is.

    Parameters
    ----------
    root : ndarray, shape (S,), uint64
    codes : ndarray, shape (S,)
        Wanted split of each sample, an index into `SPLITS`; negative where any will do.
    fractions, seed
        As for `assign`.

    Returns
    -------
    ndarray, shape (S,), uint64
        The root itself where it decides for the wanted split already. Otherwise the first of ``mix(root + k * G)``,
        k = 1, 2, ... that does: samples with one root and one wanted split share the new root, whoever computes it.

    Raises
    ------
    DataError
        If a wanted split has no share in `fractions`.
    """
    from mlffstore.data.hashing import GOLDEN, mix

    values = check_fractions(fractions)
    wanted = np.asarray(codes, np.int64)
    for code in np.unique(wanted[wanted >= 0]).tolist():
        if values[SPLITS[code]] < _LEAST:
            raise DataError(
                f"splits: expected a share of the split {SPLITS[code]!r} of at least {_LEAST}, since samples of it were "
                f"given, got {dict(values)}; make the store with other shares"
            )
    out = np.array(root, np.uint64)
    todo = np.flatnonzero((wanted >= 0) & (assign(out, fractions, seed) != wanted))
    k = np.uint64(0)
    while len(todo):
        k += np.uint64(1)
        with np.errstate(over="ignore"):
            out[todo] = mix(np.asarray(root, np.uint64)[todo] + k * GOLDEN)
        todo = todo[assign(out[todo], fractions, seed) != wanted[todo]]
    return out
