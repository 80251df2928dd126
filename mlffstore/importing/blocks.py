"""`FileBlocks`: the samples of one file or folder as checked blocks, whatever its format."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlffstore.data import rules
from mlffstore.errors import DataError
from mlffstore.importing.account import Account
from mlffstore.importing.conformation_blocks import ConformationBlocks
from mlffstore.importing.conformations import in_blocks
from mlffstore.importing.problems import Problems
from mlffstore.importing.readers import frame_pieces, frame_records, read_records
from mlffstore.importing.record_blocks import RecordBlocks
from mlffstore.importing.samples import SampleBlocks
from mlffstore.importing.spice import read_spice
from mlffstore.importing.splits import Splits
from mlffstore.importing.tables.registry import TABLES, TableRequest
from mlffstore.runtime.processes import local_pool
from mlffstore.runtime.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from mlffstore.importing.draft import CheckedBlock
    from mlffstore.importing.extra import ExtraColumns
    from mlffstore.importing.labels import LabelReader
    from mlffstore.importing.options import Options
    from mlffstore.importing.roots import Roots
    from mlffstore.importing.samples import ReadSamples
    from mlffstore.importing.sources import Source
    from mlffstore.importing.target import Target


@dataclass(frozen=True, slots=True)
class MadeBlock:
    """A block that another process made, and what was met on the way."""

    checked: CheckedBlock
    account: Account
    problems: Problems
    reader: LabelReader
    extra: ExtraColumns
    roots: Roots


def make_block(
    source: Source,
    options: Options,
    extra: ExtraColumns,
    precision: str,
    origin: str,
    splits: Splits,
    roots: Roots,
    first: int,
    texts: Sequence[bytes],
) -> MadeBlock:
    """Parse and check some frames of an extended XYZ file; the parameters are those of `RecordBlocks`."""
    account, problems, reader = Account(), Problems(), options.reader()
    maker = RecordBlocks(source.path, options, reader, extra, precision, origin, splits)
    maker.roots = roots
    roots.n_with = roots.n_without = 0
    checked = maker.make(list(frame_records(source.file, first, texts)), problems, account)
    return MadeBlock(checked, account, problems, reader, extra, roots)


class FileBlocks:
    """Reads one source in blocks.

    Parameters
    ----------
    source : Source
    options : Options
    reader : LabelReader
    extra : ExtraColumns
    target : Target
        The store that the samples are for.
    """

    def __init__(
        self, source: Source, options: Options, reader: LabelReader, extra: ExtraColumns, target: Target
    ) -> None:
        self._source, self._options, self._reader, self._extra = source, options, reader, extra
        self._precision = target.precision
        self.splits = Splits(options.split, source.path, target.settings, options.wording)
        kept = "spice" if source.kind == "spice" else printable(source.path.name)
        self._origin = kept if options.source is None or options.source.startswith("info:") else options.source
        self._maker: RecordBlocks | SampleBlocks | None = None

    def blocks(self, problems: Problems, account: Account) -> Iterator[CheckedBlock]:
        """Yield the blocks, checked, with about `batch_samples` structures each at most."""
        options, source = self._options, self._source
        if source.kind == "spice":
            self._check_spice()
            molecules = read_spice(source.file, self._reader.state, self._reader.properties, self._extra.units)
            conformations = ConformationBlocks(source.path, options, self._extra, self._precision, self._origin)
            for part in in_blocks(molecules, options.batch_samples):
                yield conformations.make(part, problems, account)
            return
        if source.own is not None:
            yield from self._made(source.own.blocks(options.batch_samples), problems, account)
            return
        if source.kind in TABLES:
            request = TableRequest(source.file, options, self._reader, self._extra, self._origin)
            yield from self._made(TABLES[source.kind](request), problems, account)
            return
        self._maker = RecordBlocks(
            source.path, options, self._reader, self._extra, self._precision, self._origin, self.splits
        )
        if source.kind == "extxyz" and options.workers > 1 and not self.splits.wanted:
            yield from self._parallel(self._maker, problems, account)
            return
        records = read_records(
            source.file, source.kind, add_hydrogens=options.add_hydrogens, elements=options.elements,
            wording=options.wording, keys=self._reader.keys,
        )  # fmt: skip
        while block := list(itertools.islice(records, options.batch_samples)):
            yield self._maker.make(block, problems, account)

    def _check_spice(self) -> None:
        """Raise `DataError` for options that take something of each frame, which SPICE's layout has no place for."""
        options = self._options
        for name, value in (("split", options.split), ("source", options.source), ("root", options.root)):
            if self.splits.wanted if name == "split" else str(value).startswith("info:"):
                raise DataError(
                    f"{options.wording.name(name)}: {self._source.path}: SPICE's layout says nothing of that kind of its "
                    f"conformations, got {value!r}; leave the option out"
                )

    def _parallel(self, maker: RecordBlocks, problems: Problems, account: Account) -> Iterator[CheckedBlock]:
        """Yield the blocks of an extended XYZ file that other processes parse and check.

        The first block is made here: it fixes dtypes and shapes of user columns, and the root of the file.
        """
        source, options = self._source, self._options
        pieces = frame_pieces(source.file, options.batch_samples)
        for first, texts in itertools.islice(pieces, 1):
            records = list(frame_records(source.file, first, texts))
            if records:
                yield maker.make(records, problems, account)
        with local_pool(options.workers) as pool:
            task = functools.partial(
                make_block, source, options, self._extra, self._precision, self._origin, self.splits, maker.roots
            )
            waiting: deque[Future[MadeBlock]] = deque()
            for first, texts in pieces:
                waiting.append(pool.submit(task, first, texts))
                if len(waiting) > 2 * options.workers:
                    yield self._absorbed(waiting.popleft().result(), maker, problems, account)
            while waiting:
                yield self._absorbed(waiting.popleft().result(), maker, problems, account)

    def _absorbed(self, made: MadeBlock, maker: RecordBlocks, problems: Problems, account: Account) -> CheckedBlock:
        """Return a block of another process, after counting what it met."""
        problems.merge(made.problems)
        account.merge(made.account)
        self._reader.absorb(made.reader)
        self._extra.absorb(made.extra)
        maker.roots.n_with += made.roots.n_with
        maker.roots.n_without += made.roots.n_without
        return made.checked

    def _made(self, parts: Iterable[ReadSamples], problems: Problems, account: Account) -> Iterator[CheckedBlock]:
        options, own = self._options, self._source.own is not None
        # Stores may hold samples without labels: what is there is kept, unless more was asked for.
        require = () if own and tuple(options.require) == tuple(rules.REQUIRED) else options.require
        if own:  # such samples were accepted once
            options = dataclasses.replace(options, allow_no_hydrogen=True)
        maker = self._maker = SampleBlocks(self._source.path, options, self.splits, self._precision, require)
        for samples in parts:
            yield maker.make(samples, problems, account)

    @property
    def n_rooted(self) -> int | None:
        """How many samples have the key that names their root, None if the options name no key."""
        if self._maker is None or not self._options.root.startswith("info:"):
            return None
        return self._maker.roots.n_with

    def remarks(self) -> list[str]:
        """Return what a person should know about roots and splits of the file."""
        if self._maker is None:
            return []
        return [*self._maker.roots.remarks(self._source.path), *self.splits.remarks(self._source.path)]
