"""`coverage`: how much of the atomic environments of all samples those of chosen samples cover."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlffstore.analysis.choosing.environments import BANDWIDTH, environments
from mlffstore.data.schema import STRUCTURE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array

#: Environments that are drawn of all samples, and of the chosen samples among which they are looked for, at most.
N_WANTED, N_KEPT = 5_000, 50_000
#: Environments of one sample, at most.
_PER_SAMPLE = 10
#: Nats: what counts as covered where no threshold was given. Thermal motion at 300 K makes about so much.
DEFAULT_THRESHOLD = 20.0


class ReadableStructures(Protocol):
    """What a choice by structure needs of samples; see `mlffstore.store.samples.Samples`."""

    def __len__(self) -> int: ...

    def blocks(
        self, indices: Ints | None = None, *, teacher: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[SampleBatch]:
        """Yield samples, some at a time."""
        ...

    def to_xarray(self) -> xr.Dataset:
        """Return a lazy Dataset."""
        ...


def radius_of(threshold: float) -> float:
    """Return the distance of descriptors, 1/angstrom, at which one environment covers another.

    The differential entropy of an environment with respect to others is -ln of the sum of exp(-d^2 / (2 h^2)) over their
    distances d, with the bandwidth h (arXiv:2404.12367). One of them at this distance suffices for the threshold.
    """
    return float(BANDWIDTH * np.sqrt(2 * threshold))


def coverage(
    samples: ReadableStructures, chosen: Ints, *, threshold: float = DEFAULT_THRESHOLD, seed: int
) -> dict[str, Any]:
    """Return how much of the environments is covered, measured on some that are drawn at random.

    Parameters
    ----------
    samples : Samples
    chosen : ndarray, shape (k,), int64
        Indices of the chosen samples.
    threshold : float, optional
        Nats; see `radius_of`.
    seed : int

    Returns
    -------
    dict
        ``samples`` and ``kept``; ``environments``, how many were drawn; ``covered``, the share of them that a chosen
        sample covers up to the ``threshold`` (all that a large choice leaves undrawn count as not there, so that it is
        rather too small); ``novelty_median`` and ``novelty_99``, quantiles of their differential entropies, nats.
    """
    out: dict[str, Any] = {"samples": len(samples), "kept": len(chosen), "threshold": threshold}
    if not len(chosen):
        return out | {"environments": 0, "covered": 0.0, "novelty_median": None, "novelty_99": None}
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    kept = _draw(samples, chosen, N_KEPT, None, rng)
    wanted = _draw(samples, np.arange(len(samples)), N_WANTED, _PER_SAMPLE, rng)
    distance = cKDTree(kept).query(wanted)[0]
    novelty = distance**2 / (2 * BANDWIDTH**2)
    return out | {
        "environments": len(wanted),
        "covered": float(np.mean(novelty <= threshold + 1e-9)),
        "novelty_median": float(np.median(novelty)),
        "novelty_99": float(np.quantile(novelty, 0.99)),
    }


def _draw(samples: ReadableStructures, index: Ints, n: int, per_sample: int | None, rng: np.random.Generator) -> Array:
    """Return descriptors of about `n` environments of samples that are drawn at random, some of each."""
    order = index[rng.permutation(len(index))]
    parts: list[Array] = []
    total = start = 0
    while total < n and start < len(order):
        some = np.sort(order[start : start + 256])
        start += 256
        for batch in samples.blocks(some, columns=list(STRUCTURE)):
            for one in environments(batch.to_ase()):
                rows = one if per_sample is None else one[rng.permutation(len(one))[:per_sample]]
                parts.append(rows)
                total += len(rows)
    return np.concatenate(parts)[:n] if per_sample is not None else np.concatenate(parts)
