"""The samples that students learn from and are tested on: whole roots, and growing shares of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.hashing import ranked
from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError
from mlffstore.pipeline.distillation.student import CUTOFF
from mlffstore.release import Release, is_release
from mlffstore.release.samples import open_release
from mlffstore.training.dataset import TorchDataset
from mlffstore.training.sources import pinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array

#: Samplers that displace at random and ask no teacher on the way.
RATTLED = ("rattle", "strain-rattle")


@dataclass(frozen=True, slots=True)
class Labelled:
    """Samples of one split with energies and forces of one teacher.

    Attributes
    ----------
    data : TorchDataset
    root : ndarray, shape (S,), uint64
    group : list of str
        The class of seeds of each sample, and its sampler: such as ``"nci, md-mmff94"``.
    periodic : ndarray, shape (S,), bool
    composition : ndarray, shape (S, 119), int32
        Reduced: atoms of each element over their greatest common divisor.
    fingerprint : str or None
        Of the teacher, if it is on record.
    """

    data: TorchDataset
    root: Array
    group: list[str]
    periodic: Array
    composition: Array
    fingerprint: str | None = None

    @property
    def elements(self) -> Array:
        """Which elements each sample has, shape (S, 119), bool."""
        return self.composition > 0

    def __len__(self) -> int:
        return len(self.root)

    @property
    def rattled(self) -> Ints:
        """The samples that a sampler displaced at random."""
        return np.flatnonzero([name.rpartition(", ")[2] in RATTLED for name in self.group])

    def known(self, samples: Ints, trained: Labelled, learned: Ints) -> Ints:
        """Return those samples whose elements all occur in what was learned, and whose roots and structures do not."""
        elements = trained.elements[learned].any(axis=0)
        fresh = ~np.isin(self.root[samples], trained.root[learned])
        fresh &= ~np.isin(self.data.content_hash[samples], trained.data.content_hash[learned])
        return samples[fresh & ~(self.elements[samples] & ~elements).any(axis=1)]

    def thinned(self, samples: Ints, most: int) -> Ints:
        """Return at most so many of some samples, evenly over them in the order of their roots."""
        if len(samples) <= most:
            return samples
        order = samples[np.argsort(self.root[samples], kind="stable")]
        return np.sort(order[np.linspace(0, len(order) - 1, most).astype(np.int64)])


def labelled(source: Any, split: str | None, teacher: str | None) -> Labelled:
    """Return the samples of a split of a store, snapshot or release that have energies and forces.

    Raises
    ------
    DataError
        If there is none.
    """
    source = pinned(source)
    data = TorchDataset(
        source, split=split, teacher=teacher, neighbours=CUTOFF, require=("energy", "forces"), columns=()
    )
    if not len(data):
        raise DataError(f"{data.title}: expected samples of the split {split!r} with energy and forces, got none")
    columns = ["content_hash", "root", "source", "sampler", "pbc", "numbers"]
    if isinstance(source, str) and is_release(source):
        batch = Release(source).read(split, data.teacher)
    else:
        batch = source.read(source.split_codes() == SPLITS.index(split) if split else None, columns=columns)
    # Equal structures may differ in their roots.
    there, wanted = ranked(batch.content_hash), ranked(data.content_hash)
    order = np.argsort(there, kind="stable")
    rows = order[np.searchsorted(there, wanted, sorter=order)]
    counts = np.zeros((len(batch), 119), np.int32)
    np.add.at(counts, (np.repeat(np.arange(len(batch)), batch.n_atoms), batch.numbers), 1)
    composition = counts // np.gcd.reduce(counts, axis=1, keepdims=True)
    names = [f"{kind.split(':')[0]}, {sampler}" for kind, sampler in zip(batch.source, batch.sampler, strict=True)]
    return Labelled(
        data,
        batch.root[rows],
        [names[row] for row in rows],
        np.logical_or.reduce(batch.pbc[rows], axis=1),
        composition[rows],
        _fingerprint(source, str(data.teacher)),
    )


def _fingerprint(source: Any, teacher: str) -> str | None:
    """Return what is on record of the identity of a teacher."""
    samples = open_release(source) if isinstance(source, str) and is_release(source) else source
    found = samples.teacher_info(teacher).get("fingerprint")
    return None if found is None else str(found)


def nested(samples: Labelled, shares: Sequence[float], seed: int, among: Ints | None = None) -> list[Ints]:
    """Return the samples of growing shares of the roots; each share holds the smaller ones.

    Parameters
    ----------
    samples : Labelled
    shares : sequence of float
        Of the roots; each gets one root at least.
    seed : int
        Of the order of the roots.
    among : ndarray of int, optional
        Samples to choose from; all by default.
    """
    among = np.arange(len(samples)) if among is None else among
    roots, which = np.unique(samples.root[among], return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(roots))[which]
    return [among[rank < max(1, round(share * len(roots)))] for share in shares]


def calls_per_sample(source: Any) -> float | None:
    """Return how many structures teachers labelled for each sample of a recipe's store; None if it is not on record.

    It is not if there are samples of which nothing says what they took, such as imported ones.
    """
    source = pinned(source)
    if isinstance(source, str):
        return None
    from mlffstore.store.opening import open as open_store

    notes = [note for note in open_store(source.url).provenance() if note["version"] <= source.version]
    calls = sum(sum(note["calls"].values()) for note in notes if "calls" in note)
    made = sum(note.get("accepted", 0) for note in notes if "calls" in note)
    return calls / made if calls and made >= len(source) > 0 else None
