"""`OpenedStore`: a store that was opened, and everything that reading it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from mlffstore.errors import DataError, FormatError, ReadOnlyError
from mlffstore.format.kept_selection import selected_indices
from mlffstore.format.log import Log
from mlffstore.format.root import read_root
from mlffstore.format.state import State
from mlffstore.runtime.words import counted
from mlffstore.store.arguments import check_version
from mlffstore.store.question import Step
from mlffstore.store.samples import Selection
from mlffstore.store.snapshot import Opener, Snapshot

if TYPE_CHECKING:
    from mlffstore.format.commit import Commit
    from mlffstore.storage import Storage

Mode = Literal["r", "a"]


class Reopener(Opener, Protocol):
    """Opens a store again; see `mlffstore.store.opening.StoreOpener`."""

    @property
    def url(self) -> str:
        """URL of the store."""
        ...

    def of(self, uuid: str) -> Reopener:
        """Return an opener that expects the store of this UUID."""
        ...

    def __call__(self, mode: Mode = "r") -> Any:
        """Open the store."""
        ...


class OpenedStore:
    """A store that was opened, for reading.

    Parameters
    ----------
    storage : Storage
        The place of the store.
    mode : {"r", "a"}
        Whether the store was opened for reading, or for appending too.
    opener : Reopener
        It opens the store again in another process.

    Raises
    ------
    FormatError
        If the creation of the store was interrupted.
    """

    def __init__(self, storage: Storage, mode: Mode, opener: Reopener) -> None:
        self._storage, self.mode = storage, mode
        attributes = read_root(storage)[0]["attributes"]
        self.uuid: str = attributes["uuid"]
        self._opener = opener.of(self.uuid)
        self.precision: str = attributes["precision"]
        self.settings: dict[str, Any] = {"splits": attributes["splits"], "split_seed": attributes["split_seed"]}
        self._log = Log(storage, State(self.uuid, self.precision, self.settings))
        if self._log.refresh().version < 0:
            raise FormatError(
                f"{storage.url}: the creation of this store was interrupted; call ml.create with the same settings again"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return (self._opener, (self.mode,))

    @property
    def url(self) -> str:
        """Where the store is."""
        return self._storage.url

    def check_writable(self) -> None:
        """Raise `ReadOnlyError` if the store is open for reading."""
        if self.mode != "a":
            raise ReadOnlyError(
                f"{self.url}: opened for reading; open it with ml.open({self._opener.url!r}, mode='a') to write"
            )

    def snapshot(self, version: int | None = None, *, tag: str | None = None) -> Snapshot:
        """Return the dataset as of a version or tag, the latest by default.

        Raises
        ------
        DataError
            If there is no such version or tag, or both are given.
        """
        with self._log.guard():  # another thread may append through this store
            state = self._log.refresh()
            if tag is not None:
                if version is not None:
                    raise DataError("snapshot: expected a version or a tag, got both")
                if tag not in state.tags:
                    raise DataError(f"tag: expected one of {', '.join(state.tags) or '(there are none)'}, got {tag!r}")
                version = state.tags[tag]
            version = state.version if version is None else check_version(version, state.version)
            if version == state.version:
                return Snapshot(self._storage, state, self._opener)
            if not state.retains(version):
                raise DataError(
                    f"version {version} has expired: its files may be gone. Versions from {state.expired} on can be read"
                    + (f", and the tagged {', '.join(map(str, state.kept))}" if state.kept else "")
                )
        return Snapshot(self._storage, self._log.at(version), self._opener)

    def selection(self, name: str) -> Selection:
        """Return the selection that a tag names.

        Parameters
        ----------
        name : str
            The tag; see `Store.tag`.

        Raises
        ------
        DataError
            If there is no such tag, or it names a whole version.
        """
        with self._log.guard():
            kept = self._log.refresh().selections
            if name not in kept:
                raise DataError(f"selection: expected one of {', '.join(kept) or '(there are none)'}, got {name!r}")
            body = self._log.entry(kept[name]).body
        snapshot, where = self.snapshot(body["target"]), f"{self.url}: entry {kept[name]}"
        indices = selected_indices(body["selection"], len(snapshot), where)
        return Selection(snapshot, indices, tuple(Step.of(step) for step in body["selection"]["steps"]))

    @property
    def selections(self) -> dict[str, int]:
        """Tags that name some samples, and the versions that these are of."""
        with self._log.guard():
            state = self._log.refresh()
            return {name: state.tags[name] for name in state.selections}

    @property
    def version(self) -> int:
        """The latest version."""
        with self._log.guard():
            return self._log.refresh().version

    @property
    def tags(self) -> dict[str, int]:
        """Tags and the versions that they name."""
        with self._log.guard():
            return dict(self._log.refresh().tags)

    def keys(self) -> dict[str, int]:
        """Return the idempotency keys in the log, each with the version of its commit."""
        with self._log.guard():
            return dict(self._log.refresh().keys)

    def __len__(self) -> int:
        """Return the number of samples of the latest version."""
        with self._log.guard():
            return sum(self._log.refresh().segments.n_samples)

    def history(self, last: int | None = None, *, since: int = 0) -> list[Commit]:
        """Return the commits from version `since` on, oldest first; only the `last` ones if a number is given."""
        start = since if last is None else max(since, self.version + 1 - last)
        return [record.commit for record in self._log.history(start)]

    def provenance(self, *, since: int = 0) -> list[dict[str, Any]]:
        """Return the provenance of the commits from version `since` on that have one, with their versions, oldest first."""
        return [
            {"version": record.commit.version, "time": record.commit.time, **record.provenance}
            for record in self._log.history(since)
            if record.provenance
        ]

    def committed(self, version: int) -> str:
        """Return when a version was committed, ISO 8601, UTC."""
        return self._log.entry(version).time

    def __repr__(self) -> str:
        snap = self.snapshot()
        teachers = ", ".join(snap.teachers) or "no labels yet"
        return (
            f"<Store {self.url}: {counted(len(snap), 'sample')}, {counted(snap.n_atoms, 'atom')}, "
            f"{counted(len(snap.elements()), 'element')}, {teachers}; version {snap.version}, mode {self.mode!r}>"
        )

    def _repr_html_(self) -> str:
        from mlffstore.store.describe import html_table

        return html_table(self)
