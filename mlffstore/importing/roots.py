"""Which samples of imported files share a root, so that a split never separates them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.hashing import U64
    from mlffstore.importing.record import Record
    from mlffstore.importing.wording import Wording


def check_root(how: str, wording: Wording) -> None:
    """Raise `DataError` unless this says how roots are found."""
    if how not in ("sample", "file") and not (how.startswith("info:") and len(how) > 5):
        raise DataError(f"{wording.name('root')}: expected 'sample', 'file' or 'info:KEY', got {how!r}")


class Roots:
    """Gives every sample of one file its root.

    Parameters
    ----------
    how : str
        "sample", "file" or "info:KEY", see `mlffstore.import_files`.
    """

    def __init__(self, how: str) -> None:
        self.how = how
        #: How many records lacked the key.
        self.n_without = 0
        self.n_with = 0
        self._known: dict[str, np.uint64] = {}

    def name(self, record: Record) -> str | None:
        """Return the name of the root of a record, None if the sample is its own."""
        if self.how == "sample":
            return record.group
        if self.how == "file":
            return "file"
        key = self.how.removeprefix("info:")
        field = record.find(key)
        if field is None:
            self.n_without += 1
            return None
        self.n_with += 1
        return f"{key}={field[1]}"

    def of(self, names: Sequence[str | None], batch: SampleBatch) -> U64:
        """Return the roots of samples, shape (S,), uint64.

        A root of a file is the hash of its first sample. A named root is a hash of the name: it needs no first sample, so
        it holds across files and imports, and for conformers, ions and supercells alike.
        """
        own = batch.content_hash
        roots: U64 = own.copy()
        for i, name in enumerate(names):
            if name is None:
                continue
            if self.how == "file":
                roots[i] = self._known.setdefault(name, own[i])
            else:
                roots[i] = named_root(name)
        return roots

    def remarks(self, where: object) -> list[str]:
        """Return what a person should know about the roots of the file."""
        if not self.n_without:
            return []
        return [
            f"{where}: {self.n_without} samples have no {self.how.removeprefix('info:')!r} to name their root; each is its "
            "own"
        ]


def named_root(name: str) -> int:
    """Return the root that a name stands for."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
