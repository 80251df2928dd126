"""`FileBlocks`: the samples of one file or folder as checked blocks, whatever its format."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from mlffstore.data import rules
from mlffstore.importing.conformation_blocks import ConformationBlocks
from mlffstore.importing.conformations import in_blocks
from mlffstore.importing.readers import read_records
from mlffstore.importing.record_blocks import RecordBlocks
from mlffstore.importing.samples import SampleBlocks
from mlffstore.importing.spice import read_spice
from mlffstore.importing.splits import Splits
from mlffstore.importing.tables.registry import TABLES, TableRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlffstore.importing.account import Account
    from mlffstore.importing.draft import CheckedBlock
    from mlffstore.importing.extra import ExtraColumns
    from mlffstore.importing.labels import LabelReader
    from mlffstore.importing.options import Options
    from mlffstore.importing.problems import Problems
    from mlffstore.importing.samples import ReadSamples
    from mlffstore.importing.sources import Source
    from mlffstore.importing.target import Target


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
        kept = "spice" if source.kind == "spice" else source.path.name
        self._origin = kept if options.source is None or options.source.startswith("info:") else options.source
        self._maker: RecordBlocks | SampleBlocks | None = None

    def blocks(self, problems: Problems, account: Account) -> Iterator[CheckedBlock]:
        """Yield the blocks, checked, with about `batch_samples` structures each at most."""
        options, source = self._options, self._source
        if source.kind == "spice":
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
        records = read_records(
            source.file, source.kind, add_hydrogens=options.add_hydrogens, elements=options.elements,
            wording=options.wording,
        )  # fmt: skip
        while block := list(itertools.islice(records, options.batch_samples)):
            yield self._maker.make(block, problems, account)

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
