"""`Draft`: samples of a file before it is known whether they can be stored, and the rules that decide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data import electrons, rules
from mlffstore.data.hydrogens import lacks_hydrogen
from mlffstore.importing.spool import Block

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.importing.options import Options
    from mlffstore.importing.problems import Problems


@dataclass(frozen=True, slots=True)
class Draft:
    """S samples that were read together.

    Attributes
    ----------
    batch : SampleBatch
        With `content_hash` and `root` as columns.
    places : sequence of str, length S
        The place of each sample in the file, for messages.
    problems : sequence of list of str, length S
        Why each sample cannot be stored, as far as it is known.
    """

    batch: SampleBatch
    places: Sequence[str]
    problems: Sequence[list[str]]


@dataclass(frozen=True, slots=True)
class CheckedBlock:
    """What became of some structures of a file.

    Attributes
    ----------
    block : Block
        The samples, accepted and rejected.
    places : sequence of str
        The place of each accepted sample in the file.
    n_read : int
        Structures that were read, with those that are in neither part of the block.
    n_lone : int
        Accepted samples of one atom without forces, which were asked for.
    n_hydrogens : int
        Hydrogens that the reader added.
    warnings : tuple of str
        What a person should know about the file.
    """

    block: Block
    places: Sequence[str]
    n_read: int
    n_lone: int = 0
    n_hydrogens: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def n_unreadable(self) -> int:
        """How many of the structures that were read have no atoms that could be stored or put into quarantine."""
        accepted = 0 if self.block.accepted is None else len(self.block.accepted)
        return self.n_read - accepted - len(self.block.reasons)


def settle(draft: Draft, path: Path, options: Options, problems: Problems) -> tuple[Block, list[str]]:
    """Check samples and part those that can be stored from the others.

    Parameters
    ----------
    draft : Draft
        More problems are added to its own.
    path : Path
    options : Options
    problems : Problems
        The problems of all samples are added.

    Returns
    -------
    block : Block
    places : list of str
        The places of the accepted samples.
    """
    _check(draft, options)
    good = np.ones(len(draft.batch), bool)
    reasons = []
    for i, (place, texts) in enumerate(zip(draft.places, draft.problems, strict=True)):
        if not texts:
            continue
        good[i] = False
        reasons.append(f"{path.name}, {place}: {'; '.join(texts)}")
        for text in texts:
            problems.add(path, place, text)
    if not reasons:
        return Block(draft.batch), list(draft.places)
    kept = np.flatnonzero(good)
    accepted = draft.batch.take(kept) if len(kept) else None
    rejected = draft.batch.take(np.flatnonzero(~good))
    return Block(accepted, rejected, tuple(reasons)), [draft.places[i] for i in kept.tolist()]


def _check(draft: Draft, options: Options) -> None:
    """Note what forbids to store samples: the rules of every store, their electrons, and hydrogens that were lost."""
    batch, problems = draft.batch, draft.problems
    for text, bad in rules.violations(batch, ()):
        for i in np.flatnonzero(bad).tolist():
            problems[i].append(text)
    _check_electrons(draft)
    if options.allow_no_hydrogen or not np.isfinite(batch.positions).all():
        return
    sound = np.array([not texts for texts in problems])
    if not sound.any():
        return
    which = np.flatnonzero(sound)
    part = batch if sound.all() else batch.take(which)
    for i in which[lacks_hydrogen(part, periodic=True)].tolist():
        problems[i].append(
            f"expected every hydrogen, got {_formula(batch, i)}, whose carbons lack hydrogens; write the file again with "
            f"explicit hydrogens, or pass {options.wording.option('allow_no_hydrogen', True)} if it is right"
        )


def _check_electrons(draft: Draft) -> None:
    """Note charges and multiplicities that the electrons of a molecule forbid."""
    batch = draft.batch
    protons = np.add.reduceat(batch.numbers.astype(np.int64), batch.offsets[:-1])
    charge, multiplicity = batch.charge.astype(np.int64), batch.multiplicity.astype(np.int64)
    left = protons - charge
    odd = ((multiplicity - 1) % 2 != left % 2) | (multiplicity - 1 > left) | (left < 0)
    for i in np.flatnonzero(odd & ~batch.pbc.any(axis=1)).tolist():
        draft.problems[i].append(electrons.forbidden(int(protons[i]), int(charge[i]), int(multiplicity[i])))


def _formula(batch: SampleBatch, i: int) -> str:
    from ase.symbols import Symbols

    return str(Symbols(batch.numbers[batch.offsets[i] : batch.offsets[i + 1]]).get_chemical_formula())
