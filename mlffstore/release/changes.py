"""What changed from one release to the next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.hashing import mix, ranked
from mlffstore.data.labels import has_label
from mlffstore.data.schema import label_key
from mlffstore.data.splits import SPLITS

if TYPE_CHECKING:
    from mlffstore.data.batch import SampleBatch
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
        In both, with another value or unit of a label, or of a user column, that both releases have.
    teachers_added, teachers_removed : tuple of str
    columns_added, columns_removed : tuple of str
        Labels of teachers that both have, such as ``"dipole.orb-v2"``, and user columns.
    """

    name: str
    version: str
    added: dict[str, int]
    removed: dict[str, int]
    moved: int
    relabelled: int
    teachers_added: tuple[str, ...]
    teachers_removed: tuple[str, ...]
    columns_added: tuple[str, ...] = ()
    columns_removed: tuple[str, ...] = ()

    @property
    def bump(self) -> str:
        """The part of the version that must rise: major, minor or patch (https://semver.org)."""
        gone = self.teachers_removed or self.columns_removed or any(self.removed.values())
        if self.moved or self.relabelled or gone:
            return "major"
        return "minor" if any(self.added.values()) or self.teachers_added or self.columns_added else "patch"

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
        for what, names in (
            ("new teachers", self.teachers_added), ("teachers gone", self.teachers_removed),
            ("new columns", self.columns_added), ("columns gone", self.columns_removed),
        ):  # fmt: skip
            if names:
                out.append(f"{what}: {', '.join(names)}")
        return out


def changes(old: Release, new: Release) -> Changes:
    """Compare two releases; memory holds some 100 bytes of each sample, and 8 of each of its labels and user columns."""
    common = [teacher for teacher in old.teachers if teacher in new.teachers]
    before, after = _digest(old, common), _digest(new, common)
    names = sorted(before.columns.keys() & after.columns.keys())
    i, j, n_same = _pairs(before, after, names)
    gone = np.setdiff1d(np.arange(len(before.hashes)), i)
    fresh = np.setdiff1d(np.arange(len(after.hashes)), j)
    return Changes(
        str(old.attributes.get("title", "")),
        str(old.attributes.get("version", "")),
        {split: int(np.count_nonzero(after.splits[fresh] == k)) for k, split in enumerate(SPLITS)},
        {split: int(np.count_nonzero(before.splits[gone] == k)) for k, split in enumerate(SPLITS)},
        int(np.count_nonzero(before.splits[i] != after.splits[j])),
        len(i) - n_same,
        tuple(teacher for teacher in new.teachers if teacher not in old.teachers),
        tuple(teacher for teacher in old.teachers if teacher not in new.teachers),
        tuple(name for name in after.columns if name not in before.columns),
        tuple(name for name in before.columns if name not in after.columns),
    )


@dataclass(frozen=True, slots=True)
class _Digest:
    """Hash and split of each sample of a release, and a hash of each of its labels and user columns."""

    hashes: Array
    splits: Array
    columns: dict[str, Array]

    def values(self, names: list[str]) -> Array:
        """Return a hash of some columns of each sample, shape (S,), uint64."""
        out = np.zeros(len(self.hashes), np.uint64)
        for name in names:
            out = mix(out + self.columns[name])
        return out


def _pairs(before: _Digest, after: _Digest, names: list[str]) -> tuple[Array, Array, int]:
    """Return which samples of two releases are the same structure, and how many pairs, the first ones, have the same values.

    A structure may be there several times: those with the same values are paired first, of these the ones in the same split.
    """
    keys = []
    for digest in (before, after):
        split, values = digest.splits.astype(np.uint64), digest.values(names)
        exact = mix(digest.hashes + mix(values + np.uint64(1)))
        keys.append((mix(exact + split), exact, mix(digest.hashes + split), digest.hashes))
    free = [np.arange(len(before.hashes)), np.arange(len(after.hashes))]
    found: list[list[Array]] = [[], []]
    n_same = 0
    for stage in range(4):
        first, second = (ranked(key[stage][some]) for key, some in zip(keys, free, strict=True))
        both = np.intersect1d(first, second, assume_unique=True, return_indices=True)[1:]
        for side, chosen in enumerate(both):
            found[side].append(free[side][chosen])
            free[side] = np.delete(free[side], chosen)
        n_same += len(both[0]) if stage < 2 else 0
    i, j = (np.concatenate(parts) for parts in found)
    return i, j, n_same


