"""`revert`: a whole commit is taken back, by one more commit."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import Ints, offsets
from mlffstore.data.schema import is_label, is_mask, split_key
from mlffstore.errors import ConflictError, DataError
from mlffstore.format.codec import digest
from mlffstore.format.fields import Fields
from mlffstore.format.replacement import parse_replacements
from mlffstore.store.arguments import check_version
from mlffstore.store.correction import Correction, preview
from mlffstore.store.edits import Clear, Edit, Refill, Remove, Restore
from mlffstore.store.removal import known_version, other_content
from mlffstore.store.revision import Revision
from mlffstore.store.tracking import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mlffstore.data.batch import SampleBatch
    from mlffstore.format.entry import Entry
    from mlffstore.format.log import Log
    from mlffstore.format.state import State
    from mlffstore.storage import Storage
    from mlffstore.store.snapshot import Snapshot

#: What to do about commits that have nothing to take back.
_REFUSED = {
    "create": "there is nothing before it; remove the store instead",
    "tag": "withdraw the tag: store.untag(name), or 'mlffstore tag STORE --withdraw NAME'",
    "untag": "set the tag again: store.tag(name, version)",
    "expire": "versions that were given up cannot be read again; restore them from a backup",
}


class Reversal:
    """A commit that is taken back; see `mlffstore.Store.revert`.

    Parameters
    ----------
    storage : Storage
    log : Log
    snapshot : callable
        It returns the snapshot of a version.
    version : int
        The version of the commit.
    reason, key, provenance
        As for `mlffstore.Store.revert`.
    """

    def __init__(
        self,
        storage: Storage,
        log: Log,
        snapshot: Callable[[int], Snapshot],
        version: int,
        *,
        reason: str,
        key: str | None,
        provenance: Mapping[str, Any],
    ) -> None:
        with log.guard():
            last = log.refresh().version
        self._storage, self._log, self._snapshot = storage, log, snapshot
        self._version = check_version(version, last)
        self._reason, self._key, self._provenance = reason, key, provenance
        self._teachers: dict[str, Mapping[str, Any]] = {}

    def commit(self) -> int:
        """Take it back; return the version of the commit."""
        done = known_version(self._log, self._key)
        if done is not None:
            return self._settle(done)
        trace, edit = self._plan()
        body = {
            "reason": self._reason,
            "reverts": self._version,
            "content": None if self._key is None else self._content(),
            "provenance": self._provenance,
        }
        committed = Revision(
            self._storage, self._log, trace, edit, key=self._key, settle=self._settle, teachers=self._teachers,
            body={name: value for name, value in body.items() if value not in (None, {})},
        ).commit()  # fmt: skip
        if committed is None:
            raise self._nothing_left()
        return committed

    def preview(self) -> Correction:
        """Return what `commit` would do."""
        done = known_version(self._log, self._key)
        if done is not None:
            self._settle(done)
            with self._log.guard():
                return Correction("remove", self._log.refresh().version, labels={}, splits={}, done=done)
        trace, edit = self._plan()
        return preview(self._storage, trace, edit)

    def _content(self) -> str:
        return digest(json.dumps({"reverts": self._version}).encode())

    def _settle(self, version: int) -> int:
        if self._log.entry(version).body.get("content") != self._content():
            raise other_content(self._key, version)
        self._log.settle(version)
        return version

    def _nothing_left(self) -> DataError:
        return DataError(
            f"version {self._version}: nothing of it is left to take back: other commits removed or restored it already; "
            "see 'mlffstore log'"
        )

    # -- what there is to take back ------------------------------------------------------------------------------

    def _plan(self) -> tuple[Trace, Edit]:
        """Return the samples that the commit was about, where they are now, and what is to become of them."""
        entry = self._log.entry(self._version)
        if entry.operation in _REFUSED:
            raise self._refusal(entry)
        # Applying the entry checks it, which a checkpoint of its version would not.
        state = self._log.replay(self._log.at(self._version - 1), self._version + 1)
        trace, edit = self._choose(state, entry)
        trace.follow(self._log)
        if isinstance(edit, Clear):
            self._check_labels(trace, edit.names)
            edit = dataclasses.replace(edit, others=trace.lost)
        there = [numbers for _, numbers in trace.rows(edit.segments(trace.state)).values()]
        if not there or (isinstance(edit, Clear) and _all_lost(trace, edit, np.concatenate(there))):
            raise self._nothing_left()
        return trace, edit

    def _choose(self, state: State, entry: Entry) -> tuple[Trace, Edit]:
        if entry.operation == "append":
            return Trace(state, _whole(entry.body["segments"])), Remove(self._reason)
        if entry.operation == "layer":
            names = {tuple(key for key in layer["columns"] if not is_mask(key)) for layer in entry.body["layers"]}
            if len(names) != 1:
                raise DataError(
                    f"version {self._version}: its layers have different columns; remove the labels by teacher"
                )
            rows = {layer["segment"]: np.arange(state.segments.n_samples[self._place(state, layer["segment"])])
                    for layer in entry.body["layers"]}  # fmt: skip
            return Trace(state, rows), Clear(None, names.pop())
        names_of = entry.body.get("columns")
        if entry.operation == "remove" and names_of is None:
            moved, back = entry.body.get("quarantine", ()), entry.body.get("segments", ())
            if moved:
                self._teachers = self._teachers_before(key for document in moved for key in document["columns"])
            return Trace(state, _whole(moved or back)), Restore() if moved else Remove(self._reason)
        if entry.operation == "remove":
            return self._refill(state, entry, tuple(names_of or ()))
        if entry.operation == "replace" and names_of is not None:
            return Trace(state, _touched(entry, state)), Clear(None, tuple(names_of))
        raise self._refusal(entry)

    def _refill(self, state: State, entry: Entry, names: tuple[str, ...]) -> tuple[Trace, Edit]:
        """Return the samples that lost values, and an edit that reads the values in the version before."""
        before = self._snapshot(self._version - 1)  # raises if it has expired
        starts = dict(
            zip(
                (segment.path for segment in before.segments),
                offsets([n.n_samples for n in before.segments]),
                strict=False,
            )
        )
        # The inputs of a replacement are neighbours, so that their samples follow each other in the snapshot too.
        places = [starts[replacement.inputs[0]] + replacement.touched() for replacement in _replacements(entry)]
        place = np.concatenate([np.zeros(0, np.int64), *places])
        self._teachers = self._teachers_before(names)
        wanted = sorted({split_key(key)[0] for key in names})

        def values(numbers: Ints) -> SampleBatch:
            return before.read(place[numbers], columns=wanted)

        return Trace(state, _touched(entry, state)), Refill(names, values)

    def _teachers_before(self, columns: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Return what was known of the teachers of some columns before the commit: another model may have their names."""
        teachers = {split_key(key)[1] for key in columns if not is_mask(key)}
        known = self._log.at(self._version - 1).teachers
        return {teacher: info for teacher, info in known.items() if teacher in teachers and info}

    def _place(self, state: State, path: str) -> int:
        i = state.segments.find(path)
        assert i is not None  # the state has applied the entry
        return i

    def _check_labels(self, trace: Trace, names: Iterable[str]) -> None:
        for key in names:
            teacher = split_key(key)[1]
            version = trace.completed(teacher) if teacher is not None and is_label(key) else None
            if version is not None:
                raise ConflictError(
                    f"version {self._version}: version {version} completed the labels of {teacher!r} in the same segments, "
                    "and the two cannot be told apart; remove all labels of the teacher: "
                    f"store.remove(teacher={teacher!r}, reason=...)"
                )

    def _refusal(self, entry: Entry) -> DataError:
        about = _REFUSED.get(entry.operation)
        if entry.operation == "replace" and entry.body.get("provenance"):
            about = "it completed labels; remove those of the teacher: store.remove(teacher=..., reason=...)"
        elif entry.operation == "replace":
            about = "it merged segments, which hold the same samples as before; read the version before it instead"
        return DataError(f"version {self._version} ({entry.operation}) cannot be taken back: {about}")


def _whole(documents: Iterable[Mapping[str, Any]]) -> dict[str, Ints]:
    """Return all samples of the segments of an entry."""
    return {document["path"]: np.arange(document["n_samples"]) for document in documents}


def _replacements(entry: Entry) -> list[Any]:
    return parse_replacements(Fields(dict(entry.body), f"version {entry.version}"), with_runs=True)


def _touched(entry: Entry, state: State) -> dict[str, Ints]:
    """Return the samples that an entry touched where they are after it, in the order of its replacements."""
    out = {}
    for replacement in _replacements(entry):
        touched, starts = replacement.touched(), offsets([segment.n_samples for segment in replacement.outputs])
        cuts = np.searchsorted(touched, starts)
        for i, segment in enumerate(replacement.outputs):
            if cuts[i + 1] > cuts[i]:
                out[segment.path] = touched[cuts[i] : cuts[i + 1]] - starts[i]
    return out


def _all_lost(trace: Trace, edit: Clear, numbers: Ints) -> bool:
    """Return whether no sample has a value of the columns any more that it had when it was first followed."""
    return all(np.isin(numbers, trace.lost(key)).all() for key in edit.names)
