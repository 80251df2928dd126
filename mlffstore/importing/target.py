"""`Target`: the store of an import, made only when there is something to put into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlffstore.data.casting import integer
from mlffstore.data.splits import DEFAULT_FRACTIONS, check_fractions
from mlffstore.errors import ConflictError, DataError, StoreNotFoundError
from mlffstore.store.facade import Store
from mlffstore.store.opening import create
from mlffstore.store.opening import open as open_store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from mlffstore.importing.spool import Block


@dataclass(frozen=True, slots=True)
class Stored:
    """What a commit stored: its version, samples, atoms, and the duplicates that it left out."""

    version: int
    samples: int
    atoms: int
    duplicates: int


class Target:
    """The store that is imported into.

    Parameters
    ----------
    store : path or Store
        A path is opened if there is a store, and created at the first commit if not.
    options : dict
        Of `mlffstore.create`.
    """

    def __init__(self, store: str | os.PathLike[str] | Store, options: dict[str, Any]) -> None:
        self._url, self._options = store, options
        self._store: Store | None = store if isinstance(store, Store) else None
        self._imported: dict[str, Mapping[str, Any]] = {}
        if self._store is None:
            try:
                self._store = open_store(store, mode="a")  # type: ignore[arg-type]
            except StoreNotFoundError:
                return
            if options:
                self._store = create(store, exist_ok=True, **options)  # type: ignore[arg-type]
        elif options:
            raise DataError("create_options: expected none with an open store, got some; leave them out")
        for entry in self._store.provenance():
            if isinstance(note := entry.get("import"), dict) and "samples" in note and "digest" in note:
                self._imported[note["digest"]] = note

    @property
    def is_new(self) -> bool:
        """Whether there is no store yet."""
        return self._store is None

    @property
    def precision(self) -> str:
        """dtype of the positions of the store that there is or will be."""
        return self._store.precision if self._store is not None else str(self._options.get("precision", "float32"))

    @property
    def store(self) -> Store:
        """The store; it is made if there is none."""
        if self._store is None:
            self._store = create(self._url, exist_ok=True, **self._options)  # type: ignore[arg-type]
        return self._store

    def check_writable(self) -> None:
        """Raise `ReadOnlyError` if there is a store that is open for reading."""
        if self._store is not None:
            self._store.check_writable()

    def imported(self, digest: str) -> Mapping[str, Any] | None:
        """Return what the log says of an earlier import of a file with the same options, None if there was none."""
        return self._imported.get(digest)

    def suggest(self, precision: str, settings: Mapping[str, Any]) -> None:
        """Let a new store be made like a store or release that it is filled from, where the caller says nothing else."""
        if self._store is None:
            self._options = {"precision": precision, **settings, **self._options}

    @property
    def settings(self) -> dict[str, Any]:
        """Split fractions and seed of the store that there is or will be."""
        if self._store is not None:
            return self._store.settings
        fractions = check_fractions(self._options.get("splits", DEFAULT_FRACTIONS))
        return {"splits": fractions, "split_seed": integer("split_seed", self._options.get("split_seed", 0))}

    def commit(
        self,
        blocks: Iterable[Block],
        note: Mapping[str, Any],
        *,
        teachers: Mapping[str, Mapping[str, Any]],
        on_duplicate: Literal["keep", "skip", "error"],
    ) -> Stored | None:
        """Store the blocks of a file in one commit; return None if another process has stored the same file meanwhile."""
        key = f"import/{note['digest']}"
        before = self.store.version
        # What labels are required was decided when the samples were read.
        with self.store.transaction(
            key=key, require=(), teachers=teachers, provenance={"import": dict(note)}, on_duplicate=on_duplicate
        ) as transaction:
            for block in blocks:
                transaction.add(block.accepted, rejected=block.rejected, reasons=block.reasons)
            try:
                version = transaction.commit()
            except ConflictError:
                if self.store.keys().get(key) is None:
                    raise
                return None  # the same file under another name, which is the source of its samples
        if version <= before:
            return None
        self._imported[str(note["digest"])] = note
        commit = self.store.history(since=version)[0]
        return Stored(version, commit.n_samples, commit.n_atoms, transaction.n_duplicates)
