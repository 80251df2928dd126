"""Where the samples for training come from: a snapshot of a store, or a release. Only reading; nothing is kept here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mlffstore.data.labels import choose_teacher, has_any_label, has_label
from mlffstore.data.schema import label_key
from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError
from mlffstore.release import Release, is_release
from mlffstore.release.samples import ReleaseSamples
from mlffstore.runtime.paths import local_path
from mlffstore.store.samples import Samples
from mlffstore.training.columns import TRAINED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Column

T = TypeVar("T")
#: Samples decoded at a time.
_BLOCK = 8192
#: Columns of a sample beside labels and user columns.
STRUCTURE = ("numbers", "positions", "cell", "pbc", "charge", "multiplicity", "content_hash")


class StoreSource:
    """Samples of a snapshot or a selection that a teacher labelled with anything: energy, forces or stress."""

    def __init__(self, snapshot: Samples, teacher: str | None, properties: Sequence[str] = ()) -> None:
        self.snapshot, self.properties = snapshot, tuple(properties)
        self.teacher = choose_teacher(snapshot.teachers, teacher)
        self.precision: str = snapshot.precision
        self._index: Ints | None = None

    def key(self) -> str:
        """Return a string that identifies the content: the digest of the log up to the version, since copies may diverge."""
        return f"store {self.snapshot.digest} {self.teacher}{_listed(self.properties)}"

    def title(self) -> str:
        """Return the title for messages."""
        return f"{self.snapshot.url}, version {self.snapshot.version}, {self.teacher}"

    def labels(self) -> set[str]:
        """Return the names of the labels that the teacher gave to some sample."""
        keys = self.snapshot.label_columns()
        return {name for name in (*TRAINED, *self.properties) if label_key(name, self.teacher) in keys}

    def user(self) -> dict[str, Column]:
        """Return the numeric user columns, and the columns of the properties beside energy, forces and stress."""
        stored = self.snapshot.label_columns()
        columns = {name: stored[key] for name in self.properties
                   if (key := label_key(name, self.teacher)) in stored}  # fmt: skip
        return _numeric(self.snapshot.user_columns) | _all_there(columns, self.properties, self.teacher)

    def index(self) -> Ints:
        """Return which samples of the snapshot have labels of the teacher, shape (S,), int64."""
        if self._index is None:
            labelled = np.zeros(len(self.snapshot), bool)
            order = ("energy", "stress", "forces", *self.properties)  # large ones late
            for name in sorted(self.labels(), key=order.index):
                rest = np.flatnonzero(~labelled)
                labelled[rest] = self.having(name, rest)
            self._index = np.flatnonzero(labelled)
        return self._index

    def having(self, name: str, index: Ints) -> Array:
        """Return which of some samples have a label, shape (n,), bool; reads that label."""
        out = np.zeros(len(index), bool)
        if name in self.labels():
            for low in range(0, len(index), 8 * _BLOCK):
                some = slice(low, low + 8 * _BLOCK)
                batch = self.snapshot.read(index[some], teacher=self.teacher, columns=["n_atoms", name])
                if name in batch.labels.get(self.teacher, {}):
                    out[some] = has_label(name, batch.labels[self.teacher][name], batch.n_atoms, batch.properties)
        return out

    def sizes(self) -> tuple[Array, Array]:
        """Return the atoms and the split of each sample."""
        index = self.index()
        return self.snapshot.read(index, columns=["n_atoms"]).n_atoms, self.snapshot.split_codes()[index]

    def blocks(self, user: Iterable[str]) -> Iterator[SampleBatch]:
        """Yield the samples in order, some at a time, with some user columns."""
        names, index = (*STRUCTURE, *TRAINED, *user), self.index()
        for start in range(0, len(index), _BLOCK):
            yield self.snapshot.read(index[start : start + _BLOCK], teacher=self.teacher, columns=names)


class ReleaseSource:
    """Samples of a release that a teacher labelled with anything: energy, forces or stress."""

    def __init__(self, release: Release, teacher: str | None, properties: Sequence[str] = ()) -> None:
        self.release, self.properties = release, tuple(properties)
        self.teacher = choose_teacher(release.teachers, teacher)
        self.precision = str(release.attributes.get("precision", "float32"))

    def key(self) -> str:
        """Return a string that identifies the content: the checksums of the files."""
        from mlffstore.runtime.folders import file_checksum

        files = " ".join(file_checksum(path) for path in self.release.paths)
        return f"release {files} {self.teacher}{_listed(self.properties)}"

    def title(self) -> str:
        """Return the title for messages."""
        return f"{self.release.path.absolute()}, {self.teacher}"

    def labels(self) -> set[str]:
        """Return the names of the labels that the teacher gave to some sample."""
        return self.release.labels(self.teacher) & {*TRAINED, *self.properties}

    def user(self) -> dict[str, Column]:
        """Return the numeric user columns, and the columns of the properties beside energy, forces and stress."""
        columns: dict[str, Column] = {}
        labels: dict[str, Column] = {}
        for split, n in self.release.counts.items():
            if n and not columns:
                batch = next(self.release.blocks(split, 1, self.teacher, everything=True))
                columns = batch.user
                labels |= {name: batch.label_column(name, self.teacher) for name in self.properties
                           if name in batch.labels.get(self.teacher, {})}  # fmt: skip
        return _numeric(columns) | _all_there(labels, self.properties, self.teacher)

    def sizes(self) -> tuple[Array, Array]:
        """Return the atoms and the split of each sample."""
        sizes, codes = [np.zeros(0, np.int32)], [np.zeros(0, np.uint8)]
        for split in self.release.counts:
            for batch in self.release.blocks(split, _BLOCK, self.teacher):
                some = batch.n_atoms[self._labelled(batch)]
                sizes.append(some)
                codes.append(np.full(len(some), SPLITS.index(split), np.uint8))
        return np.concatenate(sizes), np.concatenate(codes)

    def blocks(self, user: Iterable[str]) -> Iterator[SampleBatch]:
        """Yield the samples in order, some at a time, with some user columns."""
        everything = bool(tuple(user))
        for split in self.release.counts:
            for batch in self.release.blocks(split, _BLOCK, self.teacher, everything=everything):
                labelled = self._labelled(batch)
                yield batch if labelled.all() else batch.take(np.flatnonzero(labelled))

    def _labelled(self, batch: SampleBatch) -> Array:
        labels = batch.labels.get(self.teacher, {})
        wanted = {name: labels[name] for name in (*TRAINED, *self.properties) if name in labels}
        return has_any_label(wanted, batch.n_atoms, batch.properties)


Source = StoreSource | ReleaseSource


def source(data: Any, teacher: str | None, properties: Sequence[str] = ()) -> Source:
    """Return where the samples of a path, URL, store, snapshot, selection or release come from.

    `properties` are those to read beside energy, forces and stress.
    """
    if isinstance(data, (str, os.PathLike)) and is_release(data):
        return ReleaseSource(Release(data), teacher, properties)
    data = pinned(data)
    if isinstance(data, ReleaseSamples):
        return ReleaseSource(data.release, teacher, properties)
    if not len(data) and data.selected() is not None:
        raise DataError(f"{data!r}: expected samples to train on, got none; ask for others")
    return StoreSource(data, teacher, properties)


def pinned(source: Any) -> Any:
    """Return a snapshot where a store was given, so that all processes read one version, however it grows."""
    if isinstance(source, Samples):
        return source
    if isinstance(source, (str, os.PathLike)):
        from mlffstore.release import is_release

        if is_release(source):
            return os.path.abspath(local_path(source))
        from mlffstore.store.opening import open as open_store

        source = open_store(source)
    return source.snapshot() if hasattr(source, "snapshot") else source


def choose_user(available: Mapping[str, T], wanted: Iterable[str] | None) -> dict[str, T]:
    """Return the user columns that were asked for; all of them for None.

    Raises
    ------
    DataError
        If there is no numeric user column of a name.
    """
    if wanted is None:
        return dict(available)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    unknown = [name for name in names if name not in available]
    if unknown:
        raise DataError(
            f"columns: expected numeric user columns ({', '.join(sorted(available)) or 'there are none'}), "
            f"got {', '.join(map(repr, unknown))}"
        )
    return {name: available[name] for name in names}


@dataclass(frozen=True, slots=True)
class WantedLabels:
    """The labels that batches get, and those that every sample must have.

    Attributes
    ----------
    names, require : tuple of str
    """

    names: tuple[str, ...]
    require: tuple[str, ...]

    @classmethod
    def of(cls, properties: Sequence[str] | str | None, require: Sequence[str] | str) -> WantedLabels:
        """Return what a user asked for; energy, forces and stress by default.

        Raises
        ------
        DataError
            If a label is required and not wanted.
        """
        names = TRAINED if properties is None else (properties,) if isinstance(properties, str) else tuple(properties)
        required = (require,) if isinstance(require, str) else tuple(require)
        if set(required) - set(names):
            raise DataError(f"require: expected labels among {', '.join(names)}, got {require!r}")
        return cls(names, required)

    @property
    def more(self) -> tuple[str, ...]:
        """Those beside energy, forces and stress."""
        return tuple(dict.fromkeys(name for name in self.names if name not in TRAINED))

    @property
    def hidden(self) -> frozenset[str]:
        """Forces and stress, as far as they are not wanted. The energy always is."""
        return frozenset(name for name in TRAINED if name not in (*self.names, "energy"))

    def choose(self, available: Mapping[str, T], columns: Iterable[str] | None) -> dict[str, T]:
        """Return the labels beside energy, forces and stress, and the user columns that were asked for (None: all)."""
        labels = {name: column for name, column in available.items() if name in self.more}
        return labels | choose_user({k: v for k, v in available.items() if k not in labels}, columns)


def _numeric(columns: Mapping[str, Column]) -> dict[str, Column]:
    return {
        name: column for name, column in columns.items() if np.dtype(column.dtype).kind in "biuf" and not column.coded
    }


def _listed(properties: Sequence[str]) -> str:
    return "".join(f" {name}" for name in sorted(properties))


def _all_there(columns: dict[str, Column], properties: Sequence[str], teacher: str) -> dict[str, Column]:
    """Return the columns of properties; raise `DataError` if the teacher gave none of some property."""
    lacking = [name for name in properties if name not in columns]
    if lacking:
        raise DataError(f"properties: expected properties that {teacher!r} gave, got {', '.join(map(repr, lacking))}")
    return columns
