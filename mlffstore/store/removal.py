"""`remove`: samples of a store go to the quarantine, or lose the labels of a teacher, in one commit."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from mlffstore.errors import ConflictError, DataError, TeacherError
from mlffstore.format.codec import digest
from mlffstore.store.chosen import choose
from mlffstore.store.correction import Correction, preview
from mlffstore.store.edits import Clear, Remove
from mlffstore.store.revision import Revision
from mlffstore.store.tracking import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from mlffstore.format.log import Log
    from mlffstore.storage import Storage
    from mlffstore.store.chosen import Chosen, SampleSelection
    from mlffstore.store.snapshot import Snapshot


class Removal:
    """Samples that are removed, or lose labels; see `mlffstore.Store.remove`.

    Parameters
    ----------
    storage : Storage
    log : Log
    samples, snapshot, reason, teacher, key, provenance
        As for `mlffstore.Store.remove`.
    """

    def __init__(
        self,
        storage: Storage,
        log: Log,
        samples: npt.ArrayLike | SampleSelection | None,
        snapshot: Snapshot | None,
        *,
        reason: str,
        teacher: str | None,
        key: str | None,
        provenance: Mapping[str, Any],
    ) -> None:
        if samples is None and teacher is None:
            raise DataError(
                "samples: expected indices, a boolean mask or a selection, got none; without samples, name the teacher "
                "whose labels go"
            )
        self._storage, self._log, self._samples, self._snapshot = storage, log, samples, snapshot
        self._reason, self._teacher, self._key, self._provenance = reason, teacher, key, provenance
        self._edit = Remove(reason) if teacher is None else Clear(teacher)

    def commit(self) -> int:
        """Remove them; return the version of the commit, or the last version if there was nothing to remove."""
        done = known_version(self._log, self._key)
        if done is not None:
            return self._settle(done)
        chosen = choose(self._log, self._samples, self._snapshot)
        version = chosen.state.version
        body = {
            "reason": self._reason,
            "snapshot": version,
            "content": None if self._key is None else self._content(chosen),
            "provenance": self._provenance,
        }
        trace = self._trace(chosen)
        committed = Revision(
            self._storage, self._log, trace, self._edit, key=self._key, settle=self._settle,
            body={name: value for name, value in body.items() if value not in (None, {})},
        ).commit()  # fmt: skip
        return trace.state.version if committed is None else committed

    def preview(self) -> Correction:
        """Return what `commit` would do."""
        done = known_version(self._log, self._key)
        if done is not None:
            self._settle(done)
            with self._log.guard():
                return Correction(self._edit.action, self._log.refresh().version, labels={}, splits={}, done=done)
        trace = self._trace(choose(self._log, self._samples, self._snapshot))
        trace.follow(self._log)
        return preview(self._storage, trace, self._edit)

    def _trace(self, chosen: Chosen) -> Trace:
        teachers = [name for name, n in chosen.state.totals.labelled.items() if n]
        if self._teacher is not None and self._teacher not in teachers:
            expected = f"expected one of {', '.join(teachers)}" if teachers else "there are no labels to remove"
            raise TeacherError(f"teacher: {expected}, got {self._teacher!r}")
        return Trace(chosen.state, chosen.rows())

    def _content(self, chosen: Chosen) -> str:
        """Return the digest of what is asked for: samples of a version, and a teacher."""
        samples = None if chosen.indices is None else digest(chosen.indices.astype("<i8").tobytes())
        document = {"snapshot": chosen.state.version, "samples": samples, "teacher": self._teacher}
        return digest(json.dumps(document, sort_keys=True).encode())

    def _settle(self, version: int) -> int:
        """Return the version that has the key, after making sure that it removed the same."""
        entry = self._log.entry(version)
        asked_in = entry.body.get("snapshot")
        if entry.operation == "remove" and type(asked_in) is int and 0 <= asked_in < version:
            # Indices without a snapshot mean those of the first time; then some may be outside.
            with contextlib.suppress(IndexError):
                content = self._content(choose(self._log, self._samples, self._snapshot, asked_in))
                if entry.body.get("content") == content:
                    self._log.settle(version)
                    return version
        raise other_content(self._key, version)


def known_version(log: Log, key: str | None) -> int | None:
    """Return the version that has a key already, or None."""
    if key is None:
        return None
    with log.guard():
        return log.refresh().keys.get(key)


def other_content(key: str | None, version: int) -> ConflictError:
    """Return the error for a key that stands for something else."""
    return ConflictError(
        f"key {key!r}: version {version} did something else under this key, so nothing was written. Use a key that follows "
        "from what is asked for"
    )
