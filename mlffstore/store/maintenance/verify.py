"""`verify`: find out whether everything that the log promises is there and is what was committed.

Fast: the log is one unbroken chain, the checkpoint agrees with it, and every file is present with its size. Full: also
every byte below the store that a reader could ever use, by SHA-256 and CRC-32C, and that the values mean what the log
says. Damage never stops the search: everything that is wrong is listed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data import rules
from mlffstore.data.hashing import content_hash
from mlffstore.errors import CorruptionError, MlffstoreError, StoreNotFoundError
from mlffstore.format import checkpoint
from mlffstore.format.codec import Layout, array_metadata, digest, shard_name
from mlffstore.format.entry import LOG_FOLDER, MAX_ENTRY_NBYTES, Entry, decode_entry, entry_path
from mlffstore.format.log import Log
from mlffstore.format.metadata import attributes, json_bytes, metadata_paths
from mlffstore.format.reader import ChunkCache, ColumnReader, assemble_segment, read_column
from mlffstore.format.root import read_root
from mlffstore.format.segment import summarise
from mlffstore.format.state import State
from mlffstore.runtime.threads import cpu_pool
from mlffstore.storage import open_storage
from mlffstore.storage.base import TEMPORARY
from mlffstore.store.maintenance.lifetimes import Lifetimes

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.format.records import Segment
    from mlffstore.storage import Storage

#: Segments that one Dask task checks, and tasks between two reports of progress.
_PER_TASK, _PER_WAVE = 8, 32


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong.

    Attributes
    ----------
    path : str
        The file, or the folder if it cannot be told which file, relative to the store.
    text : str
        What is wrong, and what to do.
    """

    path: str
    text: str


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    url : str
    version : int
        The last version that could be read; -1 if none could.
    full : bool
        Whether every byte was read.
    n_entries, n_segments, n_files : int
        Log entries, segments and files that were looked at.
    nbytes : int
        Size of these files; with ``full`` all of them were read.
    problems : tuple of Problem
        In the order of the log; empty if all is well.
    """

    url: str
    version: int
    full: bool
    n_entries: int
    n_segments: int
    n_files: int
    nbytes: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    url: str | os.PathLike[str],
    *,
    full: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Check a store that may be damaged, without changing it.

    Parameters
    ----------
    url : str or path
    full : bool, optional
        Read every byte instead of only the log and the sizes of files.
    storage_options : mapping, optional
        As for `mlffstore.open`.
    progress : callable, optional
        Called with the segments done so far and their number.

    Returns
    -------
    Verification

    Raises
    ------
    StoreNotFoundError
        If there is no store at all.

    Notes
    -----
    All retained versions are checked: also segments that a compaction replaced, as long as an older version that has not
    expired needs them. Segments are checked in parallel, on the active Dask client if there is one, else in threads.
    A damage to the last log entries that removes them without a trace cannot be told from commits that never happened,
    unless a checkpoint remembers them.
    """
    return verify_storage(open_storage(url, storage_options), full=full, progress=progress)


