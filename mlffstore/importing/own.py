"""Our own stores and releases as sources of an import: samples come with their teachers, roots, splits and columns."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlffstore.data.blanks import without_values
from mlffstore.data.schema import label_key
from mlffstore.data.splits import SPLITS
from mlffstore.importing.samples import ReadSamples
from mlffstore.release.provenance import by_part
from mlffstore.release.reading import Release
from mlffstore.store.opening import open as open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.importing.account import Use

#: Kinds of sources that this library made.
OWN = ("store", "release")
#: Longest JSON of the provenance of a source that the log of the target keeps, bytes.
_MAX_PROVENANCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """What a source of ours says of itself.

    Attributes
    ----------
    key : str
        What names its content.
    settings : mapping
        Split fractions and seed.
    precision : str
        dtype of the positions.
    teachers : mapping of str to mapping
        What is known of each teacher.
    note : mapping
        JSON for the log of the target: where the samples come from, and the provenance of the source.
    """

    key: str
    settings: Mapping[str, Any]
    precision: str
    teachers: Mapping[str, Mapping[str, Any]]
    note: Mapping[str, Any] = field(default_factory=dict)


class OwnSource(Protocol):
    """A store or release that samples are read from."""

    @property
    def origin(self) -> Origin:
        """What the source says of itself."""
        ...

    def blocks(self, n_samples: int) -> Iterator[ReadSamples]:
        """Yield its samples, some at a time."""
        ...


def open_own(path: Path, kind: str) -> OwnSource:
    """Open a store or release to read samples from.

    Raises
    ------
    MlffstoreError
        If it cannot be opened.
    """
    return _StoreSource(path) if kind == "store" else _ReleaseSource(path)


class _StoreSource:
    """The newest version of a store."""

    def __init__(self, path: Path) -> None:
        self._snapshot = snapshot = open_store(path).snapshot()
        teachers = {name: snapshot.teacher_info(name) for name in snapshot.teachers}
        note = {
            "store": snapshot.store_uuid, "version": snapshot.version, "digest": snapshot.digest,
            **_provenance(snapshot.provenance()),
        }  # fmt: skip
        self.origin = Origin(snapshot.digest, snapshot.settings, snapshot.precision, teachers, note)

    def blocks(self, n_samples: int) -> Iterator[ReadSamples]:
        """Yield the samples in store order, then those in quarantine."""
        snapshot = self._snapshot
        codes = snapshot.split_codes()
        for low in range(0, len(snapshot), n_samples):
            index = np.arange(low, min(low + n_samples, len(snapshot)))
            batch = snapshot.read(index)
            places = [f"sample {i}" for i in index.tolist()]
            yield ReadSamples(_trimmed(batch), places, splits=codes[index].astype(np.int64), **_uses(batch))
        rejected = snapshot.quarantine
        reasons = rejected.reasons() if len(rejected) else []
        for low in range(0, len(rejected), n_samples):
            index = np.arange(low, min(low + n_samples, len(rejected)))
            batch = rejected.read(index)
            text = f"{len(rejected)} rejected samples of the store come along, and stay in quarantine"
            yield ReadSamples(
                batch.take([]), [], rejected=_without_reason(batch), reasons=tuple(reasons[low : low + len(index)]),
                warnings=(text,),
            )  # fmt: skip


class _ReleaseSource:
    """A release: a file, or a folder with its shards."""

    def __init__(self, path: Path) -> None:
        self._release = release = Release(path)
        attributes = release.attributes
        info = json.loads(attributes.get("teacher_info", "{}"))
        teachers = {name: info if len(release.teachers) == 1 else info.get(name, {}) for name in release.teachers}
        kept = ("title", "version", "store_uuid", "store_version", "content_sha256", "software")
        note = {name: _plain(attributes[name]) for name in kept if name in attributes}
        note |= _provenance(json.loads(attributes.get("provenance", "[]")))
        precision = str(attributes.get("precision", "float32"))
        self.origin = Origin(_content_key(release), release.settings, precision, teachers, {"release": note})

    def blocks(self, n_samples: int) -> Iterator[ReadSamples]:
        """Yield the samples split by split, in the order of the files."""
        for split in self._release.counts:
            start = 0
            for batch in self._release.blocks(split, n_samples, everything=True):
                places = [f"{split} {i}" for i in range(start, start + len(batch))]
                start += len(batch)
                codes = np.full(len(batch), SPLITS.index(split))
                yield ReadSamples(_trimmed(batch), places, splits=codes, **_uses(batch))


def _content_key(release: Release) -> str:
    """Return what names the content of a release, wherever it lies: the digests in its files, or the whole files."""
    from mlffstore.importing.digests import sha256_of

    known = release.attributes.get("content_sha256")
    return str(known) if known is not None and len(release.paths) == 1 else " ".join(map(sha256_of, release.paths))


def _provenance(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the provenance of a source for the log, summed up, or its size if it is too long for a log entry."""
    summed = by_part(records)
    nbytes = len(json.dumps(summed))
    return {"provenance": summed} if nbytes <= _MAX_PROVENANCE else {"provenance_nbytes": nbytes}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _trimmed(batch: SampleBatch) -> SampleBatch:
    """Return a batch without the label columns in which none of its samples has a value."""
    keys = [
        label_key(name, teacher)
        for teacher, named in batch.labels.items()
        for name, values in named.items()
        if np.isnan(values).all()
    ]
    return without_values(batch, keys, np.arange(len(batch))) if keys else batch


def _without_reason(batch: SampleBatch) -> SampleBatch:
    from mlffstore.store.quarantine import without_reasons

    return without_reasons(batch)


def _uses(batch: SampleBatch) -> dict[str, Any]:
    """Return what became of the columns: all are kept."""
    uses: list[Use] = [(teacher, name, "kept", name, "") for teacher, named in batch.labels.items() for name in named]
    uses += [
        ("columns", name, "kept", name, f"in {column.unit}, per {column.axis}") for name, column in batch.user.items()
    ]
    uses += [("columns", name, "kept", name, "") for name in ("source", "sampler", "root", "charge", "multiplicity")]
    return {"uses": tuple(uses)}


__all__ = ["OWN", "Origin", "OwnSource", "open_own"]
