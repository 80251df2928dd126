"""`ReadSamples`, samples as a reader of whole columns hands them over, and `SampleBlocks`, which checks them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.labels import has_label
from mlffstore.errors import DataError
from mlffstore.importing.draft import CheckedBlock, Draft, settle
from mlffstore.importing.roots import Roots, named_root
from mlffstore.importing.splits import code_of
from mlffstore.importing.spool import Block

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.importing.account import Account, Use
    from mlffstore.importing.options import Options
    from mlffstore.importing.problems import Problems
    from mlffstore.importing.splits import Splits


@dataclass(frozen=True, slots=True)
class ReadSamples:
    """S samples of a file, in the store's units, with the labels of one or several teachers.

    Attributes
    ----------
    batch : SampleBatch
        With the column `root` where the file says which samples belong together.
    places : sequence of str, length S
        The place of each sample in the file, for messages.
    groups : sequence of str or None, length S
        Names of what samples of the file descend from, instead of roots. None where a sample is its own root.
    splits : sequence of int, length S, or None
        The split of each sample, an index into `mlffstore.data.splits.SPLITS`, -1 where none is given.
    uses : tuple of (str, str, str, str, str)
        What became of the keys of the file, see `mlffstore.importing.account`; true for all of these samples.
    partial_uses : mapping of (str, str, str, str, str) to int
        What became of keys that only so many of the samples have.
    problems : mapping of int to list of str
        Why samples cannot be stored.
    rejected : SampleBatch or None
        Samples that were in quarantine already, with an empty `batch`.
    reasons : tuple of str
        Why they were.
    warnings : tuple of str
        What a person should know about the file.
    """

    batch: SampleBatch
    places: Sequence[str]
    groups: Sequence[str | None] | None = None
    splits: Sequence[int] | Ints | None = None
    uses: tuple[Use, ...] = ()
    partial_uses: Mapping[Use, int] = field(default_factory=dict)
    problems: Mapping[int, list[str]] = field(default_factory=dict)
    rejected: SampleBatch | None = None
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class SampleBlocks:
    """Makes blocks of the samples of one file.

    Parameters
    ----------
    path : Path
    options : Options
    splits : Splits
    precision : str
        dtype of the stored positions.
    require : sequence of str
        Labels that each sample must have of some teacher.
    """

    def __init__(self, path: Path, options: Options, splits: Splits, precision: str, require: Sequence[str]) -> None:
        self.path, self.options, self.splits = path, options, splits
        self.precision, self.require = precision, require
        self.roots = Roots(options.root)
        self._file_root: np.uint64 | None = None

    def make(self, samples: ReadSamples, problems: Problems, account: Account) -> CheckedBlock:
        """Return the samples as a block.

        Parameters
        ----------
        samples : ReadSamples
        problems : Problems
            Reasons are added.
        account : Account
            What became of each key is added.
        """
        if not len(samples.batch):  # what was in quarantine stays there
            moved = None if samples.rejected is None else samples.rejected.astype(self.precision).hashed()
            return CheckedBlock(
                Block(None, moved, samples.reasons), [], len(samples.reasons), warnings=samples.warnings
            )
        if samples.uses:
            account.add_all(samples.uses, len(samples.batch))
        for use, n in samples.partial_uses.items():
            account.add_all((use,), n)
        batch = self._rooted(samples.batch.astype(self.precision).hashed(), samples)
        given = [list(samples.problems.get(i, ())) for i in range(len(batch))]
        n_lone = self._check_required(batch, given)
        block, places = settle(Draft(batch, samples.places, given), self.path, self.options, problems)
        return CheckedBlock(block, places, len(batch), n_lone, 0, samples.warnings)

    def _rooted(self, batch: SampleBatch, samples: ReadSamples) -> SampleBatch:
        """Return a batch with the roots that the options or the file ask for, and that keep the splits of the file."""
        if self.options.root == "file":
            if self._file_root is None and len(batch):
                self._file_root = batch.content_hash[0]
            batch = batch.with_columns(root=np.full(len(batch), self._file_root, np.uint64))
        elif self.options.root.startswith("info:"):
            key = self.options.root.removeprefix("info:")
            batch = batch.with_columns(root=self._keyed(batch, key))
        elif samples.groups is not None:
            known = {name: np.uint64(named_root(name)) for name in dict.fromkeys(samples.groups) if name is not None}
            own = batch.content_hash.tolist()
            roots = [hash_ if name is None else known[name] for name, hash_ in zip(samples.groups, own, strict=True)]
            batch = batch.with_columns(root=np.array(roots, np.uint64))
        splits = self._splits(batch, samples)
        return batch if splits is None else self.splits.pin(batch, splits)

    def _splits(self, batch: SampleBatch, samples: ReadSamples) -> Sequence[int] | Ints | None:
        """Return the splits to keep: those of the file by default, or those that the options ask for."""
        how = self.options.split
        if how == "hash":
            return None
        if self.splits.file_code is not None:
            return np.full(len(batch), self.splits.file_code, np.int64)
        if how in (None, "key") and samples.splits is not None:
            return samples.splits
        key = self.splits.key
        if key is None or key not in batch.user or not batch.user[key].coded:
            return None if key is None else np.full(len(batch), -1, np.int64)
        try:
            return [-1 if word is None else code_of(word, key) for word in batch.strings(key)]
        except ValueError as error:
            raise DataError(f"{self.path}: {error}") from error

    def _keyed(self, batch: SampleBatch, key: str) -> Any:
        """Return a root for each value of a user column."""
        column = batch.user.get(key)
        if column is None or column.axis != "sample":
            self.roots.n_without += len(batch)
            return batch.content_hash
        values = batch.strings(key) if column.coded else batch.columns[key].tolist()
        self.roots.n_with += len(batch)
        return np.array([named_root(f"{key}={value}") for value in values], np.uint64)

    def _check_required(self, batch: SampleBatch, problems: Sequence[list[str]]) -> int:
        """Note which samples lack labels that were asked for; return how many single atoms may lack forces."""
        held = {}
        for name in self.require:
            there = np.zeros(len(batch), bool)
            for named in batch.labels.values():
                if name in named:
                    there |= has_label(name, named[name], batch.n_atoms, batch.properties)
            held[name] = there
        if all(there.all() for there in held.values()):
            return 0
        lone = (batch.n_atoms == 1) & np.logical_and.reduce(
            [there for name, there in held.items() if name != "forces"] or [np.ones(len(batch), bool)]
        )
        lone &= ~held.get("forces", np.ones(len(batch), bool))
        way = self.options.wording.option("require", ())
        for i in np.flatnonzero(~np.logical_and.reduce(list(held.values())) & ~lone).tolist():
            missing = " and ".join(name for name, there in held.items() if not there[i])
            problems[i].append(f"expected {missing}, got none; {way} imports structures without labels")
        return int(lone.sum())
