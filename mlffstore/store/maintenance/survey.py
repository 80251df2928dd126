"""`Survey`: the check of the root, the log and the checkpoints of a store that may be damaged."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from mlffstore.errors import CorruptionError, MlffstoreError, StoreNotFoundError
from mlffstore.format import checkpoint, history
from mlffstore.format.commit import Record
from mlffstore.format.entry import LOG_FOLDER, MAX_ENTRY_NBYTES, Entry, decode_entry, entry_path
from mlffstore.format.increment import ROLES, base_of, decode
from mlffstore.format.log import Log, ReadEntry
from mlffstore.format.read_ahead import Sized, read_ahead
from mlffstore.format.root import read_root
from mlffstore.format.state import State
from mlffstore.storage.base import TEMPORARY
from mlffstore.store.maintenance.lifetimes import Lifetimes
from mlffstore.store.maintenance.verification import Problem, without_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlffstore.storage import Storage


class Survey:
    """Reads the root, the whole log and the checkpoints, and notes what does not fit.

    Parameters
    ----------
    storage : Storage
    full : bool
        Whether every checkpoint is compared with the log, and not only the newest.

    Attributes
    ----------
    problems : list of Problem
    lifetimes : Lifetimes
        Which segments the retained versions need, as far as the log could be read.
    state : State or None
        The last state that could be read.
    n_entries, n_files, nbytes : int
        Log entries, files and bytes that were checked.
    """

    def __init__(self, storage: Storage, full: bool) -> None:
        self.storage, self.full = storage, full
        self.problems: list[Problem] = []
        self.lifetimes = Lifetimes()
        self.state: State | None = None
        self.n_entries = self.n_files = self.nbytes = 0
        #: States as of the checkpoints that later ones may count from.
        self._earlier: dict[int, State] = {}

    def complain(self, path: str, error: object) -> None:
        """Note a problem. The message does not repeat the place."""
        self.problems.append(Problem(path, without_place(str(error), self.storage.url, path)))

    def run(self) -> None:
        """Check everything except the segments."""
        listed = {file.path: file.nbytes for file in self.storage.list(LOG_FOLDER)}
        versions = self._versions(listed)
        root_digest = self._root(bool(versions))
        first = self._first(versions, root_digest)
        if first is None:
            return
        log = Log(self.storage, State(first.store, "", {}))  # settings play no part in what is where
        self.state = log.fresh()
        due, histories = self._checkpoints() if self.full else ({}, {})
        commits: list[bytes] = []
        broken = False
        parent: str | None = None  # digest of the entry before, if that could be read
        expected = 0
        for version, read in self._entries(log, versions):
            if version != expected:
                self._gap(expected, version - 1, broken=broken)
                broken, parent = True, None
            expected = version + 1
            path = entry_path(version)
            try:
                if isinstance(read, Exception):
                    raise read
                entry, entry_digest, where = read
                if version and broken and parent is not None and entry.parent != parent:
                    raise CorruptionError("does not follow the entry before it; an entry was replaced or edited")
                parent = entry_digest
                if not broken:
                    self.lifetimes.apply(self.state, entry, entry_digest, where)
                    if version in due:
                        self._compare(due.pop(version), version)
                        self._remember(version)
                    if histories:
                        commits.append(Record.of(entry).line())
                    if version in histories:
                        self._compare_history(histories.pop(version), version, entry_digest, commits)
            except (MlffstoreError, OSError) as error:
                self.complain(path, error)
                if not broken:
                    text = f"versions from {version} on cannot be read until {path} is restored from a copy"
                    self.complain(LOG_FOLDER, text)
                broken, parent = True, None
        self.n_entries = len(versions)
        self._hint(log, versions[-1])

    def _entries(self, log: Log, versions: list[int]) -> Iterator[tuple[int, ReadEntry | Exception]]:
        """Yield each version with its entry, or with the error of reading it; the next ones are read ahead in parallel."""

        def read(i: int) -> Sized[tuple[int, ReadEntry | Exception]]:
            try:
                result = log.read(versions[i])
                if result is None:
                    raise CorruptionError("the entry went missing while the log was read; restore it from a copy")
            except (MlffstoreError, OSError) as error:
                return Sized((versions[i], error), 1)
            return Sized((versions[i], result), result.entry.nbytes)

        return read_ahead(read, 0, len(versions))

    def _gap(self, first: int, last: int, *, broken: bool) -> None:
        """Note that entries are missing; one problem, however many there are."""
        path = entry_path(first)
        and_more = "" if first == last else f" and those up to {last}"
        self.complain(path, f"the entry{and_more} is missing, though later ones exist; restore it from a copy")
        if not broken:
            self.complain(LOG_FOLDER, f"versions from {first} on cannot be read until {path} is restored from a copy")

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
            _, root_digest = read_root(self.storage)
            self.n_files += 1
            return root_digest
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

    def _checkpoints(self) -> tuple[dict[int, str], dict[int, str]]:
        """Return the checkpoints, and the histories beside them, by version."""
        states, histories = {}, {}
        for file in self.storage.list(checkpoint.FOLDER):
            name = file.path.rpartition("/")[2]
            self.n_files, self.nbytes = self.n_files + 1, self.nbytes + file.nbytes
            if re.fullmatch(r"\d{20}\.json", name):
                states[int(name[:20])] = file.path
            elif re.fullmatch(r"\d{20}\.history\.json", name):
                histories[int(name[:20])] = file.path
        return states, histories

    def _compare_history(self, path: str, version: int, entry_digest: str, commits: list[bytes]) -> None:
        """Compare a history with the commits up to its version."""
        assert self.state is not None
        try:
            data = self.storage.read(path)
            base, parent, lines = history.decode(data, version, self.state.store, f"{self.storage.url}/{path}")
            if parent != entry_digest or lines != commits[0 if base is None else base + 1 :]:
                raise CorruptionError("the history differs from the log; delete it, the log has everything")
        except FileNotFoundError:
            pass  # a writer removes old ones as it goes
        except (MlffstoreError, OSError) as error:
            self.complain(path, error)

    def _compare(self, path: str, version: int) -> None:
        """Compare a checkpoint with what the log says as of its version."""
        assert self.state is not None
        try:
            kept = self._decode(path, version)
            for role in ROLES:
                saved, replayed = getattr(kept, role), getattr(self.state, role)
                if saved.paths != replayed.paths or any(a != b for a, b in zip(saved, replayed, strict=True)):
                    raise CorruptionError("the checkpoint differs from the log; delete it, the log has everything")
            names = (
                "parent",
                "totals",
                "rejected",
                "keys",
                "tags",
                "selections",
                "teachers",
                "user",
                "expired",
                "kept",
                "nbytes_log",
            )
            wrong = [name for name in names if getattr(kept, name) != getattr(self.state, name)]
            if wrong:
                raise CorruptionError(
                    f"the checkpoint differs from the log ({', '.join(wrong)}); delete it, the log has everything"
                )
        except FileNotFoundError:
            pass  # a writer removes old checkpoints as it goes
        except (MlffstoreError, OSError) as error:
            self.complain(path, error)

    def _decode(self, path: str, version: int) -> State:
        """Return the state of a checkpoint. What it counts from comes from the log, so that only its own file matters."""
        assert self.state is not None
        empty = State(self.state.store, self.state.precision, self.state.settings)

        where = f"{self.storage.url}/{path}"
        data = self.storage.read(path)
        base = base_of(data, where)
        earlier = None if base is None else self._earlier.get(base) or checkpoint.read(self.storage, base, empty)
        return decode(data, version, empty, where, earlier)

    def _remember(self, version: int) -> None:
        """Keep the state as of a checkpoint for those that count from it."""
        assert self.state is not None
        state = self.state
        lists = {role: getattr(state, role).copy() for role in ROLES}
        self._earlier = {known: self._earlier[known] for known in checkpoint.chain(version) if known in self._earlier}
        self._earlier[version] = replace(state, **lists, keys=dict(state.keys), tags=dict(state.tags))

    def _hint(self, log: Log, last: int) -> None:
        """Check the newest checkpoint, with which opening the store begins."""
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
                read = log.read(version)
            except MlffstoreError:  # the problem of the entry is on the list already
                return
            if read is None:
                self.complain(
                    LOG_FOLDER,
                    f"the log ends at version {last}, though the checkpoint {path} is of version {version}: entries are "
                    "missing from its end; restore them from a copy",
                )
            elif read[1] != kept.parent:
                self.complain(path, "does not fit the log; delete it, the log has everything")
        except FileNotFoundError:
            if not checkpoint.wanted(version, last):
                return  # two writers of different speed: the faster one removed what the slower one then named
            self.complain(checkpoint.HINT, f"names {path}, which is missing; it is made again by a later commit")
        except (MlffstoreError, OSError) as error:
            self.complain(path, error)