def verify_storage(storage: Storage, *, full: bool, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Check the store of a storage; see `verify`."""
    survey = _Survey(storage, full)
    survey.run()
    work = [(segment, rejected) for segment, rejected in survey.lifetimes.needed(survey.state)] if survey.state else []
    n_files, nbytes, problems = survey.n_files, survey.nbytes, survey.problems
    done = 0
    if progress:
        progress(0, len(work))
    for wave in _waves(storage, work, full):
        for found in wave:
            n_files, nbytes, done = n_files + found.n_files, nbytes + found.nbytes, done + found.n_segments
            problems += found.problems
        if progress:
            progress(done, len(work))
    version = survey.state.version if survey.state else -1
    return Verification(
        storage.url, version, full, survey.n_entries, len(work), n_files, nbytes, tuple(dict.fromkeys(problems))
    )


# -- the log -----------------------------------------------------------------------------------------------------


class _Survey:
    """Reads the root, the whole log and the checkpoints, and notes what does not fit."""

    def __init__(self, storage: Storage, full: bool) -> None:
        self.storage, self.full = storage, full
        self.problems: list[Problem] = []
        self.lifetimes = Lifetimes()
        self.state: State | None = None
        self.n_entries = self.n_files = self.nbytes = 0

    def complain(self, path: str, error: object) -> None:
        """Note a problem; the place is not said twice."""
        self.problems.append(Problem(path, _without_place(str(error), self.storage.url, path)))

    def run(self) -> None:
        """Look at everything but the segments."""
        listed = {found.path: found.nbytes for found in self.storage.list(LOG_FOLDER)}
        versions = self._versions(listed)
        root_digest = self._root(bool(versions))
        first = self._first(versions, root_digest)
        if first is None:
            return
        log = Log(self.storage, State(first.store, "", {}))  # settings play no part in what is where
        self.state = log.fresh()
        due = self._checkpoints() if self.full else {}
        broken = False
        parent: str | None = None  # digest of the entry before, if that could be read
        for version in range(versions[-1] + 1):
            path = entry_path(version)
            try:
                found = log.read(version)
                if found is None:
                    raise CorruptionError("the entry is missing, though later ones exist; restore it from a copy")
                entry, own, where = found
                if version and broken and parent is not None and entry.parent != parent:
                    raise CorruptionError("does not follow the entry before it; an entry was replaced or edited")
                parent = own
                if not broken:
                    self.lifetimes.apply(self.state, entry, own, where)
                    if version in due:
                        self._compare(due.pop(version), version)
            except (MlffstoreError, OSError) as error:
                self.complain(path, error)
                if not broken:
                    text = f"versions from {version} on cannot be read until {path} is restored from a copy"
                    self.complain(LOG_FOLDER, text)
                broken, parent = True, None
        self.n_entries = len(versions)
        self._hint(log, versions[-1])

    def _versions(self, listed: Mapping[str, int]) -> list[int]:
        versions = []
        for path, nbytes in listed.items():
            name = path.rpartition("/")[2]
            if re.fullmatch(r"\d{20}\.json", name):
                versions.append(int(name[:-5]))
                self.n_files, self.nbytes = self.n_files + 1, self.nbytes + nbytes
            elif not name.startswith(TEMPORARY):
                self.complain(path, "is not a log entry; move it out of the log")
        return sorted(versions)

    def _root(self, has_log: bool) -> str | None:
        try:
            _, own = read_root(self.storage)
            self.n_files += 1
            return own
        except StoreNotFoundError:
            if not has_log:
                raise
            self.complain("zarr.json", "is missing; restore it from a copy")
        except MlffstoreError as error:
            if not has_log:
                raise
            self.complain("zarr.json", error)
        return None

    def _first(self, versions: list[int], root_digest: str | None) -> Entry | None:
        path = entry_path(0)
        if not versions:
            self.complain(path, "is missing: the creation was interrupted; call ml.create with the same settings again")
            return None
        try:
            entry = decode_entry(self.storage.read(path, 0, MAX_ENTRY_NBYTES), 0, None, f"{self.storage.url}/{path}")
        except FileNotFoundError:
            self.complain(path, "is missing; restore it from a copy")
            return None
        except MlffstoreError as error:
            self.complain(path, error)
            return None
        if root_digest is not None and entry.body.get("root") != root_digest:
            self.complain("zarr.json", "is not the file that was committed (SHA-256); restore it from a copy")
        return entry

    # -- checkpoints

    def _checkpoints(self) -> dict[int, str]:
        """Return the checkpoints by version."""
        out = {}
        for found in self.storage.list(checkpoint.FOLDER):
            name = found.path.rpartition("/")[2]
            self.n_files, self.nbytes = self.n_files + 1, self.nbytes + found.nbytes
            if re.fullmatch(r"\d{20}\.json", name):
                out[int(name[:-5])] = found.path
        return out

    def _compare(self, path: str, version: int) -> None:
        """Compare a checkpoint with what the log says as of its version."""
        assert self.state is not None
        try:
            kept = self._decode(path, version)
            ours = self.state
            for role in ("segments", "quarantine"):
                theirs, mine = getattr(kept, role), getattr(ours, role)
                if theirs.paths != mine.paths or any(a != b for a, b in zip(theirs, mine, strict=True)):
                    raise CorruptionError("the checkpoint differs from the log; delete it, the log has everything")
            names = ("parent", "totals", "rejected", "keys", "tags", "teachers", "user", "expired", "kept")
            wrong = [name for name in names if getattr(kept, name) != getattr(ours, name)]
            if wrong:
                raise CorruptionError(
                    f"the checkpoint differs from the log ({', '.join(wrong)}); delete it, the log has everything"
                )
        except FileNotFoundError:
            pass  # a writer removes old checkpoints as it goes
        except (MlffstoreError, OSError) as error:
            self.complain(path, error)

    def _decode(self, path: str, version: int) -> State:
        assert self.state is not None
        empty = State(self.state.store, self.state.precision, self.state.settings)
        return checkpoint.decode(self.storage.read(path), version, empty, f"{self.storage.url}/{path}")

    def _hint(self, log: Log, last: int) -> None:
        """Check the newest checkpoint, which is what opens the store."""
        try:
            version = checkpoint.newest(self.storage)
        except FileNotFoundError:
            return
        except MlffstoreError as error:
            self.complain(checkpoint.HINT, error)
            return
        path = checkpoint.path_of(version)
        try:
            kept = self._decode(path, version)
            try:
                found = log.read(version)
            except MlffstoreError:  # the entry is on the list already
                return
            if found is None:
                self.complain(
                    LOG_FOLDER,
                    f"the log ends at version {last}, though the checkpoint {path} is of version {version}: entries are "
                    "missing from its end; restore them from a copy",
                )
            elif found[1] != kept.parent:
                self.complain(path, "does not fit the log; delete it, the log has everything")
        except FileNotFoundError:
            self.complain(checkpoint.HINT, f"names {path}, which is missing; it is made again by a later commit")
        except (MlffstoreError, OSError) as error:
            self.complain(path, error)


# -- segments ----------------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """What one task found."""

    problems: list[Problem] = field(default_factory=list)
    n_segments: int = 0
    n_files: int = 0
    nbytes: int = 0


def _waves(storage: Storage, work: list[tuple[Segment, bool]], full: bool) -> Iterator[tuple[_Found, ...]]:
    """Yield the findings of several tasks at a time, computed in parallel."""
    from dask.base import compute
    from dask.delayed import delayed

    task = delayed(check_segments, pure=False)
    groups = [work[i : i + _PER_TASK] for i in range(0, len(work), _PER_TASK)]
    for start in range(0, len(groups), _PER_WAVE):
        # Without traverse=False Dask would walk through every column of every segment.
        wave = [delayed(group, traverse=False) for group in groups[start : start + _PER_WAVE]]
        yield compute(*(task(storage, group, full) for group in wave), **_scheduler())


def _scheduler() -> dict[str, Any]:
    """Return the scheduler: the active client, or the user's setting, or threads."""
    from dask.base import get_scheduler

    # A pool of ours, since Dask's own is that of the parent in a process that was forked.
    return {} if get_scheduler() is not None else {"scheduler": "threads", "pool": cpu_pool()}


def check_segments(storage: Storage, work: list[tuple[Segment, bool]], full: bool) -> _Found:
    """Check some segments with their layers."""
    found = _Found()
    for segment, rejected in work:
        found.n_segments += 1
        sizes = {file.path: file.nbytes for folder in segment.metadata for file in storage.list(folder)}
        found.n_files, found.nbytes = found.n_files + len(sizes), found.nbytes + sum(sizes.values())
        found.problems += _check_presence(segment, sizes)
        if full:
            found.problems += _check_metadata(storage, segment, sizes)
            found.problems += _check_values(storage, segment, rejected, {problem.path for problem in found.problems})
    return found


def _check_presence(segment: Segment, sizes: Mapping[str, int]) -> Iterator[Problem]:
    for folder in segment.metadata:
        names = [key for key, stored in segment.columns.items() if stored.folder == folder]
        for path in metadata_paths(folder, names):
            if path not in sizes:
                yield Problem(path, "is missing; restore it from a copy")
    for key, stored in segment.columns.items():
        path = f"{stored.folder}/{key}/{shard_name(stored.column)}"
        if path not in sizes:
            yield Problem(path, "is missing, though the log promises it; restore it from a copy")
        elif sizes[path] != stored.nbytes:
            yield Problem(path, f"expected {stored.nbytes} bytes, got {sizes[path]}; restore it from a copy")


def _check_metadata(storage: Storage, segment: Segment, sizes: Mapping[str, int]) -> Iterator[Problem]:
    """Compare the Zarr metadata with their digest in the log; say which document differs, if that can be told."""
    for folder, own in segment.metadata.items():
        names = [key for key, stored in segment.columns.items() if stored.folder == folder]
        paths = metadata_paths(folder, names)
        if any(path not in sizes for path in paths):
            continue
        try:
            documents = [storage.read(path) for path in paths]
        except FileNotFoundError as error:
            yield Problem(folder, f"a file went missing while it was read ({error})")
            continue
        if digest(b"".join(documents)) == own:
            continue
        vocabulary = segment.vocabulary if folder == segment.path else {}
        guilty = []
        for name, path, data in zip(names, paths[1:], documents[1:], strict=True):
            stored = segment.columns[name]
            layout = Layout(stored.rows, stored.chunk)
            if data != json_bytes(array_metadata(stored.column, layout, attributes(stored.column, vocabulary))):
                guilty.append(path)
        for path in guilty or [paths[0]]:
            yield Problem(path, "is not the file that was committed (SHA-256); restore it from a copy")


def _check_values(storage: Storage, segment: Segment, rejected: bool, known: set[str]) -> Iterator[Problem]:
    """Read every column, and if all can be read, check that the values agree with each other and with the log."""
    reader = ColumnReader(storage, ChunkCache(0))
    columns: dict[str, Array] = {}
    for key, stored in segment.columns.items():
        path = f"{stored.folder}/{key}/{shard_name(stored.column)}"
        try:
            columns[key] = read_column(reader, stored)
        except (MlffstoreError, OSError) as error:
            if path not in known:
                yield Problem(path, _without_place(str(error), storage.url, path))
    if len(columns) < len(segment.columns):
        return
    n_atoms = columns["n_atoms"]
    if int(n_atoms.min()) < 1 or int(n_atoms.sum(dtype=np.int64)) != segment.n_atoms:
        yield Problem(
            f"{segment.path}/n_atoms", f"expected counts that add up to {segment.n_atoms}, got {int(n_atoms.sum())}"
        )
        return
    for key, words in segment.vocabulary.items():
        if key in columns and int(columns[key].max()) >= len(words):
            yield Problem(f"{segment.path}/{key}", f"expected codes below {len(words)}, got {int(columns[key].max())}")
            return
    yield from _check_batch(segment, assemble_segment(segment, columns), rejected)


def _check_batch(segment: Segment, batch: SampleBatch, rejected: bool) -> Iterator[Problem]:
    if not rejected:
        try:
            rules.check(batch, ())
        except MlffstoreError as error:
            yield Problem(segment.path, str(error))
    structure = (batch.n_atoms, batch.numbers, batch.positions, batch.cell, batch.pbc, batch.charge, batch.multiplicity)
    wrong = np.flatnonzero(content_hash(*structure) != batch.content_hash)
    if len(wrong):
        yield Problem(
            f"{segment.path}/content_hash",
            f"{len(wrong)} samples have another hash than their structure gives, the first is sample {wrong[0]}",
        )
    summary = summarise(batch)
    said = replace(segment.summary, labelled={name: n for name, n in segment.summary.labelled.items() if n})
    seen = replace(summary, labelled={name: n for name, n in summary.labelled.items() if n})
    energies = {name: int(np.count_nonzero(~np.isnan(labels["energy"])))
                for name, labels in batch.labels.items() if "energy" in labels}  # fmt: skip
    if said.labelled == {name: n for name, n in energies.items() if n}:  # earlier versions counted energies
        said = replace(said, labelled=seen.labelled)
    if dict(said.elements) != dict(seen.elements) or replace(said, elements={}) != replace(seen, elements={}):
        yield Problem(segment.path, f"the log says {json.dumps(_plain(said))}, the data say {json.dumps(_plain(seen))}")


def _plain(summary: Any) -> dict[str, Any]:
    names = ("elements", "n_periodic", "n_atoms_min", "n_atoms_max", "labelled")
    return {name: getattr(summary, name) for name in names}


def _without_place(text: str, url: str, path: str) -> str:
    return text.removeprefix(f"{url}/{path}").removeprefix(": ")


__all__ = ["Problem", "Verification", "check_segments", "verify", "verify_storage"]
