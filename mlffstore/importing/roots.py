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
        self._known: dict[str, np.uint64] = {}

    def name(self, record: Record) -> str | None:
        """Return the name of the root of a record, None if the sample is its own; raise ValueError if it lacks the key."""
        if self.how == "sample":
            return None
        if self.how == "file":
            return "file"
        key = self.how.removeprefix("info:")
        field = record.find(key)
        if field is None:
            known = ", ".join(dict.fromkeys(name for _, name, _ in record.fields())) or "nothing"
            raise ValueError(f"expected info[{key!r}] to name the root, got {known}")
        return f"{key}={field[1]}|{record.atoms.get_chemical_formula()}"

    def of(self, names: Sequence[str | None], batch: SampleBatch) -> U64:
        """Return the roots of samples, shape (S,), uint64.

        A root of a file is the hash of its first sample. A named root is a hash of the name and the formula: it
        needs no first sample, so it holds across files and imports.
        """
        own = batch.content_hash
        roots: U64 = own.copy()
        for i, name in enumerate(names):
            if name is None:
                continue
            if self.how.startswith("info:"):
                roots[i] = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
            else:
                roots[i] = self._known.setdefault(name, own[i])
        return roots
