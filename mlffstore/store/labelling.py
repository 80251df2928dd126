"""Labelling of stored samples: the labels of a teacher become layers over the segments that lack them."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts import request
from mlffstore.contracts.registry import shared_teacher
from mlffstore.data import rules
from mlffstore.data.properties import ordered, property_of
from mlffstore.data.ragged import offsets, reduce_rows
from mlffstore.data.schema import STANDARD, label_column, label_key
from mlffstore.errors import DataError, TeacherError
from mlffstore.format.reader import ChunkCache, ColumnReader, read_column, read_segment
from mlffstore.format.records import layer_document, segment_document
from mlffstore.format.segment import write_layer, write_segment
from mlffstore.runtime.words import counted
from mlffstore.store.chosen import choose
from mlffstore.store.executors import label_pool, result_of
from mlffstore.store.filling import filled, gained
from mlffstore.store.guard import ColumnTakenError, CommitGuard, SegmentsChangedError
from mlffstore.store.staging import Staged, commit_staged
from mlffstore.store.tracking import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor, Future

    import numpy.typing as npt
    from distributed import Client

    from mlffstore.contracts.protocols import Teacher, TeacherInfo, TeacherLabels
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.properties import Axis
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Column
    from mlffstore.format.log import Log
    from mlffstore.format.records import Layer, Segment
    from mlffstore.storage import Storage
    from mlffstore.store.chosen import SampleSelection
    from mlffstore.store.snapshot import Snapshot


@dataclass
class LabelReport:
    """The outcome of a label pass.

    Attributes
    ----------
    teacher : str
    labelled : int
        Samples that got labels, those included that had other labels of the teacher before.
    refused : int
        Samples that the teacher refused or failed on.
    reasons : Counter of str
        Number of refused samples per reason.
    versions : list of int
        The commits.
    n_conflicts : int
        Segments that another process changed while they were being labelled here; they were looked at again.
    refused_before : int
        Samples of all that an earlier pass refused, and that this one did not ask for again; 0 with `retry`.
    """

    teacher: str
    labelled: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    versions: list[int] = field(default_factory=list)
    n_conflicts: int = 0
    refused_before: int = 0

    def count_refused(self, reasons: Counter[str]) -> None:
        """Add refused samples."""
        self.refused += reasons.total()
        self.reasons.update(reasons)


def label_batch(
    teacher: Teacher, batch: SampleBatch, wanted: tuple[str, ...] | None = None
) -> tuple[SampleBatch, TeacherLabels]:
    """Return the batch with the teacher's labels as columns, and the labels.

    Parameters
    ----------
    teacher : Teacher
    batch : SampleBatch
    wanted : tuple of str, optional
        The columns, as `mlffstore.contracts.request.wanted` returns them; by default what the teacher gives without request.
    """
    labels = request.label_with(teacher, batch, wanted)
    return batch.with_properties(teacher.info.name, label_columns(labels, wanted)), labels


def label_columns(labels: TeacherLabels, wanted: tuple[str, ...] | None = None) -> dict[str, Array]:
    """Return the labels as columns by name, or those among them that are wanted.

    Where no sample has a stress there is no column of it, unless nothing else is wanted.
    """
    columns: dict[str, Array] = {"energy": labels.energy, "forces": labels.forces}
    if labels.stress is not None and (wanted == ("stress",) or not np.isnan(labels.stress).all()):
        columns["stress"] = labels.stress
    columns |= dict(labels.more)
    return columns if wanted is None else {name: array for name, array in columns.items() if name in wanted}


# -- the pass ----------------------------------------------------------------------------------------------------


def add_labels(
    storage: Storage,
    log: Log,
    snapshot: Callable[[], Snapshot],
    teacher: Teacher | str,
    *,
    properties: Sequence[str] | None = None,
    samples: npt.ArrayLike | SampleSelection | None = None,
    retry: bool,
    options: Mapping[str, Any],
    workers: int,
    executor: Executor | Client | None,
    chunk_samples: int,
    progress: Callable[[int, int], None] | None,
) -> LabelReport:
    """Label what lacks labels; see `mlffstore.Store.add_labels`."""
    if chunk_samples < 1 or workers < 1:
        raise DataError(f"chunk_samples, workers: expected at least 1, got {chunk_samples}, {workers}")
    spec = _Spec(teacher, json.dumps(dict(options), sort_keys=True))
    info = spec.teacher().info
    wanted = None if properties is None else request.wanted(spec.teacher(), properties)
    with log.guard():
        log.refresh().check_append({info.name: info.to_json()}, (), _closed_columns(info, wanted or info.properties))
    report = LabelReport(info.name)
    trace = None if samples is None else _followed(log, samples)
    reader = ColumnReader(storage, ChunkCache(0))
    finished: set[str] = set()  # segments with nothing left that the teacher would label
    done = 0
    with contextlib.ExitStack() as stack:
        pool, width = label_pool(stack, executor, workers)
        while True:
            newest, only = _now(log, snapshot, trace)
            todo = [job for job in _jobs(newest, only, info, wanted, reader, retry) if job.segment.path not in finished]
            if not done and not finished:
                asked = {job.segment.path for job in todo}
                rest = [segment for segment in newest.segments if segment.path not in asked]
                report.refused_before = 0 if retry else _unlabelled(rest, info.name)
            if not todo:
                break
            random.shuffle(todo)  # several processes that label one store begin in different places
            total = done + sum(job.count for job in todo)
            for job, batch, labels in _labelled(todo, pool, width, spec, wanted, chunk_samples, reader, log):
                done += job.count
                if labels is not None:
                    _commit(storage, log, info, job, batch, labels, wanted, report, finished)
                if progress:
                    progress(done, total)
    return report


def _unlabelled(segments: Iterable[Segment], teacher: str) -> int:
    """Return how many samples have no label of a teacher whose label passes have been over them."""
    return sum(
        segment.n_samples - segment.summary.labelled.get(teacher, 0)
        for segment in segments
        if (key := label_key("energy", teacher)) in segment.columns and _attempted(segment, key)
    )


def _followed(log: Log, samples: npt.ArrayLike | SampleSelection) -> Trace:
    """Return the samples to label, to be found again whatever other processes do to their segments."""
    chosen = choose(log, samples, None)
    return Trace(chosen.state, chosen.rows())


def _now(log: Log, snapshot: Callable[[], Snapshot], trace: Trace | None) -> tuple[Snapshot, Mapping[str, Ints] | None]:
    """Return the newest snapshot, and which samples of its segments are to be labelled; None for all."""
    newest = snapshot()
    if trace is None:
        return newest, None
    trace.follow(log)
    while newest.version < trace.state.version:
        newest = snapshot()
        trace.follow(log)
    return newest, {path: rows for path, (rows, _) in trace.rows(trace.state.segments).items()}


@dataclass(frozen=True)
class _Job:
    """A segment that lacks labels: all of its samples, or (`rows`) those that lack them in an existing column."""

    segment: Segment
    rows: Array | None
    keys: tuple[str, ...]
    """On-disk names of the labels that it lacks."""

    @property
    def count(self) -> int:
        return self.segment.n_samples if self.rows is None else len(self.rows)


def _closed_columns(info: TeacherInfo, names: Iterable[str]) -> list[Column]:
    """Return the columns of properties whose sizes are known before the teacher labels anything."""
    specs = (property_of(name) for name in names)
    return [label_column(spec, info.name) for spec in specs if not spec.is_open]


def _jobs(
    snapshot: Snapshot,
    only: Mapping[str, Ints] | None,
    info: TeacherInfo,
    wanted: tuple[str, ...] | None,
    reader: ColumnReader,
    retry: bool,
) -> Iterator[_Job]:
    """Yield the segments in which some sample lacks labels of the teacher.

    A stress, which molecules do not have, makes no job by itself unless it is all that was asked for.
    """
    names = ("energy",) if wanted is None else tuple(name for name in wanted if name != "stress") or ("stress",)
    keys = {label_key(name, info.name): property_of(name).axis for name in names}
    for segment in snapshot.segments:
        if only is not None and segment.path not in only:
            continue
        chosen = np.ones(segment.n_samples, bool)
        if only is not None:
            chosen = np.isin(np.arange(segment.n_samples), only[segment.path])
        if names == ("stress",):
            chosen &= read_column(reader, segment.columns["pbc"]).all(axis=1)
        absent = tuple(key for key in keys if key not in segment.columns)
        gaps = chosen & _gaps(segment, keys, reader, retry)
        if absent and (gaps.any() or (only is not None and not chosen.all())):
            # A layer stands for all that the teacher labels there, so that some samples become part of the segment anew.
            gaps = chosen
        if gaps.any():
            yield _Job(segment, np.flatnonzero(gaps), tuple(keys))
        elif absent and chosen.any():
            yield _Job(segment, None, absent)


def _gaps(segment: Segment, keys: Mapping[str, Axis], reader: ColumnReader, retry: bool) -> Array:
    """Return which samples lack a label in a column that the segment has and the teacher may not have been asked for.

    With `retry` it may have been asked, and have refused.
    """
    rows = np.zeros(segment.n_samples, bool)
    for key, axis in keys.items():
        if key not in segment.columns or (_attempted(segment, key) and not retry):
            continue
        # The log counts samples with any label: those that have forces and no energy are known only after reading.
        values = read_column(reader, segment.columns[key])
        missing = np.asarray(np.isnan(values.reshape(len(values), -1)).any(axis=1))
        if axis == "atom":
            missing = reduce_rows(np.logical_or, missing, offsets(read_column(reader, segment.columns["n_atoms"])))
        rows |= missing
    return rows


def _attempted(segment: Segment, key: str) -> bool:
    """Return whether a layer of a label pass has the column: the teacher refused the samples without a label."""
    path = segment.columns[key].file.path
    return path != segment.path and not segment.files[path].attached


def _labelled(
    todo: list[_Job],
    pool: Executor,
    width: int,
    spec: _Spec,
    wanted: tuple[str, ...] | None,
    chunk_samples: int,
    reader: ColumnReader,
    log: Log,
) -> Iterator[tuple[_Job, SampleBatch, TeacherLabels | None]]:
    """Yield each job with its structures and labels; None for labels if another process has labelled it meanwhile."""
    waiting: deque[tuple[_Job, SampleBatch, list[Future[TeacherLabels]]]] = deque()
    rest = iter(todo)
    more = True
    while waiting or more:
        # Enough chunks for all workers, also while the last ones of a segment are being computed.
        while more and sum(not chunk.done() for _, _, chunks in waiting for chunk in chunks) < width:
            job = next(rest, None)
            if job is None:
                more = False
                break
            batch = _structures(reader, job)
            starts = [] if _is_done(log, job) else range(0, len(batch), chunk_samples)
            chunks = [pool.submit(_label_chunk, spec, batch[start : start + chunk_samples], wanted) for start in starts]
            waiting.append((job, batch, chunks))
            if width == 1:
                break
        if waiting:
            job, batch, chunks = waiting.popleft()
            parts = [result_of(chunk, "labels") for chunk in chunks]
            yield job, batch, _join(parts, spec.teacher().info.name) if chunks else None


def _is_done(log: Log, job: _Job) -> bool:
    """Return whether another process labelled or merged the segment since the pass began."""
    with log.guard():
        state = log.refresh()
        i = state.segments.find(job.segment.path)
        return i is None or (job.rows is None and any(key in state.segments[i].columns for key in job.keys))


def _structures(reader: ColumnReader, job: _Job) -> SampleBatch:
    """Return the structures to label, without other teachers' labels."""
    bare = {key: stored for key, stored in job.segment.columns.items() if key in STANDARD}
    batch = read_segment(reader, replace(job.segment, columns=bare))
    return batch if job.rows is None else batch.take(job.rows)


