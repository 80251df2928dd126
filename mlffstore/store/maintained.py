"""`MaintainedStore`: a store that can be verified, compacted, cleaned and copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.storage import open_storage
from mlffstore.store.opened import OpenedStore

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from mlffstore.store.maintenance.backup import Backup
    from mlffstore.store.maintenance.compaction import Compaction
    from mlffstore.store.maintenance.garbage import Garbage
    from mlffstore.store.maintenance.verification import Verification

    Progress = Callable[[int, int], None]


class MaintainedStore(OpenedStore):
    """A store with the operations that take care of its files."""

    def verify(self, *, full: bool = False, progress: Progress | None = None) -> Verification:
        """Check that everything the log promises is there and is what was committed.

        Parameters
        ----------
        full, progress
            As for `mlffstore.verify`.

        Returns
        -------
        Verification
        """
        from mlffstore.store.maintenance.verify import verify_storage

        return verify_storage(self._storage, full=full, progress=progress)

    def compact(self, *, target_nbytes: int | None = None, progress: Progress | None = None) -> Compaction:
        """Merge runs of small segments, with the layers over them, into large ones.

        Samples, their order and their values stay the same. Old versions stay readable, so that their space becomes free
        only when they have expired (`gc`). Other processes may append and label meanwhile.

        Parameters
        ----------
        target_nbytes : int, optional
            Uncompressed size that merged segments come near to, 128 MiB by default. Compaction needs a few times as much
            memory. Segments of half this size or more stay as they are.
        progress : callable, optional
            It is called with the number of runs done so far and the number of all runs.

        Returns
        -------
        Compaction
        """
        from mlffstore.store.maintenance.compaction import TARGET_NBYTES, compact

        self.check_writable()
        target = TARGET_NBYTES if target_nbytes is None else target_nbytes
        return compact(self._storage, self._log, target_nbytes=target, progress=progress)

    def gc(
        self,
        *,
        dry_run: bool = True,
        grace: float | None = None,
        short_grace: bool = False,
        expire_before: int | None = None,
    ) -> Garbage:
        """Remove files that no retained version needs: of killed writers, lost races and expired versions.

        Parameters
        ----------
        dry_run : bool, optional
            Whether to report only what would be removed (the default).
        grace : float, optional
            Age in seconds below which a file stays, 24 hours by default: it may belong to a commit that is being made.
            Ages are measured on the clock of the storage. 0 is safe only while no process writes.
        short_grace : bool, optional
            Whether a grace period of less than 10 minutes is allowed.
        expire_before : int, optional
            Versions before this one are given up, except tagged ones; this cannot be undone. Snapshots of these
            versions, also open ones, can no longer be read.

        Returns
        -------
        Garbage

        Raises
        ------
        DataError
            If the version cannot be given up, or the grace period is negative or too short.
        """
        from mlffstore.store.maintenance.garbage import GRACE_SECONDS, collect

        self.check_writable()
        seconds = GRACE_SECONDS if grace is None else grace
        return collect(
            self._storage,
            self._log,
            dry_run=dry_run,
            grace=seconds,
            short_grace=short_grace,
            expire_before=expire_before,
        )

    def backup(
        self,
        url: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Backup:
        """Copy the store to another place, or bring an earlier copy up to date, while other processes go on writing.

        Every file is compared with the log before it is copied. The copy is a whole store at every moment, with all
        retained versions and tags as of some version. It has the same UUID, so do not write to it.

        Parameters
        ----------
        url : str or path
            A new folder or URL, or that of an earlier backup of this store.
        storage_options : mapping, optional
            As for `mlffstore.open`, for the place of the copy.
        progress : callable, optional
            It is called with the number of segments copied so far and the number of all segments.

        Returns
        -------
        Backup

        Raises
        ------
        StoreExistsError
            If something else is at that place.
        ConflictError
            If the copy has commits that this store does not have.
        CorruptionError
            If a file of this store is damaged; the copy stays as it was.
        """
        from mlffstore.store.maintenance.backup import backup

        return backup(self._storage, self._log, open_storage(url, storage_options), progress)
