"""Splits that came with the data: read from a key or a file name, and kept through the roots of the samples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.splits import SPLITS, assign, named_split, pinned
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.importing.record import Record
    from mlffstore.importing.wording import Wording

#: Key of the split where the option names none.
DEFAULT_KEY = "split"


def check_split(how: str | None, wording: Wording) -> None:
    """Raise `DataError` unless this says where splits come from."""
    if how not in (None, "hash", "key", "file") and not (how.startswith("info:") and len(how) > 5):
        raise DataError(f"{wording.name('split')}: expected 'hash', 'key', 'file' or 'info:KEY', got {how!r}")


class Splits:
    """Finds the split of each sample of one file, and roots that keep it.

    Parameters
    ----------
    how : str or None
        "hash", "key", "file" or "info:KEY", see `mlffstore.import_files`. None is "hash".
    path : Path
        The file, whose name may say the split.
    settings : mapping
        Split fractions and seed of the store.
    wording : Wording

    Raises
    ------
    DataError
        If the name of the file should say the split and does not.
    """

    def __init__(self, how: str | None, path: Path, settings: Mapping[str, Any], wording: Wording) -> None:
        self._fractions, self._seed, self._wording = settings["splits"], settings["split_seed"], wording
        self.key = DEFAULT_KEY if how == "key" else how.removeprefix("info:") if how and how[:5] == "info:" else None
        #: The split that the name of the file says, or None.
        self.file_code = split_of_file(path, wording) if how == "file" else None
        #: How many samples lacked the key, changed their root, or share a root with samples of another split.
        self.n_without = self.n_moved = self.n_torn = 0
        self._seen: dict[int, int] = {}

    @property
    def wanted(self) -> bool:
        """Whether samples may come with a split."""
        return self.key is not None or self.file_code is not None

    def of(self, record: Record) -> int:
        """Return the split of a record, -1 if none is given; raise ValueError if the key names no split."""
        if self.file_code is not None:
            return self.file_code
        field = record.find(self.key) if self.key is not None else None
        if field is None:
            return -1
        return code_of(str(field[1]), str(self.key))

    def pin(self, batch: SampleBatch, codes: Sequence[int] | Ints) -> SampleBatch:
        """Return a batch with roots that keep the splits.

        Parameters
        ----------
        batch : SampleBatch
            With its roots.
        codes : sequence of int, length S
            Wanted splits, -1 where none is given.
        """
        wanted = np.asarray(codes, np.int64)
        self.n_without += int((wanted < 0).sum())
        for root, code in dict.fromkeys(
            zip(batch.root[wanted >= 0].tolist(), wanted[wanted >= 0].tolist(), strict=True)
        ):
            before = self._seen.setdefault(root, code)
            self.n_torn += before != code
        roots = pinned(batch.root, wanted, self._fractions, self._seed)
        self.n_moved += int((roots != batch.root).sum())
        return batch if np.array_equal(roots, batch.root) else batch.with_columns(root=roots)

    def codes(self, roots: Any) -> Any:
        """Return the split that the store gives to roots, shape (S,), uint8."""
        return assign(roots, self._fractions, self._seed)

    def remarks(self, path: Path) -> list[str]:
        """Return what a person should know about the splits of the file."""
        if not self.wanted:
            return []
        out = []
        if self.n_without:
            out.append(f"{path}: {self.n_without} samples name no split; theirs follows from the hash of their root")
        if self.n_torn:
            out.append(
                f"{path}: {self.n_torn} roots have samples in several of the splits that came with the data, which were "
                "kept: what is learned from one leaks into the test of another"
            )
        return out


def code_of(name: str, where: str) -> int:
    """Return the split that a text names, an index into `SPLITS`; raise ValueError if it is none."""
    code = named_split(name)
    if code is None:
        raise ValueError(f"{where!r}: expected a split ({', '.join(SPLITS)}), got {name[:40]!r}")
    return code


def split_of_file(path: Path, wording: Wording) -> int:
    """Return the split that the name of a file, or of its folder, says.

    Raises
    ------
    DataError
        If it says none, or several.
    """
    words = re.findall(r"[a-z]+", path.name.lower())
    codes = {code for word in words if (code := named_split(word)) is not None}
    if not codes and (code := named_split(path.parent.name)) is not None:
        codes = {code}
    if len(codes) == 1:
        return codes.pop()
    raise DataError(
        f"{path}: expected the name of one split (train, valid, test) in the name of the file, got {path.name!r}; rename "
        f"the file, or leave {wording.option('split', 'file')} out"
    )
