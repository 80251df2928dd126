"""Our own stores and releases as sources of an import: samples come with their teachers, roots, splits and columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.splits import SPLITS
from mlffstore.importing.exports.source import ExportSource
from mlffstore.importing.origin import Origin, teachers_of, trimmed, uses_of
from mlffstore.importing.samples import ReadSamples
from mlffstore.release.provenance import by_part
from mlffstore.release.reading import Release
from mlffstore.store.opening import open as open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.importing.origin import OwnSource

#: Longest JSON of the provenance of a source that the log of the target keeps, bytes.
_MAX_PROVENANCE = 1 << 20


def open_own(path: Path, kind: str) -> OwnSource:
    """Open a store, release or export to read samples from.

    Raises
    ------
    MlffstoreError
        If it cannot be opened.
    """
    sources: dict[str, Callable[[Path], OwnSource]] = {"store": _StoreSource, "release": _ReleaseSource}
    return sources.get(kind, ExportSource)(path)


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
            yield ReadSamples(trimmed(batch), places, splits=codes[index].astype(np.int64), **uses_of(batch))
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
        teachers = teachers_of(attributes, release.teachers)
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
                yield ReadSamples(trimmed(batch), places, splits=codes, **uses_of(batch))


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


def _without_reason(batch: SampleBatch) -> SampleBatch:
    from mlffstore.store.quarantine import without_reasons

    return without_reasons(batch)


__all__ = ["open_own"]
