"""What a long run does for its store as it goes: merging small segments, and watching the space that is left."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from mlffstore.errors import MlffstoreError
from mlffstore.store.describe import human_bytes

if TYPE_CHECKING:
    from mlffstore.store.facade import Store

_log = logging.getLogger(__name__)
#: Tasks between two compactions: a segment each, and what readers open one by one.
COMPACT_TASKS = 1024
#: A run stops when a disk has less than this left. Compaction and the commits in flight need some of it.
MIN_BYTES, MIN_INODES = 1_000_000_000, 2_000


class Upkeep:
    """The upkeep of a store during a run.

    Parameters
    ----------
    store : Store
    compact_tasks : int, optional
        Tasks between two compactions.
    min_bytes, min_inodes : int, optional
        Free space, in bytes and in files, below which a run shall stop. A store on an object store has no such limits.
    """

    def __init__(
        self,
        store: Store,
        *,
        compact_tasks: int = COMPACT_TASKS,
        min_bytes: int = MIN_BYTES,
        min_inodes: int = MIN_INODES,
    ) -> None:
        self._store, self._compact_tasks = store, compact_tasks
        self._min_bytes, self._min_inodes = min_bytes, min_inodes
        self._n_tasks = 0

    def after_task(self) -> str:
        """Do what is due after another task; return why the run shall stop, or nothing."""
        self._n_tasks += 1
        reason = self.low_space()
        if not reason and self._n_tasks % self._compact_tasks == 0:
            try:
                self._store.compact()
            except MlffstoreError as error:  # the run is worth more than the merging
                _log.warning("the store was not compacted: %s", error)
        return reason

    def low_space(self) -> str:
        """Return what is short on the disk of the store, or nothing."""
        try:
            disk = os.statvfs(self._store.url)
        except OSError:  # an object store
            return ""
        free, inodes = disk.f_bavail * disk.f_frsize, disk.f_favail
        if free < self._min_bytes:
            what = f"{human_bytes(free)} are free"
            wanted = human_bytes(self._min_bytes)
        elif disk.f_files and inodes < self._min_inodes:  # some file systems count no inodes
            what, wanted = f"{inodes:,} more files fit", f"{self._min_inodes:,}"
        else:
            return ""
        return (
            f"{what} on the disk of {self._store.url}, expected {wanted} or more; what was made is safe. Make room and run "
            "the same command again"
        )
