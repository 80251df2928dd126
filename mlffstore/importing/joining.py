"""Join on structure: the labels of a file go to the samples of a store that have the same structures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.blanks import without_values
from mlffstore.data.concatenation import concatenate
from mlffstore.data.labels import has_label
from mlffstore.data.ragged import row_indices
from mlffstore.data.schema import label_key
from mlffstore.errors import DataError
from mlffstore.importing.matching import NearMatcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.importing.spool import Block
    from mlffstore.store.facade import Store
    from mlffstore.store.snapshot import Snapshot

#: Relative and absolute difference below which two labels are the same: those of atoms are float32.
_SAME = {"rtol": 1e-6, "atol": 1e-6}


@dataclass(frozen=True, slots=True)
class Joined:
    """What a join did.

    Attributes
    ----------
    version : int or None
        The commit, None if nothing new was found.
    n_samples : int
        Samples of the store that got labels.
    unmatched : list of str
        The place of each sample that matched nothing, with the reason where there is more to say.
    warnings : list of str
    """

    version: int | None
    n_samples: int
    unmatched: list[str]
    warnings: list[str]


def join(
    store: Store,
    blocks: Iterable[Block],
    note: Mapping[str, Any],
    where: Sequence[str],
    teachers: Mapping[str, Mapping[str, Any]],
    tolerance: float,
) -> Joined:
    """Attach the labels of a file to the samples with the same structures.

    Parameters
    ----------
    store : Store
    blocks : iterable of Block
        The checked samples of the file. Their labels are held in memory.
    note : mapping
        What the log will say of the file.
    where : sequence of str
        The place of each accepted sample.
    teachers : mapping of str to mapping
        What is known of the teachers.
    tolerance : float
        0 joins equal structures only (equal content hash); see `mlffstore.importing.matching.NearMatcher`.

    Raises
    ------
    DataError
        If the store holds other labels under the name of the teacher, or two samples of the file that differ are the same
        structure.
    """
    snapshot = store.snapshot()
    exact = _ExactMatcher(snapshot)
    near = NearMatcher(snapshot, tolerance) if tolerance > 0 else None
    indices: list[Ints] = []
    donors: list[SampleBatch] = []
    places: list[str] = []
    unmatched: list[str] = []
    left_out: set[str] = set()
    start = 0
    for block in blocks:
        batch = block.accepted
        if batch is None:
            continue
        names = where[start : start + len(batch)]
        start += len(batch)
        left_out |= set(batch.user)
        labels = _labels_only(batch)
        rows, targets = exact.find(batch.content_hash)
        missing = np.setdiff1d(np.arange(len(batch)), rows)
        part = labels.take(rows)
        if near is not None and len(missing):
            found = near.find(batch.take(missing))
            unmatched += [f"{names[missing[i]]}: {reason}" for i, reason in found.reasons.items()]
            moved = _reordered(labels.take(missing[found.rows]), found.order)
            part, rows = concatenate([part, moved]), np.concatenate([rows, missing[found.rows]])
            targets = np.concatenate([targets, found.targets])
        else:
            unmatched += [names[i] for i in missing.tolist()]
        if len(rows):
            indices.append(targets)
            donors.append(part)
            places += [names[i] for i in rows.tolist()]
    version, n = None, 0
    if donors:
        target, donor = _new(snapshot, np.concatenate(indices), concatenate(donors), places)
        n = len(target)
        if n:
            version = store.attach_labels(
                target, donor, snapshot=snapshot, teachers=teachers, provenance={"import": {**note, "joined": n}}
            )
    warnings = []
    if left_out:
        warnings.append(f"{note['file']}: user columns are not joined, and are left out: {', '.join(sorted(left_out))}")
    return Joined(version, n, unmatched, warnings)


def _labels_only(batch: SampleBatch) -> SampleBatch:
    """Return a batch without user columns."""
    return without_values(batch, list(batch.user), np.arange(len(batch))) if batch.user else batch


def _reordered(batch: SampleBatch, order: Ints) -> SampleBatch:
    """Return a batch whose atoms, and their labels, are in another order within each sample."""
    from mlffstore.data.batch import assemble

    columns = {
        name: array[order] if batch.axis_of(name) == "atom" else array
        for name, array in batch.columns.items()
        if name != "content_hash"
    }
    labels = {
        teacher: {
            name: array[order] if batch.property_of(name).axis == "atom" else array for name, array in named.items()
        }
        for teacher, named in batch.labels.items()
    }
    return assemble(columns, labels, {}, batch.vocabulary, batch.offsets, {}, batch.properties)


def _new(snapshot: Snapshot, targets: Ints, donor: SampleBatch, places: Sequence[str]) -> tuple[Ints, SampleBatch]:
    """Return the samples that lack the labels, and the labels, each sample once.

    Raises
    ------
    DataError
        If labels that differ are for one sample.
    """
    order = np.argsort(targets, kind="stable")
    targets, donor, places = targets[order], donor.take(order), [places[i] for i in order.tolist()]
    again = np.flatnonzero(np.diff(targets) == 0) + 1
    differ = _differences(donor.take(again - 1), donor.take(again)) if len(again) else np.zeros(0, bool)
    if differ.any():
        i = int(again[np.argmax(differ)])
        raise DataError(
            f"{places[i - 1]} and {places[i]} have the same structure and other labels; remove one of them, or store them "
            "as samples of their own"
        )
    once = np.setdiff1d(np.arange(len(targets)), again)
    targets, donor = targets[once], donor.take(once)
    known = [teacher for teacher in donor.teachers if teacher in snapshot.teachers]
    if not known:
        return targets, donor
    held = snapshot.read(targets, teacher=known)
    differ = _differences(held, donor)
    if differ.any():
        i = int(np.argmax(differ))
        raise DataError(
            f"{places[once[i]]}: expected labels that sample {targets[i]} of the store lacks, got other values than it has "
            f"of {', '.join(known)} ({int(differ.sum())} such samples); name another teacher, or remove the old ones"
        )
    fresh = _adds(held, donor)
    return targets[fresh], _cleared(donor, held).take(fresh)


def _present(batch: SampleBatch, teacher: str, name: str) -> Any:
    values = batch.labels.get(teacher, {}).get(name)
    if values is None:
        return np.zeros(len(batch), bool)
    return has_label(name, values, batch.n_atoms, batch.properties)


def _differences(one: SampleBatch, other: SampleBatch) -> Any:
    """Return the samples that have a label in both batches with other values, shape (S,), bool."""
    out = np.zeros(len(one), bool)
    for teacher, named in other.labels.items():
        for name, values in named.items():
            both = _present(one, teacher, name) & _present(other, teacher, name)
            if not both.any():
                continue
            same = np.isclose(one.labels[teacher][name], values, equal_nan=True, **_SAME).reshape(len(values), -1)
            rows = np.asarray(same.all(axis=1))
            if other.property_of(name).axis == "atom":
                rows = np.logical_and.reduceat(rows, other.offsets[:-1])
            out |= both & ~rows
    return out


def _adds(held: SampleBatch, donor: SampleBatch) -> Ints:
    """Return the samples of which the donor has a label that is not there yet."""
    out = np.zeros(len(donor), bool)
    for teacher, named in donor.labels.items():
        for name in named:
            out |= _present(donor, teacher, name) & ~_present(held, teacher, name)
    return np.flatnonzero(out)


def _cleared(donor: SampleBatch, held: SampleBatch) -> SampleBatch:
    """Return the donor without the labels that the samples have already."""
    for teacher, named in donor.labels.items():
        for name in list(named):
            there = np.flatnonzero(_present(held, teacher, name))
            if len(there):
                donor = without_values(donor, [label_key(name, teacher)], there)
    return donor


class _ExactMatcher:
    """Finds samples of a snapshot by their content hash."""

    def __init__(self, snapshot: Snapshot) -> None:
        hashes = (
            snapshot.read(columns=["content_hash"]).columns["content_hash"] if len(snapshot) else np.zeros(0, np.uint64)
        )
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def find(self, hashes: Any) -> tuple[Ints, Ints]:
        """Return pairs of a row and a sample of the snapshot, all samples where several are equal."""
        low, high = (np.searchsorted(self._hashes, hashes, side=side) for side in ("left", "right"))
        counts = high - low
        rows = np.repeat(np.arange(len(hashes)), counts)
        return rows, self._order[row_indices(low, counts)]


__all__ = ["Joined", "join"]
