"""`ImportJob`: one import. First `read`, which checks every file and stores nothing, then `commit`."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.stress import StressCheck
from mlffstore.errors import DataError, MlffstoreError
from mlffstore.importing.account import Account
from mlffstore.importing.blocks import FileBlocks
from mlffstore.importing.checks import remarks, stress_warnings
from mlffstore.importing.inventions import check_elements
from mlffstore.importing.origin import OWN
from mlffstore.importing.problems import Problems
from mlffstore.importing.properties import other_properties
from mlffstore.importing.readers import UNLABELLED
from mlffstore.importing.report import ImportReport
from mlffstore.importing.sources import named, sources
from mlffstore.importing.state import STATE_KEYS
from mlffstore.importing.tables.registry import TABLES
from mlffstore.importing.trajectories import Trajectories
from mlffstore.runtime.words import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.importing.draft import CheckedBlock
    from mlffstore.importing.joining import Joined
    from mlffstore.importing.options import Options
    from mlffstore.importing.sources import Source
    from mlffstore.importing.spool import Block, Spool
    from mlffstore.importing.target import Stored, Target


class ImportJob:
    """Reads and checks files into a spool, and then stores them.

    Parameters
    ----------
    paths : sequence of Path
    target : Target
    options : Options
    spool : Spool
    progress : callable or None
        Called with the number of samples read so far.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        target: Target,
        options: Options,
        spool: Spool,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.paths, self.target, self.options, self.spool, self.progress = paths, target, options, spool, progress
        self.reader, self.extra = options.reader(), options.extra()
        self.stress: dict[str, StressCheck] = {}
        self.account, self.problems = Account(), Problems()
        self.warnings: list[str] = []
        self.read_samples = self.skipped = self.unreadable = self.hydrogens = 0
        #: What sources of ours say of the teachers.
        self.teachers: dict[str, Mapping[str, Any]] = {}
        self._n_rooted: int | None = None
        #: Files with new samples in order: what the log will say of each, how many blocks of the spool are its own, and
        #: the place of each accepted sample, if it may be needed.
        self.files: list[tuple[dict[str, Any], int, list[str]]] = []

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read and check every file; raise with every reason if something cannot be stored."""
        pending: dict[str, int] = {}
        for source in sources(self.paths, self.options.format, lambda text: self._warn([text])):
            self._check_kind(source)
            if source.own is not None:
                self.target.suggest(source.own.origin.precision, source.own.origin.settings)
                self.teachers |= source.own.origin.teachers
            content = self.options.content(self.target.precision)
            digest = self._new_digest(source, _digest([source.sha256, source.kind, content]))
            before = pending.get(digest)
            # A join finds by itself what is new: structures may have been added since.
            if before is None and self.options.match is None and (stored := self.target.imported(digest)):
                before = stored["samples"]
            if before is not None:
                self.skipped += before
                self._tell()
                continue
            note: dict[str, Any] = {
                "digest": digest, "file": printable(source.path.name), "sha256": source.sha256, "format": source.kind,
                "batch_samples": self.options.batch_samples, "options": content, "accepts": self.options.accepts(),
            }  # fmt: skip
            if source.own is not None:
                note["origin"] = source.own.origin.note
            with named(source.file, source.path):
                pending[digest] = self._read_file(source, note)
        if any(note["format"] not in (*OWN, *TABLES) for note, _, _ in self.files):
            self.reader.check_keys()
            self.extra.check()
        self._check_root_key()
        self._warn(self.reader.remarks())
        self._warn(self.account.warnings(self.options.wording))
        if self.options.match is None:
            self._check_duplicates()

    def _new_digest(self, source: Source, digest: str) -> str:
        """Return the digest under which a file is stored, another one if samples that were rejected are tried again."""
        stored = self.target.imported(digest) if self.options.match is None else None
        if stored is None or not stored.get("rejected"):
            return digest
        accepts = self.options.accepts()
        text = f"{source.path}: {stored['rejected']} of its samples are in quarantine since an earlier import"
        if stored.get("accepts") == accepts:
            self._warn([text])
        elif self.options.on_duplicate == "skip":
            return _digest([digest, accepts])
        else:
            way = self.options.wording.option("on_duplicate", "skip")
            self._warn([f"{text}; {way} stores those that the options of this one accept"])
        return digest

    def _check_kind(self, source: Source) -> None:
        options, wording, kind, path = self.options, self.options.wording, source.kind, source.path
        if kind in UNLABELLED and options.require and not set(options.require) <= set(options.keys):
            raise DataError(
                f"{path}: expected labels ({', '.join(options.require)}), got {kind.upper()}, which holds none; import "
                f"bare structures with {wording.option('require', ())} and label them afterwards"
            )
        check_elements(path, kind, options.elements, wording)
        others = other_properties() if kind == "spice" else ()
        labels = (set(options.keys) - {*STATE_KEYS, *others}) | (set(options.units) - set(others))
        if kind in ("spice", *OWN) and labels:
            what = "SPICE's layout" if kind == "spice" else OWN[kind]
            raise DataError(
                f"{path}: expected no {wording.name('units')} and no {wording.name('keys')} of {', '.join(sorted(labels))} "
                f"for {what}, which names its own; leave them out"
            )
        named = set(options.keys) - options.assumed
        if kind in ("ani", "deepmd") and named:
            raise DataError(
                f"{path}: expected no {wording.name('keys')} of {', '.join(sorted(named))} for {kind}, whose layout has its "
                "own names; leave them out"
            )
        if kind in TABLES and options.columns:
            raise DataError(
                f"{path}: expected no {wording.name('columns')} for {kind}, of which only labels are taken, got "
                f"{', '.join(self.extra.units)}; leave them out"
            )
        if kind in OWN and (options.columns or options.teacher != "dft"):
            given = wording.option("teacher", options.teacher) if options.teacher != "dft" else wording.name("columns")
            raise DataError(
                f"{path}: expected {OWN[kind]} to bring its teachers and all of its columns under their names, got {given}; "
                "leave it out"
            )

    def _check_root_key(self) -> None:
        if self._n_rooted == 0:
            key = self.options.root.removeprefix("info:")
            raise DataError(
                f"{self.options.wording.name('root')}: expected info[{key!r}] to name the root of a sample, got files in "
                "which no sample has it; correct the name, or leave the option out"
            )

    def _read_file(self, source: Source, note: dict[str, Any]) -> int:
        """Put the checked blocks of a file into the spool; return how many samples it brings."""
        account, path = Account(), source.path
        maker = FileBlocks(source, self.options, self.reader, self.extra, self.target)
        near = Trajectories(maker.splits.codes)
        blocks = accepted = rejected = unreadable = lone = 0
        places: list[str] = []
        for checked in maker.blocks(self.problems, account):
            self._warn(f"{path}: {text}" for text in checked.warnings)
            self._refuse()
            batch = checked.block.accepted
            if batch is not None:
                self._check_labels(batch, path, checked)
                if self.options.root == "sample" and source.kind not in OWN:
                    near.add(batch)
                accepted += len(batch)
            if self.options.match is not None:
                places += checked.places
            rejected += len(checked.block.reasons)
            unreadable += checked.n_unreadable
            lone += checked.n_lone
            self.hydrogens += checked.n_hydrogens
            self.spool.add(checked.block)
            blocks += 1
            self.read_samples += checked.n_read
            self._tell()
        if not blocks:
            raise DataError(f"{path}: expected at least one structure, got none")
        if lone:
            self._warn([f"{path}: {lone} samples of a single atom have no forces; they are stored without"])
        if self.options.match is None:
            self._warn(near.remarks(path, self.options.wording))
        self._warn(maker.remarks())
        if (rooted := maker.n_rooted) is not None:
            self._n_rooted = (self._n_rooted or 0) + rooted
        self.account.merge(account)
        self.unreadable += unreadable
        left_out = sorted({use.name for use in account.uses() if use.fate == "left out"})
        note |= {"samples": accepted, "rejected": rejected, "unreadable": unreadable, "left_out": left_out}
        self.files.append((note, blocks, places))
        return accepted

    def _refuse(self) -> None:
        if self.problems and self.options.on_error == "refuse":
            way = self.options.wording.option("on_error", "quarantine")
            raise DataError(f"{self.problems.message()}\n{way} keeps the other samples and puts these into quarantine")

    def _check_labels(self, batch: SampleBatch, path: Path, checked: CheckedBlock) -> None:
        """Remark on labels of an unlikely size; refuse stresses of the wrong sign or unit."""
        options = self.options
        for teacher in batch.teachers:
            self._warn(remarks(batch, teacher, path, checked.places))
            if not options.check_stress:
                continue
            check = self.stress.setdefault(teacher, StressCheck())
            check.add(batch, teacher, path, checked.places)
            try:
                self._warn(stress_warnings(check, options.stress_sign, options.wording))
            except DataError as error:
                raise DataError(f"{path}, up to {checked.places[-1]}: {error}") from None

    def _check_duplicates(self) -> None:
        """Warn of structures that the store holds already, or refuse them before anything is stored."""
        way = self.options.wording.option("on_duplicate", "skip")
        if self.options.on_duplicate == "skip" or self.target.is_new:
            held = 0
        else:
            held = sum(int(self.target.store.holds(hashes).sum()) for hashes in self.spool.hashes())
        if self.options.on_duplicate == "error":
            hashes = np.concatenate([np.zeros(0, np.uint64), *self.spool.hashes()])
            twice = len(hashes) - len(np.unique(hashes))
            if held or twice:
                raise DataError(
                    f"expected structures that are new, got {held} that the store holds already and {twice} that the "
                    f"files hold twice (same content_hash); {way} leaves them out"
                )
        elif held:
            join = self.options.wording.option("match", "structure")
            self._warn(
                [
                    f"{held} of these structures are in the store already (same content_hash), perhaps from an import "
                    f"of the same file with other options: they are stored a second time; {way} leaves them out, and "
                    f"{join} adds the labels of another method to them"
                ]
            )

    def _warn(self, texts: Iterable[str]) -> None:
        self.warnings += [text for text in texts if text not in self.warnings]

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.read_samples + self.skipped)

    # -- storing -------------------------------------------------------------------------------------------------

    def commit(self) -> ImportReport:
        """Store what was read, one commit for each file, and report."""
        versions: list[int] = []
        unmatched: list[str] = []
        samples = atoms = duplicates = rejected = joined = 0
        blocks = self.spool.take()
        for done, (note, n_blocks, places) in enumerate(self.files):
            mine = itertools.islice(blocks, n_blocks)
            if not note["samples"] and not note["rejected"]:  # nothing could be read
                list(mine)
                continue
            with _told(note, done):
                if self.options.match is not None:
                    result = self._join(mine, note, places)
                    versions += [] if result.version is None else [result.version]
                    joined += result.n_samples
                    unmatched += result.unmatched
                    self._warn(result.warnings)
                    continue
                stored = self._store(mine, note)
            if stored is None:  # another process imported the same file meanwhile
                self.skipped += note["samples"]
                continue
            versions.append(stored.version)
            samples += stored.samples
            atoms += stored.atoms
            duplicates += stored.duplicates
            rejected += note["rejected"]
        if unmatched:
            self._warn([f"{len(unmatched)} samples match no structure of the store and were left out, see 'unmatched'"])
        return ImportReport(
            files=tuple(map(str, self.paths)),
            samples=samples,
            atoms=atoms,
            versions=tuple(versions),
            skipped=self.skipped,
            duplicates=duplicates,
            rejected=rejected,
            unreadable=self.unreadable,
            reasons=tuple(self.problems.lines()),
            hydrogens_added=self.hydrogens,
            keys=self.account.uses(),
            warnings=tuple(self.warnings),
            joined=joined,
            unmatched=tuple(unmatched),
        )

    def _store(self, blocks: Iterable[Block], note: Mapping[str, Any]) -> Stored | None:
        return self.target.commit(blocks, note, teachers=self.teachers, on_duplicate=self.options.on_duplicate)

    def _join(self, blocks: Iterable[Block], note: Mapping[str, Any], places: Sequence[str]) -> Joined:
        from mlffstore.importing.joining import join

        where = [f"{note['file']}, {place}" for place in places]
        return join(self.target.store, blocks, note, where, self.teachers, self.options.tolerance)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _told(note: Mapping[str, Any], done: int) -> Iterator[None]:
    """Say of an error while a file is stored which one it is, and what was stored before."""
    try:
        yield
    except MlffstoreError as error:
        told = f"the {done} files before were stored, and importing again skips them" if done else "nothing was stored"
        raise type(error)(f"{note['file']}: {error}\n({told})") from error


__all__ = ["ImportJob"]
