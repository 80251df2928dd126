"""The slopes of energies against the works of forces and stress: what pairs of samples say of units and signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlffstore.analysis.validation.work import Work
    from mlffstore.data.schema import Array

#: Works, in the order of the slopes.
WORKS = ("force_work", "normal_work", "shear_work")
#: A work counts in a pair if it is at least this share of the typical one.
_SMALLEST = 0.1
#: Pairs for each coefficient of the fit below which the errors of the trapezoid rule are not fitted too.
_PAIRS_EACH = 8
#: Rounds of reweighting of the least absolute deviations; the last ones change nothing in the fourth digit.
_ROUNDS = 40


@dataclass(frozen=True, slots=True)
class Slope:
    """The slope of energies against a work.

    Attributes
    ----------
    n : int
        Number of pairs in which the work counts.
    value, error : float
        Slope and its standard error; 1 is right. Least absolute deviations: single wrong labels do not move it.
    correlation : float
        Spearman's rank correlation of this work and of what the other works leave of the energies.
    expected : float
        The correlation that the slope and its error imply. It is lower if some pairs do not follow the slope that others
        have: energies of two calculations, components of the stress in another order.
    left : float
        Share of the energies that all works together leave (medians).
    """

    n: int
    value: float
    error: float
    correlation: float
    expected: float
    left: float


def slopes(work: Work, teacher: int) -> dict[str, Slope]:
    """Return the slope of the energies against each of `WORKS` of a teacher, of all of them together.

    Parameters
    ----------
    work : Work
    teacher : int
        Index of the teacher.

    Notes
    -----
    The errors of the trapezoid rule grow with the curvature of the energy along the pair: pairs count by the inverse of
    their curvatures, each relative to the typical one, so that no unit has a say in the weights.

    The largest of these errors is systematic. A solid that is compressed is stiffer, so that the energy has a third
    derivative along every line on which the volume changes: in proportion to the change of the volume and the curvature.
    Two more coefficients, which are not returned, take it up. Without them the slope against the forces was 0.13 to 1
    between clean crystals strained by up to 3 % and rattled by up to 0.1 angstrom, with them it is 0.74 to 1.
    """
    work = work.select(work.teacher == teacher)
    x = np.stack([getattr(work, name) for name in WORKS], axis=1)
    typical = _typical(x)
    used = np.flatnonzero(typical > 0)
    out = {name: Slope(0, *[float("nan")] * 5) for name in WORKS}
    relative = np.abs(x[:, used]) / typical[used]
    counts = relative > _SMALLEST
    if len(work.first) <= len(used) + 1 or not len(used):
        return out
    curvatures = np.stack([work.curvature, work.stress_curvature], axis=1)
    scale = np.sqrt((_relative(curvatures) ** 2).sum(axis=1)) + _SMALLEST
    third = work.dilation[:, None] * curvatures
    third = third[:, np.abs(third).max(axis=0) > 0]
    third /= np.maximum(np.abs(third).max(axis=0), 1e-300)
    b, share = work.energy / scale, _effective(work)

    def fit(more: Array) -> tuple[Array, Array, Array]:
        a = np.concatenate([x[:, used] / typical[used], more], axis=1) / scale[:, None]
        return a, *_least_absolute(a, b, share)

    few = third.shape[1] > 0 and len(work.first) < _PAIRS_EACH * (len(used) + third.shape[1])
    a, fitted, error = fit(third[:, :0] if few else third)
    if few and len(work.first) > len(used) + third.shape[1] + 1:
        # Too few pairs for these coefficients, but not too few to see how much they could matter.
        error = np.hypot(error, np.abs(fitted - fit(third)[1][: len(used)]))
    rest = float(np.median(np.abs(b - a @ fitted)) / max(float(np.median(np.abs(b))), 1e-300))
    for k, i in enumerate(used):
        chosen = counts[:, k]
        others = [j for j in range(a.shape[1]) if j != k]
        left = (b - a[:, others] @ fitted[others])[chosen]
        out[WORKS[i]] = Slope(
            int(chosen.sum()), float(fitted[k] / typical[i]), float(error[k] / typical[i]),
            _rank_correlation(a[chosen, k], left),
            float(1 / np.sqrt(1 + share * chosen.sum() * (error[k] / fitted[k]) ** 2)) if fitted[k] else 0.0, rest,
        )  # fmt: skip
    return out


def _typical(x: Array) -> Array:
    """Return the median of the sizes that are not 0 of each column, or 0."""
    size = np.abs(x)
    return np.array([np.median(column[column > 0]) if (column > 0).any() else 0.0 for column in size.T])


def _relative(x: Array) -> Array:
    typical = _typical(x)
    return np.abs(x) / np.where(typical > 0, typical, 1.0)


def _effective(work: Work) -> float:
    """Return the share of the pairs that count as independent: no more of them than there are samples."""
    samples = len(np.unique(np.concatenate([work.first, work.second])))
    return min(1.0, samples / len(work.first))


def _least_absolute(a: Array, b: Array, share: float) -> tuple[Array, Array]:
    """Return the coefficients of least absolute deviations and their standard errors."""
    weight: Array = np.ones(len(b))
    x: Array = np.zeros(a.shape[1])
    smallest = 1e-6 * max(float(np.median(np.abs(b))), 1e-300)
    for _ in range(_ROUNDS):
        x = np.linalg.lstsq(a * weight[:, None], b * weight, rcond=None)[0]
        weight = 1 / np.sqrt(np.maximum(np.abs(b - a @ x), smallest))
    spread = 1.2533 * 1.4826 * float(np.median(np.abs(b - a @ x)))
    covariance = np.linalg.pinv(a.T @ a) / share
    return x, spread * np.sqrt(np.diag(covariance))


def _rank_correlation(x: Array, y: Array) -> float:
    """Return Spearman's rank correlation of pairs that can be taken in either direction: of both directions together."""
    if len(x) < 2:
        return float("nan")
    ranks = [np.argsort(np.argsort(np.concatenate([one, -one]), kind="stable")) for one in (x, y)]
    return float(np.corrcoef(ranks[0].astype(np.float64), ranks[1].astype(np.float64))[0, 1])
