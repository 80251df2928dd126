"""How different the atomic environments of a dataset are: the QUESTS entropy, evenness of the elements, a Vendi score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.choosing.environments import BANDWIDTH, environments
from mlffstore.analysis.statistics.result import evenness
from mlffstore.data.schema import STRUCTURE
from mlffstore.errors import missing_dependency
from mlffstore.lazy.sources import as_dataset

if TYPE_CHECKING:
    import os

    import xarray as xr

    from mlffstore.data.schema import Array
    from mlffstore.store.facade import Store
    from mlffstore.store.samples import Samples

#: Environments taken of one sample, at most.
_PER_SAMPLE = 10
#: Environments of the Vendi score, whose cost grows with their cube.
_VENDI = 1000


@dataclass(frozen=True, slots=True)
class Diversity:
    """The diversity of a dataset.

    Attributes
    ----------
    score : float
        Entropy H of the environments over ln N, in [0, 1], mean over the seeds: 1 where all N differ, 0 where all are alike.
        Molecules of NCI have 0.95, rattled copper 0.86, 200 environments repeated 20 times 0.59. NaN for one environment.
    spread : float
        Standard deviation over the seeds.
    n_environments : int
        N.
    n_seeds : int
    element_evenness : float
        Entropy of the elements' shares of atoms over its largest value.
    vendi : float
        Effective number of different environments among `n_vendi` (Friedman and Dieng, arXiv:2210.02410), cosine kernel.
    n_vendi : int
    """

    score: float
    spread: float
    n_environments: int
    n_seeds: int
    element_evenness: float
    vendi: float
    n_vendi: int


def diversity(
    data: xr.Dataset | Samples | Store | str | os.PathLike[str],
    *,
    n_environments: int = 10_000,
    n_seeds: int = 3,
    seed: int = 0,
) -> Diversity:
    """Return the diversity of a dataset, of environments drawn evenly from its samplers and sources.

    Parameters
    ----------
    data : Dataset, Samples, Store, path or URL
    n_environments : int, optional
        Number of environments of each draw; fewer if the dataset has fewer.
    n_seeds : int, optional
        Number of draws.
    seed : int, optional
        Seed of the draws.

    Raises
    ------
    MissingDependencyError
        If the package `quests` is not installed.

    Notes
    -----
    H = -mean_i ln(1/N sum_j exp(-|x_i - x_j|^2 / 2h^2)), natural logarithm, of QUESTS descriptors, which see distances and
    not elements: hence the evenness beside it.
    """
    try:
        from quests.entropy import entropy
    except ImportError as error:
        raise missing_dependency("quests", "diversity", "the diversity score") from error
    ds = as_dataset(data, tuple(STRUCTURE))
    counts = np.asarray(ds["n_atoms"])
    strata = np.zeros(len(counts), np.int64)
    for name in ("source", "sampler"):
        if name in ds:
            strata = (strata << 24) + np.asarray(ds[name]).astype(np.int64)
    scores, everything = [], np.zeros(0)
    n = min(n_environments, int(np.minimum(counts, _PER_SAMPLE).sum()))
    for k in range(n_seeds):
        rng = np.random.default_rng([seed, k])
        chosen = _draw(strata, counts, n, rng)
        frames = ds[[*STRUCTURE, *(name for name in ("content_hash",) if name in ds)]].mlff.isel(chosen).mlff.to_ase()
        parts = [descriptors[rng.permutation(len(descriptors))[:_PER_SAMPLE]] for descriptors in environments(frames)]
        everything = np.concatenate(parts)[:n]
        scores.append(
            float(entropy(everything, h=BANDWIDTH) / np.log(len(everything))) if len(everything) > 1 else np.nan
        )
    some = np.random.default_rng(seed).permutation(len(everything))[:_VENDI]
    atoms = np.bincount(np.asarray(ds["numbers"]), minlength=119) if "numbers" in ds else np.zeros(119)
    return Diversity(
        float(np.mean(scores)),
        float(np.std(scores)),
        len(everything),
        n_seeds,
        evenness(atoms),
        vendi(everything[some]),
        len(some),
    )


def diversity_by_domain(
    data: xr.Dataset | Samples | Store | str | os.PathLike[str],
    *,
    n_environments: int = 10_000,
    n_seeds: int = 3,
    seed: int = 0,
) -> dict[str, Diversity]:
    """Return the diversity of the molecules and of the periodic samples, each by itself, so that neither drowns the other.

    A gate on the smallest of these scores sees a poor half, which the score of all samples together does not.

    Parameters
    ----------
    data, n_environments, n_seeds, seed
        As for `diversity`; each domain gets `n_environments`.

    Returns
    -------
    dict of str to Diversity
        Under ``"molecules"`` (of several atoms) and ``"periodic"``, for those that there are.
    """
    ds = as_dataset(data, tuple(STRUCTURE))
    periodic = np.asarray(ds["pbc"]).any(axis=1)
    several = np.asarray(ds["n_atoms"]) > 1  # an atom alone has no environment
    return {
        name: diversity(ds.mlff.isel(np.flatnonzero(rows)), n_environments=n_environments, n_seeds=n_seeds, seed=seed)
        for name, rows in (("molecules", ~periodic & several), ("periodic", periodic))
        if rows.any()
    }


def _draw(strata: Array, counts: Array, n: int, rng: np.random.Generator) -> Array:
    """Return samples in random order, the strata in turn, until they have `n` environments."""
    order = rng.permutation(len(strata))
    _, group = np.unique(strata[order], return_inverse=True)
    turn = np.empty(len(order), np.int64)
    by_group = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    turn[by_group] = np.concatenate([np.arange(size) for size in sizes])
    order = order[np.argsort(turn, kind="stable")]
    enough = np.searchsorted(np.cumsum(np.minimum(counts[order], _PER_SAMPLE)), n) + 1
    return order[:enough]


def vendi(x: Array) -> float:
    """Return the Vendi score of rows: the exponential of the entropy of the eigenvalues of their cosine kernel over N."""
    if not len(x):
        return 0.0
    unit: Any = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    value = np.linalg.eigvalsh(unit @ unit.T / len(x))
    value = value[value > 1e-12]
    return float(np.exp(-(value * np.log(value)).sum()))