@dataclass(frozen=True)
class _Spec:
    """A teacher that other processes can make: an object, or a name and options (JSON)."""

    source: Teacher | str
    options: str

    def teacher(self) -> Teacher:
        """Return the teacher; one given by name is made once in each process."""
        return shared_teacher(self.source, json.loads(self.options)) if isinstance(self.source, str) else self.source


def _label_chunk(spec: _Spec, batch: SampleBatch, wanted: tuple[str, ...] | None) -> TeacherLabels:
    return request.label_with(spec.teacher(), batch, wanted)


def _join(parts: list[TeacherLabels], teacher: str) -> TeacherLabels:
    """Return the labels of chunks, one after another."""
    from mlffstore.contracts.protocols import TeacherLabels

    def column(name: str, several: list[Array | None], rows: list[int]) -> Array | None:
        """Return the rows of all parts; a part that has no such column, since all of it was refused, has NaN."""
        given = next((array for array in several if array is not None), None)
        if given is None:
            return None
        widths = sorted({array.shape[1:] for array in several if array is not None})
        if len(widths) > 1:
            raise DataError(
                f"{teacher!r} returned {name} of different shapes for different samples, {' and '.join(map(str, widths))}, "
                "which is an error of the teacher: labels of one property have one shape"
            )
        lacking = (np.full((n, *given.shape[1:]), np.nan, given.dtype) for n in rows)
        return np.concatenate([nan if array is None else array for array, nan in zip(several, lacking, strict=True)])

    n_samples, n_atoms = [len(part.energy) for part in parts], [len(part.forces) for part in parts]
    more: dict[str, Array] = {}
    for name in ordered({name for part in parts for name in part.more}):
        rows = n_atoms if property_of(name).axis == "atom" else n_samples
        values = column(name, [part.more.get(name) for part in parts], rows)
        assert values is not None
        more[name] = values
    return TeacherLabels(
        energy=np.concatenate([part.energy for part in parts]),
        forces=np.concatenate([part.forces for part in parts]),
        stress=column("stress", [part.stress for part in parts], n_samples),
        ok=np.concatenate([part.ok for part in parts]),
        reasons=tuple(reason for part in parts for reason in part.reasons),
        more=more,
    )


