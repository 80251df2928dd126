"""Reads HDF5 releases of mlffstore back into samples: every column, the labels of all teachers, roots and origins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlffstore.data import rules
from mlffstore.errors import DataError
from mlffstore.importing.draft import CheckedBlock, Draft, settle
from mlffstore.release import Release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlffstore.importing.account import Account
    from mlffstore.importing.options import Options
    from mlffstore.importing.problems import Problems

#: Columns that a store makes by itself, from the structures and roots.
_MADE = ("n_atoms", "content_hash")


def check_options(path: Path, options: Options) -> None:
    """Raise `DataError` if options say how to read what a release says itself."""
    name = options.wording.name
    given = [option for option in ("keys", "columns", "units", "charge", "multiplicity") if getattr(options, option)]
    if given:
        raise DataError(
            f"{path}: expected no {', '.join(map(name, given))} for a release of mlffstore, which names teachers, labels, "
            "columns and units itself; leave them out"
        )


def read_release(
    path: Path, options: Options, precision: str, problems: Problems, account: Account
) -> Iterator[CheckedBlock]:
    """Yield the samples of a release in blocks, with the names of its teachers.

    Parameters
    ----------
    path : Path
    options : Options
        Of labels, those that are required are asked of one of the teachers.
    precision : str
        dtype of the stored positions.
    problems, account
        Reasons of rejections, and what became of each column, are added.
    """
    release = Release(path)
    for split in release.counts:
        first = 0
        for batch in release.blocks(split, options.batch_samples, everything=True):
            batch = batch.astype(precision)
            batch.columns.pop("content_hash", None)  # that of what is stored counts
            batch = batch.hashed()
            places = [f"{split}, sample {i}" for i in range(first, first + len(batch))]
            reasons: list[list[str]] = [[] for _ in places]
            lone = batch.n_atoms == 1  # forces on a single atom are zero by symmetry
            for text, bad in rules.violations(batch, tuple(options.require)):
                for i in (bad & ~(lone & ("no forces" in text))).nonzero()[0].tolist():
                    reasons[i].append(text)
            block, kept = settle(Draft(batch, places, reasons), path, options, problems)
            names = [name for name in batch.columns if name not in _MADE]
            labels = [f"{name}.{teacher}" for teacher, named in batch.labels.items() for name in named]
            account.add_all(tuple(("file", name, "kept", name, "") for name in (*names, *labels)), len(batch))
            account.add_all((("file", "split", "left out", "", "splits follow from the roots"),), len(batch))
            first += len(batch)
            yield CheckedBlock(block, kept, len(batch))


def recorded_teachers(path: Path) -> dict[str, dict[str, Any]]:
    """Return what a release says of its teachers, such as their fingerprints."""
    release = Release(path)
    listed = json.loads(str(release.attributes.get("teacher_info", "{}")))
    if "teacher" in release.attributes:  # of one teacher
        listed = {release.teachers[0]: listed}
    return {name: info for name in release.teachers if isinstance(info := listed.get(name), dict) and info}
