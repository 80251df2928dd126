"""`RecordBlocks`: some records of a file become checked samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ase import gather
from mlffstore.data.batch import SampleBatch
from mlffstore.importing.draft import CheckedBlock, Draft, settle
from mlffstore.importing.reading import missing_message
from mlffstore.importing.roots import Roots
from mlffstore.importing.spool import Block

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlffstore.importing.account import Account
    from mlffstore.importing.extra import ExtraColumns
    from mlffstore.importing.labels import LabelReader
    from mlffstore.importing.options import Options
    from mlffstore.importing.problems import Problems
    from mlffstore.importing.reading import Reading
    from mlffstore.importing.record import Record
    from mlffstore.importing.splits import Splits

#: Column that says whether the electronic structure behind the labels converged.
CONVERGED = "scf_converged"


@dataclass(slots=True)
class _Sample:
    """A record on its way into a batch."""

    record: Record
    root: str | None = None
    split: int = -1
    source: str = ""
    reading: Reading | None = None
    extra: dict[str, tuple[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    #: Whether it is a single atom that may lack forces.
    is_lone: bool = False


class RecordBlocks:
    """Makes blocks of the records of one file.

    Parameters
    ----------
    path : Path
    options : Options
    reader : LabelReader
    extra : ExtraColumns
    precision : str
        dtype of the stored positions.
    source : str
        Where the data came from, of samples that do not say it themselves.
    splits : Splits
    """

    def __init__(
        self,
        path: Path,
        options: Options,
        reader: LabelReader,
        extra: ExtraColumns,
        precision: str,
        source: str,
        splits: Splits,
    ) -> None:
        self.path, self.options, self.reader, self.extra = path, options, reader, extra
        self.precision, self.source, self.splits = precision, source, splits
        self.roots = Roots(options.root)

    def make(self, records: Sequence[Record], problems: Problems, account: Account) -> CheckedBlock:
        """Return the samples of some records.

        Parameters
        ----------
        records : sequence of Record
        problems : Problems
            Reasons are added.
        account : Account
            What became of each key is added.
        """
        samples = []
        for record in records:
            if len(record.atoms):
                samples.append(self._read(record, account))
            for text in () if len(record.atoms) else record.problems or ("expected at least one atom, got none",):
                problems.add(self.path, record.where, text)
        block, places = Block(None), list[str]()
        if samples:
            draft = Draft(
                self._batch(samples, account),
                [sample.record.where for sample in samples],
                [sample.problems for sample in samples],
            )
            block, places = settle(draft, self.path, self.options, problems)
        return CheckedBlock(
            block,
            places,
            len(records),
            sum(sample.is_lone for sample in samples),
            sum(record.hydrogens for record in records),
            tuple(dict.fromkeys(text for record in records for text in record.warnings)),
        )

    def _read(self, record: Record, account: Account) -> _Sample:
        sample = _Sample(record, problems=list(record.problems))
        self.reader.convert_structure(record)
        sample.root = self.roots.name(record)
        sample.source = self._source(record)
        try:
            sample.split = self.splits.of(record)
        except ValueError as error:
            sample.problems.append(str(error))
        sample.reading = reading = self.reader.read(record, account, self.extra.units)
        if self.extra:
            sample.extra = self.extra.read(record, reading.problems)
        sample.problems += reading.problems
        if record.hydrogens and reading.labels:
            sample.problems.append(
                f"expected labels of all atoms, got {' and '.join(sorted(reading.labels))} of a molecule that lacks "
                f"{record.hydrogens} hydrogens, whose positions would be made up; write the file again with every hydrogen, "
                "or import the structures without labels and label them afterwards"
            )
        missing = [name for name in self.options.require if name not in reading.labels and name not in reading.failed]
        if missing == ["forces"] and len(record.atoms) == 1:  # zero by symmetry, and often left out of files
            sample.is_lone = True
        elif missing:
            text = missing_message(missing, reading.hints, self.reader.keys, self.options.wording)
            sample.problems.append(text)
        return sample

    def _batch(self, samples: Sequence[_Sample], account: Account) -> SampleBatch:
        options = self.options
        frames, labels, states = [], [], []
        for sample in samples:
            reading = sample.reading
            assert reading is not None
            charge = options.charge if reading.charge is None else reading.charge
            multiplicity = options.multiplicity if reading.multiplicity is None else reading.multiplicity
            frames.append(sample.record.atoms)
            labels.append(reading.labels)
            states.append((charge, multiplicity))
        arguments = gather(frames, teacher=options.teacher, labels=labels, states=states)
        extra: dict[str, Any] = {}
        if self.extra:
            n_atoms, problems = arguments["n_atoms"], [sample.problems for sample in samples]
            extra = self.extra.gather([sample.extra for sample in samples], n_atoms, problems, account)
        if any(sample.record.converged is not None for sample in samples):
            known = [sample.record.converged for sample in samples]
            values = np.ma.MaskedArray([bool(value) for value in known], [value is None for value in known])
            extra[CONVERGED] = (values if values.mask.any() else values.data, "1", "sample")
        source = [sample.source for sample in samples]
        batch = SampleBatch(**arguments, source=source, sampler="imported", extra=extra)
        batch = batch.astype(self.precision).hashed()
        batch = batch.with_columns(root=self.roots.of([sample.root for sample in samples], batch))
        return self.splits.pin(batch, [sample.split for sample in samples]) if self.splits.wanted else batch

    def _source(self, record: Record) -> str:
        """Return where a record says that it comes from, or what counts for all."""
        key = self.options.source
        if key is None or not key.startswith("info:"):
            return self.source
        field = record.find(key.removeprefix("info:"))
        return self.source if field is None else str(field[1])