# -- committing --------------------------------------------------------------------------------------------------


def _commit(
    storage: Storage,
    log: Log,
    info: TeacherInfo,
    job: _Job,
    batch: SampleBatch,
    labels: TeacherLabels,
    wanted: tuple[str, ...] | None,
    report: LabelReport,
    finished: set[str],
) -> None:
    """Write the labels of a segment and name them in the log, unless another process was faster."""
    _require_declared(info, wanted, batch, labels)
    named = batch.with_properties(info.name, label_columns(labels, wanted))
    rules.check(named, ())
    refused = Counter(reason for reason, ok in zip(labels.reasons, labels.ok, strict=True) if not ok)
    whole = batch if job.rows is None else read_segment(ColumnReader(storage, ChunkCache(0)), job.segment)
    columns = {name: array for name, array in named.labels[info.name].items()
               if job.rows is not None or label_key(name, info.name) not in job.segment.columns}  # fmt: skip
    new = batch.with_properties(info.name, columns, named.properties)
    rows = np.arange(len(batch)) if job.rows is None else job.rows
    n_labelled = int(
        np.logical_or.reduce([np.zeros(len(batch), bool), *gained(whole, rows, new, info.name).values()]).sum()
    )
    if not columns or (job.rows is not None and not n_labelled):
        finished.add(job.segment.path)
        report.count_refused(refused)
        return
    body: dict[str, Any] = {
        "teachers": {info.name: info.to_json()},
        "provenance": {"label": info.name, "labelled": n_labelled, "refused": dict(refused)},
    }
    written: Segment | Layer
    if job.rows is None:
        pairs = [(new.label_column(name, info.name), array) for name, array in columns.items()]
        written = layer = write_layer(storage, job.segment, pairs)
        operation, body = "layer", {"layers": [layer_document(layer)], **body}
        new_columns = [column.name for column, _ in pairs]
    else:
        written = segment = write_segment(storage, filled(whole, rows, new, info.name))
        replacement = {"inputs": [job.segment.path], "outputs": [segment_document(segment)]}
        operation, body, new_columns = "replace", {"replacements": [replacement], **body}, []
    guard = CommitGuard(
        segments=[job.segment], new_columns=new_columns, replaces=job.rows is not None, teachers=body["teachers"],
        labels=new.label_columns(),
    )  # fmt: skip
    try:
        version = commit_staged(log, operation, body, Staged(storage, written), guard)
    except (SegmentsChangedError, ColumnTakenError):  # what is left there is found by the next look
        report.n_conflicts += 1
        return
    finished |= {job.segment.path, written.path}
    report.versions.append(version)
    report.labelled += n_labelled
    report.count_refused(refused)


def _require_declared(
    info: TeacherInfo, wanted: tuple[str, ...] | None, batch: SampleBatch, labels: TeacherLabels
) -> None:
    """Raise `TeacherError` if a teacher labelled samples without a property that it declares.

    A property that only these samples lack is NaN. One whose width the teacher chooses may be absent then, unless it was
    asked for.
    """
    given = {"energy", "forces", *labels.more} | ({"stress"} if labels.stress is not None else set())
    names = wanted or [name for name in info.properties if not property_of(name).is_open]
    samples = {"stress": labels.ok & batch.pbc.all(axis=1)}
    absent = [name for name in names if name not in given and samples.get(name, labels.ok).any()]
    if absent:
        raise TeacherError(
            f"{info.name!r} labelled {counted(int(labels.ok.sum()), 'sample')} without {', '.join(absent)}, which it "
            "declares to give; correct the properties that the teacher declares, or ask for others: properties=(...)"
        )


__all__ = ["LabelReport", "add_labels", "label_batch", "label_columns"]
