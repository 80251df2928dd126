"""Mergeable summaries of many numbers: moments, and quantiles exact for few and to 0.1 % for many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.schema import Array

#: Relative error of a quantile of more than `EXACT` numbers.
ERROR = 0.001
#: So many numbers are kept as they are, and their quantiles are exact.
EXACT = 1 << 16
_LOG_GAMMA = float(np.log((1 + ERROR) / (1 - ERROR)))
#: Smaller magnitudes count as zero.
_TINY = 1e-12
#: Added to a bin's number so that all are positive, and their sign can stand for that of the number.
_SHIFT = int(np.ceil(-np.log(_TINY) / _LOG_GAMMA)) + 1


@dataclass(frozen=True, slots=True)
class Sketch:
    """Quantiles and histograms of numbers that were never all in memory.

    Attributes
    ----------
    keys, counts : ndarray, int64
        Occupied bins, sorted, and how many numbers each holds. Bin k > 0 holds the numbers with
        ``gamma**(k - shift - 1) < x <= gamma**(k - shift)``, bin -k their negatives, bin 0 what is below 1e-12.
    low, high : float
        Smallest and largest number.
    values : ndarray or None
        The numbers themselves, while there are few.

    Notes
    -----
    The bins are those of DDSketch (Masson, Rim and Lee, PVLDB 12, 2195 (2019)), with a relative error of `ERROR`. Counts are
    whole numbers, so that merging is exact: the result does not depend on how the numbers were divided.
    """

    keys: Array
    counts: Array
    low: float
    high: float
    values: Array | None

    @classmethod
    def of(cls, numbers: Array) -> Sketch:
        """Return the sketch of some numbers; those that are not finite are left out."""
        x = np.asarray(numbers, np.float64).ravel()
        finite = np.isfinite(x)
        if not finite.all():
            x = x[finite]
        if not len(x):
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, np.inf, -np.inf, np.zeros(0))
        size = np.abs(x)
        key = np.zeros(len(x), np.int64)
        big = size >= _TINY
        key[big] = np.ceil(np.log(size[big]) / _LOG_GAMMA).astype(np.int64) + _SHIFT
        np.negative(key, where=x < 0, out=key)
        first = int(key.min())
        counts = np.bincount(key - first)
        keys = np.flatnonzero(counts)
        low, high = float(x.min()), float(x.max())
        return cls(keys + first, counts[keys], low, high, x if len(x) <= EXACT else None)

    @classmethod
    def merge(cls, parts: Sequence[Sketch]) -> Sketch:
        """Return the sketch of all numbers together."""
        keys, place = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, place, np.concatenate([part.counts for part in parts]))
        several = [part.values for part in parts if part.values is not None]
        values = None
        if len(several) == len(parts) and counts.sum() <= EXACT:
            values = np.concatenate(several)
        return cls(keys, counts, min(part.low for part in parts), max(part.high for part in parts), values)

    @property
    def n(self) -> int:
        """How many numbers there are."""
        return int(self.counts.sum())

    @property
    def error(self) -> float:
        """Relative error of a quantile."""
        return 0.0 if self.values is not None else ERROR

    def quantile(self, q: float) -> float:
        """Return a quantile; NaN if there is nothing. Few numbers are interpolated linearly, as NumPy does."""
        if not self.n:
            return float("nan")
        if self.values is not None:
            return float(np.quantile(self.values, q))
        rank = q * (self.n - 1)
        key = int(self.keys[np.searchsorted(np.cumsum(self.counts), rank, side="right").clip(max=len(self.keys) - 1)])
        return float(np.clip(_middle(np.array([key]))[0], self.low, self.high))

    def histogram(self, edges: Array) -> Array:
        """Return how many numbers lie between the edges, shape (len(edges) - 1,), int64; exact while there are few."""
        x, weights = (self.values, None) if self.values is not None else (_middle(self.keys), self.counts)
        counts, _ = np.histogram(x, edges, weights=weights)
        return counts.astype(np.int64)


def _middle(keys: Array) -> Array:
    """Return the number in each bin from which no other is further than `ERROR`, relatively."""
    size = np.exp((np.abs(keys) - _SHIFT) * _LOG_GAMMA) * (1 - ERROR)
    return np.where(keys == 0, 0.0, np.sign(keys) * size)


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of numbers in groups, with their smallest and largest.

    All attributes are arrays of one entry per group. Merged by the formulas of Chan, Golub and LeVeque (1979), which do not
    cancel as sums of squares do.
    """

    n: Array
    mean: Array
    m2: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, numbers: Array, groups: Array | None = None, n_groups: int = 1) -> Moments:
        """Return the moments of numbers, shape (N,), in groups given by codes; those that are not finite are left out."""
        x = np.asarray(numbers, np.float64).ravel()
        code = np.zeros(len(x), np.int64) if groups is None else np.asarray(groups, np.int64)
        finite = np.isfinite(x)
        if not finite.all():
            x, code = x[finite], code[finite]
        n = np.bincount(code, minlength=n_groups)
        mean = np.bincount(code, x, minlength=n_groups) / np.maximum(n, 1)
        with np.errstate(over="ignore"):  # of numbers beyond 1e154; then the deviation is infinite
            m2 = np.bincount(code, (x - mean[code]) ** 2, minlength=n_groups)
        low, high = np.full(n_groups, np.inf), np.full(n_groups, -np.inf)
        np.minimum.at(low, code, x)
        np.maximum.at(high, code, x)
        return cls(n, mean, m2, low, high)

    @classmethod
    def merge(cls, parts: Sequence[Moments]) -> Moments:
        """Return the moments of all numbers together."""
        n = np.sum([part.n for part in parts], axis=0)
        mean = np.sum([part.n * part.mean for part in parts], axis=0) / np.maximum(n, 1)
        with np.errstate(over="ignore"):
            m2 = np.sum([part.m2 + part.n * (part.mean - mean) ** 2 for part in parts], axis=0)
        low, high = np.min([part.low for part in parts], axis=0), np.max([part.high for part in parts], axis=0)
        return cls(n, mean, m2, low, high)

    @property
    def std(self) -> Array:
        """Standard deviation (of the population), NaN for empty groups."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt(self.m2 / self.n))

    @property
    def rms(self) -> Array:
        """Root mean square, NaN for empty groups."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.asarray(np.sqrt(self.m2 / self.n + self.mean**2))

    def total(self) -> Moments:
        """Return the moments of all groups together."""
        return Moments.merge(
            [Moments(*(getattr(self, k)[i : i + 1] for k in self.__slots__)) for i in range(len(self.n))]
        )

    def row(self, i: Any = 0) -> dict[str, Any]:
        """Return one group as plain numbers."""
        if not self.n[i]:
            return {"n": 0}
        return {
            "n": int(self.n[i]), "mean": float(self.mean[i]), "std": float(self.std[i]), "rms": float(self.rms[i]),
            "min": float(self.low[i]), "max": float(self.high[i]),
        }  # fmt: skip
