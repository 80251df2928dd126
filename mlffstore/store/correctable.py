"""`CorrectableStore`: a store of which samples, labels, whole commits and tags can be taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from mlffstore.errors import DataError
from mlffstore.store.arguments import check_key, check_reason, check_tag, json_mapping
from mlffstore.store.maintained import MaintainedStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from mlffstore.format.state import State
    from mlffstore.store.chosen import SampleSelection
    from mlffstore.store.correction import Correction
    from mlffstore.store.snapshot import Snapshot


class CorrectableStore(MaintainedStore):
    """A store with the operations that take back what was stored. Old versions and tags stay as they are."""

    @overload
    def remove(
        self,
        samples: npt.ArrayLike | SampleSelection | None = None,
        *,
        reason: str,
        key: str | None = None,
        teacher: str | None = None,
        snapshot: Snapshot | None = None,
        provenance: Mapping[str, Any] | None = None,
        dry_run: Literal[False] = False,
    ) -> int: ...
    @overload
    def remove(
        self,
        samples: npt.ArrayLike | SampleSelection | None = None,
        *,
        reason: str,
        key: str | None = None,
        teacher: str | None = None,
        snapshot: Snapshot | None = None,
        provenance: Mapping[str, Any] | None = None,
        dry_run: Literal[True],
    ) -> Correction: ...
    def remove(
        self,
        samples: npt.ArrayLike | SampleSelection | None = None,
        *,
        reason: str,
        key: str | None = None,
        teacher: str | None = None,
        snapshot: Snapshot | None = None,
        provenance: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> int | Correction:
        """Remove samples, or the labels that a teacher gave them, in one atomic, durable commit.

        The segments that hold the samples are written anew without them. The samples, with all their columns, go to the
        quarantine with the reason: ``store.snapshot().quarantine``. Versions and tags from before stay readable until
        they are given up with `gc`, and `revert` brings the samples back. Removed structures may be appended again, also
        with ``on_duplicate="skip"``. An append with a key that is in the log already stays without effect, though its
        samples were removed.

        Parameters
        ----------
        samples : array_like of int, boolean mask, or selection, optional
            Indices in any order, a mask with one value per sample, or an object with the attributes `snapshot` and
            `indices`. All samples by default, if a teacher is named.
        reason : str
            Why. The log keeps it, and the quarantine keeps it for each sample.
        key : str, optional
            Idempotency key. If the log has it already, nothing is written and its version is returned, provided that it
            removed the same samples of the same snapshot. Indices without a snapshot then refer to the same version as
            the first time.
        teacher : str, optional
            Name of a teacher: only its labels are removed, and the samples stay. They can be seen in earlier versions
            only. If no labels of the teacher are left, those of another model may be stored under its name.
        snapshot : Snapshot, optional
            The snapshot that indices and masks refer to; the newest by default. Samples that were merged into other
            segments since are found; samples that were removed since are left out.
        provenance : mapping, optional
            JSON that the log entry keeps.
        dry_run : bool, optional
            Whether to return only what would be done.

        Returns
        -------
        int or Correction
            The version of the commit; the latest version if there was nothing to remove. With `dry_run`, the samples,
            labels, splits, segments and bytes that it would be about; nothing is written.

        Raises
        ------
        DataError
            If neither samples nor a teacher are named, there is no reason, or the snapshot is of another store.
        IndexError
            If an index is outside.
        TeacherError
            If the snapshot has no labels of that teacher.
        ConflictError
            If the key stands for something else, or other processes changed the same segments again and again.

        Notes
        -----
        Other processes may append, label, compact and remove meanwhile: if they change some of the segments, the samples
        are looked up again. Memory holds one segment, and up to 64 MiB of removed samples, at a time.
        """
        from mlffstore.store.removal import Removal

        if not dry_run:
            self.check_writable()
        removal = Removal(
            self._storage, self._log, samples, snapshot, reason=check_reason(reason), teacher=teacher, key=check_key(key),
            provenance=json_mapping("provenance", provenance or {}),
        )  # fmt: skip
        return removal.preview() if dry_run else removal.commit()

    @overload
    def revert(
        self,
        version: int,
        *,
        reason: str,
        key: str | None = None,
        provenance: Mapping[str, Any] | None = None,
        dry_run: Literal[False] = False,
    ) -> int: ...
    @overload
    def revert(
        self,
        version: int,
        *,
        reason: str,
        key: str | None = None,
        provenance: Mapping[str, Any] | None = None,
        dry_run: Literal[True],
    ) -> Correction: ...
    def revert(
        self,
        version: int,
        *,
        reason: str,
        key: str | None = None,
        provenance: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> int | Correction:
        """Take back a whole commit, by one more commit. Versions and tags from before stay readable.

        What it does depends on the commit:

        - an append: its samples go to the quarantine with the reason, as `remove` does. Samples that it had rejected stay
          in the quarantine;
        - a layer (labels of a teacher, a column): the samples lose these labels or this column;
        - a removal of samples: they come back from the quarantine, at the end of the dataset. A structure that was appended
          again meanwhile is then there twice;
        - a removal of labels, or the reversal of a layer: the samples get the values back, which are read in the version
          before;
        - a reversal: what it took back is there again.

        Samples are found wherever compaction, label passes and removals put them since. What other commits removed already
        is left out.

        Parameters
        ----------
        version : int
            The version of the commit, see `history`.
        reason : str
            Why. The log keeps it, and the quarantine keeps it for each sample.
        key : str, optional
            Idempotency key. If the log has it already, nothing is written and its version is returned, provided that it
            took back the same commit.
        provenance : mapping, optional
            JSON that the log entry keeps.
        dry_run : bool, optional
            Whether to return only what would be done.

        Returns
        -------
        int or Correction
            The version of the new commit. With `dry_run`, the samples, labels, splits, segments and bytes that it would be
            about; nothing is written.

        Raises
        ------
        DataError
            If there is no such version. If the commit cannot be taken back: a compaction (the samples are the same), a
            label pass that completed segments (remove the labels of the teacher), a tag (see `untag`), an expiry, the
            creation. If nothing of it is left. If labels should come back and the version before has expired.
        ConflictError
            If the key stands for something else. If values should come back and the samples have other values by now, or
            labels of another model are on record under the name of the teacher. If a layer should go and a later label
            pass completed the labels of the same teacher in the same segments. If other processes changed the same
            segments again and again.
        """
        from mlffstore.store.reversal import Reversal

        if not dry_run:
            self.check_writable()
        reversal = Reversal(
            self._storage, self._log, self.snapshot, version, reason=check_reason(reason), key=check_key(key),
            provenance=json_mapping("provenance", provenance or {}),
        )  # fmt: skip
        return reversal.preview() if dry_run else reversal.commit()

    def untag(self, name: str) -> int:
        """Withdraw a tag; return the version of the commit that records this.

        The name may then be given to another version. A version that had been given up but for this tag can no longer be
        read, and `gc` frees its space.

        Parameters
        ----------
        name : str
            The tag.

        Raises
        ------
        DataError
            If there is no such tag.
        """
        self.check_writable()
        check_tag(name)

        def check(state: State) -> None:
            if name not in state.tags:
                raise DataError(f"tag: expected one of {', '.join(state.tags) or '(there are none)'}, got {name!r}")

        return self._log.commit("untag", None, {"tag": name}, check)[0]
