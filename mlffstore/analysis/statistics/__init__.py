"""Statistics of a dataset in one pass: counts, moments, quantiles, energies of the elements, what trainers normalise by.

>>> import mlffstore as ml
>>> stats = ml.statistics("d.zarr")  # doctest: +SKIP
>>> stats.to_dict(), stats.normalisation("orb-v2")  # doctest: +SKIP
"""

from __future__ import annotations

from mlffstore.analysis.statistics.result import Statistics, statistics

__all__ = ["Statistics", "statistics"]
