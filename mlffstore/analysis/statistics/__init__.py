"""Statistics of a dataset in one pass: counts, moments, quantiles, energies of the elements, what trainers normalise by.

>>> import mlffstore as ml
>>> found = ml.statistics("d.zarr")  # doctest: +SKIP
>>> found.to_dict(), found.normalisation("orb-v2")  # doctest: +SKIP
"""

from __future__ import annotations

from mlffstore.analysis.statistics.result import Statistics, statistics

__all__ = ["Statistics", "statistics"]
