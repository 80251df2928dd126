"""`Correction`: what a removal or a reversal would do, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.labels import has_any_label
from mlffstore.data.schema import is_mask, split_key
from mlffstore.data.splits import SPLITS, assign
from mlffstore.format.reader import ChunkCache, ColumnReader
from mlffstore.store.revision import read_some, touched, works

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.data.ragged import Ints
    from mlffstore.format.records import Segment
    from mlffstore.storage import Storage
    from mlffstore.store.edits import Action, Edit
    from mlffstore.store.tracking import Trace


@dataclass(frozen=True, slots=True)
class Correction:
    """What a removal or a reversal would do: the answer of `Store.remove` and `Store.revert` to ``dry_run=True``.

    Attributes
    ----------
    action : {"remove", "restore", "clear", "refill"}
        Samples go to the quarantine; samples come back from it; samples lose values; samples get values back.
    version : int
        The version that was looked at, the newest.
    n_samples, n_atoms : int
        Samples that would change, and their atoms.
    n_gone : int
        Samples that were asked for and are not there any more, since another commit removed (or restored) them.
    columns : tuple of str
        On-disk names of the columns of which samples lose or get values; empty if samples move.
    labels : dict of str to int
        Teacher -> samples with labels of this teacher that go, or come back.
    splits : dict of str to int
        Split -> samples of it that would change.
    segments : tuple of str
        Paths of the segments that would be written anew.
    nbytes : int
        Bytes of their columns on disk: what is read, and nearly what is written.
    done : int or None
        The version that did this under the same key already: a repetition changes nothing.
    """

    action: Action
    version: int
    n_samples: int = 0
    n_atoms: int = 0
    n_gone: int = 0
    columns: tuple[str, ...] = ()
    labels: Mapping[str, int] = ()  # type: ignore[assignment]
    splits: Mapping[str, int] = ()  # type: ignore[assignment]
    segments: tuple[str, ...] = ()
    nbytes: int = 0
    done: int | None = None


def preview(storage: Storage, trace: Trace, edit: Edit) -> Correction:
    """Return what an edit of the samples of a trace would do. Only columns that the figures need are read."""
    reader = ColumnReader(storage, ChunkCache(0))
    state = trace.state
    n_atoms = n_there = n_samples = nbytes = 0
    labels: Counter[str] = Counter()
    splits: Counter[str] = Counter(dict.fromkeys(SPLITS, 0))
    columns: dict[str, None] = {}
    paths = []
    for work in works(trace, edit):
        n_there += len(work.rows)
        rows = touched(reader, edit, work)
        if not len(rows):
            continue
        names = edit.columns(work.segment)
        base = read_some(reader, work.segment, ("root",))
        codes = assign(base.columns["root"][rows], state.settings["splits"], state.settings["split_seed"])
        splits.update(
            {split: int(n) for split, n in zip(SPLITS, np.bincount(codes, minlength=len(SPLITS)), strict=True)}
        )
        labels.update(_labelled(reader, work.segment, rows, names))
        n_samples, n_atoms = n_samples + len(rows), n_atoms + int(base.n_atoms[rows].sum(dtype=np.int64))
        nbytes += work.segment.nbytes
        columns |= dict.fromkeys(names)
        paths.append(work.segment.path)
    return Correction(
        action=edit.action, version=state.version, n_samples=n_samples, n_atoms=n_atoms, n_gone=trace.n - n_there,
        columns=tuple(columns), labels={teacher: n for teacher, n in labels.items() if n}, splits=dict(splits),
        segments=tuple(paths), nbytes=nbytes,
    )  # fmt: skip


def _labelled(reader: ColumnReader, segment: Segment, rows: Ints, names: list[str]) -> dict[str, int]:
    """Return how many samples have labels of each teacher: of all teachers, or of those in some columns."""
    if names:  # an edit of values touches only samples that have some, or get some
        return dict.fromkeys({teacher for key in names if (teacher := split_key(key)[1]) is not None}, len(rows))
    out = {}
    for teacher in segment.teachers:
        if segment.summary.labelled.get(teacher) == segment.n_samples:
            out[teacher] = len(rows)
            continue
        keys = [key for key in segment.columns if not is_mask(key) and split_key(key)[1] == teacher]
        batch = read_some(reader, segment, keys)
        out[teacher] = int(has_any_label(batch.labels[teacher], batch.n_atoms, batch.properties)[rows].sum())
    return out
