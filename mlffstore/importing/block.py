"""`BlockMaker`: some records of a file become checked samples; those that cannot be stored are told apart, with reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data import electrons, rules
from mlffstore.data.ase import gather
from mlffstore.data.batch import SampleBatch
from mlffstore.data.hydrogens import lacks_hydrogen
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

#: Column that says whether the electronic structure behind the labels converged.
CONVERGED = "scf_converged"


@dataclass(slots=True)
class _Sample:
    """A record on its way into a batch."""

    record: Record
    root: str | None = None
    reading: Reading | None = None
    extra: dict[str, tuple[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class BlockMaker:
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
        Where the data came from.
    """

    def __init__(
        self, path: Path, options: Options, reader: LabelReader, extra: ExtraColumns, precision: str, source: str
    ) -> None:
        self.path, self.options, self.reader, self.extra = path, options, reader, extra
        self.precision, self.source = precision, source
        self.roots = Roots(options.root)
        #: Samples of one atom that are accepted without forces.
        self.n_lone = 0

    def make(self, records: Sequence[Record], problems: Problems, account: Account) -> tuple[Block, list[str], int]:
        """Return the samples of some records, the places of the accepted ones, and how many records are unreadable.

        Parameters
        ----------
        records : sequence of Record
        problems : Problems
            Reasons are added.
        account : Account
            What became of each key is added.
        """
        samples = [self._read(record, account) for record in records]
        readable = [sample for sample in samples if len(sample.record.atoms)]
        batch = self._batch(readable, account) if readable else None
        if batch is not None:
            self._check(batch, readable)
        for sample in samples:
            for text in sample.problems:
                problems.add(self.path, sample.record.where, text)
        unreadable = len(samples) - len(readable)
        if batch is None:
            return Block(None), [], unreadable
        good = np.array([not sample.problems for sample in readable])
        places = [sample.record.where for sample in readable if not sample.problems]
        if good.all():
            return Block(batch), places, unreadable
        reasons = tuple(
            f"{self.path.name}, {sample.record.where}: {'; '.join(sample.problems)}"
            for sample in readable
            if sample.problems
        )
        accepted = batch.take(np.flatnonzero(good)) if good.any() else None
        return Block(accepted, batch.take(np.flatnonzero(~good)), reasons), places, unreadable

    def _read(self, record: Record, account: Account) -> _Sample:
        sample = _Sample(record, problems=list(record.problems))
        if not len(record.atoms):
            if not sample.problems:
                sample.problems.append("expected at least one atom, got none")
            return sample
        if record.labels is None:
            self.reader.convert_structure(record)
        try:
            sample.root = self.roots.name(record)
        except ValueError as error:
            sample.problems.append(str(error))
        sample.reading = reading = self.reader.read(record, account, self.extra.units)
        if self.extra:
            sample.extra = self.extra.read(record, reading.problems)
        sample.problems += reading.problems
        missing = [name for name in self.options.require if name not in reading.labels and name not in reading.failed]
        if missing == ["forces"] and len(record.atoms) == 1:  # zero by symmetry, and often left out of files
            self.n_lone += 1
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
        batch = SampleBatch(**arguments, source=self.source, sampler="imported", extra=extra).astype(self.precision)
        return batch.with_columns(root=self.roots.of([sample.root for sample in samples], batch)).hashed()

    def _check(self, batch: SampleBatch, samples: Sequence[_Sample]) -> None:
        """Note what forbids to store samples: the rules of every store, and hydrogens that were lost."""
        for text, bad in rules.violations(batch, ()):
            for i in np.flatnonzero(bad).tolist():
                samples[i].problems.append(text)
        self._check_electrons(batch, samples)
        if self.options.allow_no_hydrogen or not np.isfinite(batch.positions).all():
            return
        sound = np.array([not sample.problems for sample in samples])
        if not sound.any():
            return
        which = np.flatnonzero(sound)
        part = batch if sound.all() else batch.take(which)
        for i in which[lacks_hydrogen(part, periodic=True)].tolist():
            atoms = samples[i].record.atoms
            samples[i].problems.append(
                f"expected every hydrogen, got {atoms.get_chemical_formula()}, whose carbons lack hydrogens; write "
                "the file "
                f"again with explicit hydrogens, or pass {self.options.wording.option('allow_no_hydrogen', True)} if "
                "it is right"
            )

    @staticmethod
    def _check_electrons(batch: SampleBatch, samples: Sequence[_Sample]) -> None:
        """Note charges and multiplicities that the electrons of a molecule forbid."""
        protons = np.add.reduceat(batch.numbers.astype(np.int64), batch.offsets[:-1])
        charge, multiplicity = batch.charge.astype(np.int64), batch.multiplicity.astype(np.int64)
        left = protons - charge
        odd = ((multiplicity - 1) % 2 != left % 2) | (multiplicity - 1 > left) | (left < 0)
        for i in np.flatnonzero(odd & ~batch.pbc.any(axis=1)).tolist():
            why = electrons.forbidden(int(protons[i]), int(charge[i]), int(multiplicity[i]))
            samples[i].problems.append(why)
