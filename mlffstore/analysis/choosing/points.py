"""Choosing structures that differ from each other and from what is known: DIRECT and farthest-point selection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.choosing.environments import environments
from mlffstore.errors import missing_dependency

if TYPE_CHECKING:
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

METHODS = ("direct", "farthest")
#: Atomic numbers from 0, as in ASE.
_ELEMENTS = 119
#: Birch may find at most this many subclusters: the clustering on top of them costs their square.
_SUBCLUSTERS = 2000


def fingerprints(batch: SampleBatch) -> Array:
    """Return a description of each structure, shape (S, D), float64, that neither rotation nor a supercell changes.

    Mean and standard deviation over the atoms of the QUESTS descriptor of their environments (arXiv:2404.12367), which sees
    distances, and the square roots of the fractions of the elements, whose distance is Hellinger's.
    """
    descriptors = environments(batch.structures().to_ase())
    geometry = np.array(
        [np.concatenate([descriptor.mean(axis=0), descriptor.std(axis=0)]) for descriptor in descriptors], np.float64
    )
    fractions = np.zeros((len(batch), _ELEMENTS))
    np.add.at(fractions, (np.repeat(np.arange(len(batch)), batch.n_atoms), batch.numbers), 1.0)
    return np.concatenate([geometry.reshape(len(batch), -1), np.sqrt(fractions / batch.n_atoms[:, None])], axis=1)


def coordinates(candidates: Array, known: Array) -> tuple[Array, Array]:
    """Return principal coordinates of candidates and of what is known, found on both together.

    Geometry (each component at unit variance) and composition weigh the same; 99 % of the variance is kept.
    """
    from sklearn.decomposition import PCA

    both = np.concatenate([candidates, known])
    geometry, composition = both[:, :-_ELEMENTS], both[:, -_ELEMENTS:]
    blocks = [geometry / np.maximum(geometry.std(axis=0), 1e-6), composition]
    scaled = [block / max(float(np.sqrt(block.var(axis=0).sum())), 1e-6) for block in blocks]
    if len(both) < 2:
        return np.zeros((len(candidates), 1)), np.zeros((len(known), 1))
    coordinates = PCA(n_components=0.99, svd_solver="full").fit_transform(np.concatenate(scaled, axis=1))
    return coordinates[: len(candidates)], coordinates[len(candidates) :]


def distance_to(points: Array, known: Array) -> Array:
    """Return the distance of each point to the nearest known one; infinite where nothing is known."""
    if not len(known):
        return np.full(len(points), np.inf)
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(known).query(points)[0])


def spacing(known: Array) -> float:
    """Return the median distance of what is known to its nearest neighbour; 0 where there is none."""
    if len(known) < 2:
        return 0.0
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(known).query(known, k=2)[0][:, 1]))


def farthest(points: Array, known: Array, count: int) -> Array:
    """Return up to `count` points, each the farthest from what is known and from those chosen before it.

    Greedy k-centre selection (Gonzalez, Theor. Comput. Sci. 38, 293 (1985)). Without anything known the first is the one
    that is farthest from the mean.
    """
    gap = distance_to(points, known)
    chosen: list[int] = []
    for _ in range(min(count, len(points))):
        if np.isinf(gap).all():
            pick = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmax())
        else:
            pick = int(gap.argmax())
        chosen.append(pick)
        gap = np.minimum(gap, np.linalg.norm(points - points[pick], axis=1))
        gap[chosen] = -1
    return np.array(chosen, np.int64)


def direct(points: Array, known: Array, count: int) -> Array:
    """Return up to `count` points: the middles of clusters, those first that hold least of what is known.

    DIRECT (Qi, Ko, Wood, Pham and Ong, npj Comput. Mater. 10, 43 (2024), arXiv:2307.13710): Birch clusters in principal
    coordinates, and the structure nearest to the centre of each. Candidates and known structures are clustered together, so
    that a cluster that the store covers gives nothing while there are others.
    """
    from sklearn.cluster import Birch

    if len(points) <= count or count < 2:
        return farthest(points, known, count)
    both = np.concatenate([points, known])
    threshold = 1e-3 * float(np.linalg.norm(both.std(axis=0)))
    while True:
        birch: Any = Birch(threshold=max(threshold, 1e-12), n_clusters=None).fit(both)
        most = len(birch.subcluster_centers_)
        if most <= _SUBCLUSTERS:
            break
        threshold *= 1.5
    # As few clusters as leave enough of them that hold nothing known.
    n_clusters = count
    while True:
        birch.set_params(n_clusters=min(n_clusters, most)).partial_fit()
        group = birch.predict(both)
        groups, others = group[: len(points)], group[len(points) :]
        share = {g: np.count_nonzero(others == g) / np.count_nonzero(group == g) for g in np.unique(groups)}
        size = {g: np.count_nonzero(groups == g) for g in share}
        if n_clusters >= most or sum(part == 0 for part in share.values()) >= count:
            break
        n_clusters = int(1.3 * n_clusters) + 1
    queues = []
    for g in sorted(share, key=lambda g: (share[g], -size[g], g)):
        members = np.flatnonzero(groups == g)
        centre = both[group == g].mean(axis=0)
        queues.append(members[np.argsort(np.linalg.norm(points[members] - centre, axis=1), kind="stable")].tolist())
    chosen: list[int] = []
    while len(chosen) < count and queues:
        chosen += [queue.pop(0) for queue in queues[: count - len(chosen)]]
        queues = [queue for queue in queues if queue]
    return np.array(chosen, np.int64)


def select(method: str, points: Array, known: Array, count: int) -> Array:
    """Return up to `count` points by one of `METHODS`.

    Raises
    ------
    MissingDependencyError
        If scikit-learn is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise missing_dependency("scikit-learn", "active", "active learning") from error
    return direct(points, known, count) if method == "direct" else farthest(points, known, count)