def _digest(release: Release, teachers: list[str]) -> _Digest:
    hashes, splits, blocks = [], [], []
    for split in release.counts:
        for batch in release.blocks(split, _BLOCK, everything=True):
            hashes.append(batch.content_hash)
            splits.append(np.full(len(batch), SPLITS.index(split), np.uint8))
            blocks.append(_hashes(batch, teachers))
    if not hashes:
        return _Digest(np.zeros(0, np.uint64), np.zeros(0, np.uint8), {})
    columns = {
        name: np.concatenate([
            block.get(name, np.zeros(len(rows), np.uint64)) for block, rows in zip(blocks, hashes, strict=True)
        ])
        for name in dict.fromkeys(name for block in blocks for name in block)
    }  # fmt: skip
    return _Digest(np.concatenate(hashes), np.concatenate(splits), columns)


def _hashes(batch: SampleBatch, teachers: list[str]) -> dict[str, Array]:
    """Return a hash of each label and user column of each sample, 0 where it is missing, by name: arrays of shape (S,).

    It sees the unit of a column too.
    """
    out: dict[str, Array] = {}
    for teacher in teachers:
        for name, values in batch.labels.get(teacher, {}).items():
            there = has_label(name, values, batch.n_atoms, batch.properties)
            column = batch.label_column(name, teacher)
            folded = mix(_folded(values, batch.offsets if column.axis == "atom" else None) + _word(column.unit))
            out[label_key(name, teacher)] = np.where(there, folded, 0)
    for name, column in batch.user.items():
        values = batch.columns[name]
        if column.coded:
            values = np.array([_word(word) for word in batch.vocabulary[name]], np.uint64)[values]
        if name in batch.masks:
            shape = (-1, *[1] * (values.ndim - 1))
            values = np.where(batch.masks[name].reshape(shape), values, np.zeros((), values.dtype))
        out[name] = mix(_folded(values, batch.offsets if column.axis == "atom" else None) + _word(column.unit))
        if values.dtype.kind != "f" or name in batch.masks:  # a block in which all have a value has no mask
            there = batch.masks.get(name, np.ones(len(values), bool))
            out[name] ^= _folded(there, batch.offsets if column.axis == "atom" else None)
    return out


def _word(text: str) -> np.uint64:
    """Return a hash of a text."""
    return np.uint64(int.from_bytes(sha256(text.encode()).digest()[:8], "little"))


def _folded(values: Array, starts: Array | None) -> Array:
    """Return a hash of the values of each sample, which sees their order, shape (S,), uint64.

    Parameters
    ----------
    values : ndarray, shape (S, ...) or (A, ...)
    starts : ndarray, shape (S+1,), optional
        First atom of each sample, if there is a row for each atom.
    """
    flat = values.reshape(len(values), -1)
    if flat.dtype.kind == "f":
        flat = np.where(np.isnan(flat), np.nan, flat.astype(np.float64) + 0.0)  # one NaN, one zero
        bits = flat.view(np.uint64)
    else:
        bits = flat.astype(np.int64 if flat.dtype.kind == "i" else np.uint64).view(np.uint64)
    row = np.zeros(len(flat), np.uint64)
    for k in range(flat.shape[1]):
        row = mix(row + bits[:, k] + np.uint64(k + 1))
    if starts is None:
        return row
    place = np.arange(len(flat)) - np.repeat(starts[:-1], np.diff(starts))
    return np.asarray(np.add.reduceat(mix(row + mix(place.astype(np.uint64))), starts[:-1]))
