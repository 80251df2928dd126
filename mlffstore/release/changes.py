"""What changed from one release to the next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.splits import SPLITS

if TYPE_CHECKING:
    from mlffstore.data.schema import Array
    from mlffstore.release.reading import Release

_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Changes:
    """Differences between two releases, in samples. A sample is known by its content hash.

    Attributes
    ----------
    name, version : str
        Of the older release.
    added, removed : dict of str to int
        By split.
    moved : int
        In both, in another split: a test sample may have been trained on.
    relabelled : int
        In both, with another energy or other forces of a teacher that both have.
    teachers_added, teachers_removed : tuple of str
    """

    name: str
    version: str
    added: dict[str, int]
    removed: dict[str, int]
    moved: int
    relabelled: int
    teachers_added: tuple[str, ...]
    teachers_removed: tuple[str, ...]

    @property
    def bump(self) -> str:
        """The part of the version that must rise: major, minor or patch (https://semver.org)."""
        if self.moved or self.relabelled or self.teachers_removed or any(self.removed.values()):
            return "major"
        return "minor" if any(self.added.values()) or self.teachers_added else "patch"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain types."""
        return {**asdict(self), "bump": self.bump}

    def lines(self) -> list[str]:
        """Return it in words."""

        def by_split(counts: dict[str, int]) -> str:
            return f"{sum(counts.values()):,} (" + ", ".join(f"{k} {n:,}" for k, n in counts.items()) + ")"

        out = [f"added {by_split(self.added)}", f"removed {by_split(self.removed)}", f"relabelled {self.relabelled:,}"]
        if self.moved:
            out.append(f"moved to another split {self.moved:,}")
        for what, names in (("new teachers", self.teachers_added), ("teachers gone", self.teachers_removed)):
            if names:
                out.append(f"{what}: {', '.join(names)}")
        return out


def changes(old: Release, new: Release) -> Changes:
    """Compare two releases; memory holds some 40 bytes of each sample."""
    common = [teacher for teacher in old.teachers if teacher in new.teachers]
    before, after = _digest(old, common), _digest(new, common)
    kept, i, j = np.intersect1d(before.hashes, after.hashes, return_indices=True)
    del kept
    same = np.ones(len(i), bool)
    for k in range(before.labels.shape[1]):
        a, b = before.labels[i, k], after.labels[j, k]
        same &= (a == b) | (np.isnan(a) & np.isnan(b))
    gone = np.setdiff1d(np.arange(len(before.hashes)), i)
    fresh = np.setdiff1d(np.arange(len(after.hashes)), j)
    return Changes(
        str(old.attributes.get("title", "")),
        str(old.attributes.get("version", "")),
        {split: int(np.count_nonzero(after.splits[fresh] == k)) for k, split in enumerate(SPLITS)},
        {split: int(np.count_nonzero(before.splits[gone] == k)) for k, split in enumerate(SPLITS)},
        int(np.count_nonzero(before.splits[i] != after.splits[j])),
        int(np.count_nonzero(~same)),
        tuple(teacher for teacher in new.teachers if teacher not in old.teachers),
        tuple(teacher for teacher in old.teachers if teacher not in new.teachers),
    )


@dataclass(frozen=True, slots=True)
class _Digest:
    """Hash, split and a few numbers that stand for the labels of each different structure of a release."""

    hashes: Array
    splits: Array
    labels: Array


def _digest(release: Release, teachers: list[str]) -> _Digest:
    hashes, splits, labels = [], [], []
    for split in release.counts:
        for batch in release.blocks(split, _BLOCK):
            hashes.append(batch.content_hash)
            splits.append(np.full(len(batch), SPLITS.index(split), np.uint8))
            columns = []
            for teacher in teachers:
                named = batch.labels[teacher]
                columns.append(named.get("energy", np.full(len(batch), np.nan)))
                forces = named.get("forces")
                # A weighted sum, so that forces which only changed places are seen as well.
                weight = np.arange(1, batch.n_atoms_total + 1) - np.repeat(batch.offsets[:-1], batch.n_atoms)
                value = np.full(batch.n_atoms_total, np.nan) if forces is None else forces @ np.array([1.0, 2.0, 3.0])
                columns.append(np.add.reduceat(value * weight, batch.offsets[:-1]))
            labels.append(np.stack(columns, axis=1) if columns else np.zeros((len(batch), 0)))
    if not hashes:
        return _Digest(np.zeros(0, np.uint64), np.zeros(0, np.uint8), np.zeros((0, 2 * len(teachers))))
    every, first = np.unique(np.concatenate(hashes), return_index=True)
    return _Digest(every, np.concatenate(splits)[first], np.concatenate(labels)[first])
