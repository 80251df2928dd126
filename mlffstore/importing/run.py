"""`import_files`: reads and checks every file first, in blocks, and commits only then: all of it or nothing."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlffstore.data import rules
from mlffstore.data.stress import StressCheck
from mlffstore.errors import DataError, MlffstoreError
from mlffstore.importing.account import Account
from mlffstore.importing.checks import remarks, stress_warnings
from mlffstore.importing.conformation_blocks import ConformationBlocks
from mlffstore.importing.conformations import in_blocks
from mlffstore.importing.inventions import check_elements
from mlffstore.importing.options import OnError, Options
from mlffstore.importing.problems import Problems
from mlffstore.importing.properties import other_properties
from mlffstore.importing.readers import UNLABELLED, choose_format, read_records
from mlffstore.importing.record_blocks import RecordBlocks
from mlffstore.importing.releases import check_options, read_release, recorded_teachers
from mlffstore.importing.report import ImportReport
from mlffstore.importing.spice import read_spice
from mlffstore.importing.spool import Spool
from mlffstore.importing.state import STATE_KEYS
from mlffstore.importing.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mlffstore.importing.draft import CheckedBlock
    from mlffstore.store.facade import Store


def import_files(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    store: str | os.PathLike[str] | Store,
    *,
    teacher: str = "dft",
    format: str | None = None,
    keys: Mapping[str, str | Sequence[str] | None] | None = None,
    columns: Mapping[str, str] | Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    stress_sign: str = "tension",
    charge: int | None = None,
    multiplicity: int | None = None,
    spin: str = "multiplicity",
    elements: Sequence[str] = (),
    root: str = "sample",
    source: str | None = None,
    require: Sequence[str] = rules.REQUIRED,
    batch_samples: int = 2048,
    add_hydrogens: bool = True,
    allow_no_hydrogen: bool = False,
    check_stress: bool = True,
    on_error: OnError = "refuse",
    on_duplicate: Literal["keep", "skip", "error"] = "keep",
    create_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] | None = None,
) -> ImportReport:
    """Import structures and their labels from files.

    Every file is read and checked before anything is stored, so that a refusal leaves the store as it was. The report says
    of each key that the files hold whether it was kept, renamed, converted or left out.

    Parameters
    ----------
    files : path or iterable of paths
        Anything that ASE reads, ASE databases and aselmdb with their `data`, HDF5 releases of mlffstore (with the names of
        their teachers, all labels and columns), SPICE's HDF5 layout (``.h5``, ``.hdf5``), SDF and MOL, SMILES (``.smi``,
        ``.smiles``). Text formats may be compressed (``.gz``, ``.bz2``, ``.xz``).
    store : path or Store
        Opened for appending. A path is created if there is no store, when all files are checked.
    teacher : str, optional
        Whose labels the files hold.
    format : str, optional
        A format of `ase.io`, or "spice", "sdf", "smiles". By default it follows from the file.
    keys : mapping of str to str, sequence of str, or None, optional
        Where a label is when it is not among the results that ASE attaches: "energy", "forces", "stress", "virial" or any
        other property to a key of the results, of `atoms.info`, of `atoms.arrays`, or of a database row's data, such as
        ``{"energy": "REF_energy", "dipole": "REF_dipole"}``. ASE's results charges, magmoms, dipole and energies
        (atomic energies) are labels without being named, unless `columns` names them. Of several names the first that a
        sample has counts. A named label is taken from there only. A virial (eV, 3x3) becomes the stress -virial/volume.
        "charge" and "multiplicity" can be named too; None means that what the file says of them is not used.
    columns : mapping of str to str, or sequence of str, optional
        Keys to keep as user columns, each with its unit: ``{"step": "1"}``. Numbers and strings, one for each sample or for
        each atom. Without a unit, ASE's unit of its own properties, and else "1". Of SPICE's layout, data sets with numbers
        per conformation or one per molecule.
    units : mapping of str to str, optional
        Units in the file of "energy", "forces", "stress", "virial", other properties (``{"dipole": "Debye"}``), "positions"
        and "cell" (the unit of the positions by default); the store's units by default. Leave it out for formats that ASE
        converts while it reads (VASP, Quantum ESPRESSO, CP2K, ... : all but the ones without units of their own, such as
        extxyz). A unit that the file states and that contradicts is refused.
    stress_sign : {"tension", "compression"}, optional
        What a positive normal stress means in the file. ASE's convention is tension; a pressure tensor, as LAMMPS prints
        it, is compression.
    charge, multiplicity : int, optional
        Of the samples of which the file says nothing; by default 0, and the lowest that the electrons allow. Read from the
        names in use (charge, total_charge, spin, total_spin, multiplicity, mult, ...), from databases, and from the outputs
        of Gaussian, ORCA, NWChem, GAMESS-US, FHI-aims, CASTEP, VASP and Quantum ESPRESSO.
    spin : {"multiplicity", "unpaired"}, optional
        What a value under "spin" or "total_spin" is: 2S+1 (fairchem, MACE) or 2S.
    elements : sequence of str, optional
        Element of each type of a LAMMPS file that does not name them, from type 1 on.
    root : str, optional
        Which samples share a root, so that a split never separates them. Similar frames in different splits leak what
        is learned into the test, so name the seed where there is one. "sample": each its own; right for independent
        structures only. "file": all of a file, named by the hash of its first frame; for one trajectory per file.
        "info:KEY": frames with the same value under KEY and the same formula, also across files. The conformations
        of a SPICE molecule always share one.
    source : str, optional
        Where the data came from; by default "spice" for SPICE's layout and else the name of the file.
    require : sequence of str, optional
        Labels, such as "energy" and "forces", that every sample must have; ``()`` stores bare structures. Forces are not
        asked of a single atom.
    batch_samples : int, optional
        Samples that are read, checked and written as a block. Memory holds some blocks; what waits beyond that lies in a
        temporary file.
    add_hydrogens : bool, optional
        Whether RDKit adds the hydrogens that SDF and SMILES leave out; if not, such files are refused.
    allow_no_hydrogen : bool, optional
        Accept molecules and molecular crystals that look as if their hydrogens were lost, see
        `mlffstore.data.hydrogens.lacks_hydrogen`.
    check_stress : bool, optional
        Refuse a stress whose sign or unit cannot be right, see `mlffstore.data.stress.StressCheck`.
    on_error : {"refuse", "quarantine"}, optional
        What to do with samples that cannot be stored: refuse the import, or put them into quarantine with the reason and
        keep the others.
    on_duplicate : {"keep", "skip", "error"}, optional
        What to do with structures that the store or the files hold already, as for `Store.append`. When they are kept, the
        report warns of those that the store had before.
    create_options : mapping, optional
        `precision`, `splits`, `split_seed` of a new store, see `mlffstore.create`.
    progress : callable, optional
        Called with the number of samples read so far after each block.

    Returns
    -------
    ImportReport

    Raises
    ------
    DataError
        If a file cannot be read, an option is wrong, or samples may not be stored. Nothing is stored then; the message names
        file and frames.

    Notes
    -----
    The samples of a file are one commit, with an idempotency key made of the SHA-256 of the file and the options that change
    what is stored. Importing a file again writes nothing, whatever its name; after a crash the same call finishes what is
    missing. A file that has grown since is another file: all of it is imported again, with a warning that its structures are
    there already.
    """
    options = Options(
        teacher=teacher, format=format, keys=dict(keys or {}), columns=columns, units=dict(units or {}),
        stress_sign=stress_sign, charge=charge, multiplicity=multiplicity, spin=spin, elements=tuple(elements), root=root,
        source=source, require=require, batch_samples=batch_samples, add_hydrogens=add_hydrogens,
        allow_no_hydrogen=allow_no_hydrogen, check_stress=check_stress, on_error=on_error, on_duplicate=on_duplicate,
    )  # fmt: skip
    given = [files] if isinstance(files, str | os.PathLike) else files
    return run_import([Path(path) for path in given], store, options, create_options, progress)


def run_import(
    paths: Sequence[Path],
    store: str | os.PathLike[str] | Store,
    options: Options,
    create_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] | None = None,
) -> ImportReport:
    """Import files with options that are checked; see `import_files`."""
    if not paths or not all(path.is_file() for path in paths):
        bad = next((path for path in paths if not path.is_file()), None)
        if bad is None:
            raise DataError("files: expected one or more files, got none")
        raise DataError(f"{bad}: {'expected a file, got a folder' if bad.is_dir() else 'there is no such file'}")
    target = Target(store, dict(create_options or {}))
    target.check_writable()
    with Spool() as spool:
        job = _Import(paths, target, options, spool, progress)
        try:
            job.read()
        except DataError as error:
            raise type(error)(f"{error}\n(nothing was stored)") from error.__cause__
        return job.commit()


class _Import:
    """One call: first `read`, which stores nothing, then `commit`."""

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
        self.stress = StressCheck() if options.check_stress else None
        self.account, self.problems = Account(), Problems()
        self.warnings: list[str] = []
        self.read_samples = self.skipped = self.unreadable = self.hydrogens = 0
        #: Files with new samples in order: what the log will say of each, and how many blocks of the spool are its own.
        self.files: list[tuple[dict[str, Any], int]] = []

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read and check every file; raise with every reason if something cannot be stored."""
        pending: dict[str, int] = {}
        for path in self.paths:
            kind = choose_format(path, self.options.format)
            self._check_kind(path, kind)
            sha = _sha256(path)
            content = self.options.content(self.target.precision)
            digest = hashlib.sha256(json.dumps([sha, kind, content], sort_keys=True).encode()).hexdigest()
            before = pending.get(digest, self.target.imported(digest))
            if before is not None:
                self.skipped += before
                self._tell()
                continue
            note = {
                "digest": digest, "file": path.name, "sha256": sha, "format": kind,
                "batch_samples": self.options.batch_samples, "options": content,
            }  # fmt: skip
            if kind == "release":
                note["teachers"] = recorded_teachers(path)
            pending[digest] = self._read_file(path, kind, note)
        if any(note["format"] != "release" for note, _ in self.files):
            self.reader.check_keys()
            self.extra.check()
        self._warn(self.reader.remarks())
        self._warn(self.account.warnings(self.options.wording))
        self._check_duplicates()

    def _check_kind(self, path: Path, kind: str) -> None:
        options, wording = self.options, self.options.wording
        if kind in UNLABELLED and options.require and not set(options.require) <= set(options.keys):
            raise DataError(
                f"{path}: expected labels ({', '.join(options.require)}), got {kind.upper()}, which holds none; "
                "import bare "
                f"structures with {wording.option('require', ())} and label them afterwards"
            )
        check_elements(path, kind, options.elements, wording)
        if kind == "release":
            check_options(path, options)
        own = set(options.keys) - {*STATE_KEYS, *other_properties()}
        own |= set(options.units) - set(other_properties())
        if kind == "spice" and own:
            raise DataError(
                f"{path}: expected no {wording.name('units')} and no {wording.name('keys')} of {', '.join(sorted(own))} for "
                "SPICE's layout, which names its own; leave them out"
            )

    def _read_file(self, path: Path, kind: str, note: dict[str, Any]) -> int:
        """Put the checked blocks of a file into the spool; return how many samples it brings."""
        options, account = self.options, Account()
        source = options.source or ("spice" if kind == "spice" else path.name)
        blocks = accepted = rejected = unreadable = lone = 0
        for checked in self._blocks(path, kind, source, account):
            self._warn(f"{path}: {text}" for text in checked.warnings)
            if self.problems and options.on_error == "refuse":
                way = options.wording.option("on_error", "quarantine")
                raise DataError(
                    f"{self.problems.message()}\n{way} keeps the other samples and puts these into quarantine"
                )
            batch = checked.block.accepted
            if batch is not None:
                self._warn(remarks(batch, options.teacher, path, checked.places))
                if self.stress is not None:
                    self.stress.add(batch, options.teacher, path, checked.places)
                    try:
                        self._warn(stress_warnings(self.stress, options.stress_sign, options.wording))
                    except DataError as error:
                        raise DataError(f"{path}, up to {checked.places[-1]}: {error}") from None
                accepted += len(batch)
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
        self.account.merge(account)
        self.unreadable += unreadable
        left_out = sorted({use.name for use in account.uses() if use.fate == "left out"})
        note |= {"samples": accepted, "rejected": rejected, "unreadable": unreadable, "left_out": left_out}
        self.files.append((note, blocks))
        return accepted

    def _blocks(self, path: Path, kind: str, source: str, account: Account) -> Iterator[CheckedBlock]:
        """Yield the blocks of a file, checked, with at most `batch_samples` structures each."""
        options, precision = self.options, self.target.precision
        if kind == "release":
            yield from read_release(path, options, precision, self.problems, account)
            return
        if kind == "spice":
            molecules = read_spice(path, self.reader.state, self.reader.properties, self.extra.units)
            conformations = ConformationBlocks(path, options, self.extra, precision, source)
            for part in in_blocks(molecules, options.batch_samples):
                yield conformations.make(part, self.problems, account)
            return
        records = read_records(
            path, kind, add_hydrogens=options.add_hydrogens, elements=options.elements, wording=options.wording
        )
        maker = RecordBlocks(path, options, self.reader, self.extra, precision, source)
        while block := list(itertools.islice(records, options.batch_samples)):
            yield maker.make(block, self.problems, account)

    def _check_duplicates(self) -> None:
        """Warn of structures that the store holds already, or refuse them before anything is stored."""
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
                    "files hold "
                    f"twice (same content_hash); {self.options.wording.option('on_duplicate', 'skip')} leaves them out"
                )
        elif held:
            self._warn(
                [
                    f"{held} of these structures are in the store already (same content_hash), perhaps from an import "
                    "of the same "
                    "file with other options: they are stored a second time; "
                    f"{self.options.wording.option('on_duplicate', 'skip')} leaves them out"
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
        samples = atoms = duplicates = rejected = 0
        blocks = self.spool.take()
        for done, (note, n_blocks) in enumerate(self.files):
            mine = itertools.islice(blocks, n_blocks)
            if not note["samples"] and not note["rejected"]:  # nothing could be read
                list(mine)
                continue
            try:
                stored = self.target.commit(mine, note, on_duplicate=self.options.on_duplicate)
            except MlffstoreError as error:
                told = (
                    f"the {done} files before were stored, and importing again skips them"
                    if done
                    else "nothing was stored"
                )
                raise type(error)(f"{note['file']}: {error}\n({told})") from error
            if stored is None:  # another process imported the same file meanwhile
                self.skipped += note["samples"]
                continue
            versions.append(stored.version)
            samples += stored.samples
            atoms += stored.atoms
            duplicates += stored.duplicates
            rejected += note["rejected"]
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
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


__all__ = ["ImportReport", "import_files", "run_import"]
