"""`import_files`: streams files into a store in blocks, one checked and atomic commit each."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlffstore import rules
from mlffstore.batch import SampleBatch
from mlffstore.errors import DataError, StoreNotFoundError, problems_message
from mlffstore.hydrogens import lacks_hydrogen
from mlffstore.importing.checks import StressCheck, remarks
from mlffstore.importing.labels import LabelReader, missing_message
from mlffstore.importing.readers import UNLABELLED, choose_format, read_records
from mlffstore.schema import LABELS, check_teacher_name
from mlffstore.store import Store, create
from mlffstore.store import open as open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from mlffstore.importing.record import Record


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Attributes
    ----------
    files : tuple of str
        Files read, in order.
    samples, atoms : int
        Newly written.
    versions : tuple of int
        Commits made.
    skipped : int
        Samples that an earlier import of the same files had written already.
    hydrogens_added : int
        Hydrogens that SDF records and SMILES left out, among the samples newly written.
    warnings : tuple of str
        What a person should look at.
    """

    files: tuple[str, ...]
    samples: int
    atoms: int
    versions: tuple[int, ...]
    skipped: int
    hydrogens_added: int
    warnings: tuple[str, ...]


def import_files(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    store: str | os.PathLike[str] | Store,
    *,
    teacher: str = "dft",
    format: str | None = None,
    keys: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    stress_sign: str = "tension",
    root: str = "sample",
    source: str | None = None,
    require: Sequence[str] = rules.REQUIRED,
    batch_samples: int = 2048,
    add_hydrogens: bool = True,
    allow_no_hydrogen: bool = False,
    check_stress: bool = True,
    create_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] | None = None,
) -> ImportReport:
    """Import structures and their labels from files.

    Parameters
    ----------
    files : path or iterable of paths
        Anything that ASE reads, SPICE's HDF5 layout (``.h5``, ``.hdf5``), SDF and MOL, SMILES (``.smi``, ``.smiles``).
    store : path or Store
        Opened for appending. A path is created if there is no store, at the first commit.
    teacher : str, optional
        Whose labels the files hold.
    format : str, optional
        A format of `ase.io`, or "spice", "sdf", "smiles". By default it follows from the file.
    keys : mapping of str to str, optional
        Where a label is when it is not among the results that ASE attaches: "energy", "forces", "stress" or "virial" to
        a key of the results, of `atoms.info` or of `atoms.arrays`, such as ``{"energy": "REF_energy"}``. A named
        label is taken from there only. A virial (eV, 3x3) becomes the stress -virial/volume.
    units : mapping of str to str, optional
        Units in the file of "energy", "forces", "stress", "virial", "positions" and "cell" (the unit of the positions by
        default); the store's units by default. Leave it out for formats that ASE converts while it reads (VASP,
        Quantum ESPRESSO, CP2K, ... : all but the ones without units of their own, such as extxyz).
    stress_sign : {"tension", "compression"}, optional
        What a positive normal stress means in the file. ASE's convention is tension; a pressure tensor, as LAMMPS prints
        it, is compression.
    root : str, optional
        Which samples share a root, so that a split never separates them. Similar frames in different splits leak what
        is learned into the test, so name the seed where there is one. "sample": each its own; right for independent
        structures only. "file": all of a file, named by the hash of its first frame; for one trajectory a file.
        "info:KEY": frames with the same ``atoms.info[KEY]`` and the same formula, also across files. The conformations
        of a SPICE molecule always share one.
    source : str, optional
        Where the data came from; by default "spice" for SPICE's layout and else the name of the file.
    require : sequence of {"energy", "forces", "stress"}, optional
        Labels that every sample must have; ``()`` stores bare structures.
    batch_samples : int, optional
        Samples of a block, which is read, checked and committed as a whole. Only one block is in memory.
    add_hydrogens : bool, optional
        Whether RDKit adds the hydrogens that SDF and SMILES leave out; if not, such files are refused.
    allow_no_hydrogen : bool, optional
        Accept molecules that look as if their hydrogens were lost, see `mlffstore.hydrogens.lacks_hydrogen`.
    check_stress : bool, optional
        Refuse a stress whose sign or unit cannot be right, see `mlffstore.importing.checks.StressCheck`.
    create_options : mapping, optional
        `precision`, `splits`, `split_seed` of a new store, see `mlffstore.create`.
    progress : callable, optional
        Called with the number of samples done so far after each block.

    Returns
    -------
    ImportReport

    Raises
    ------
    DataError
        If a file cannot be read, an option is wrong, or samples may not be stored. The message names file and frame and
        says how many samples of the file are in the store by then: none if the file has at most `batch_samples`.

    Notes
    -----
    Every commit has an idempotency key made of the SHA-256 of the file, the options that change what is stored, and the
    number of the block. Importing a file again writes nothing, whatever its name; after a crash the same call
    continues. A file that has grown since is another file: all of it is imported again.
    """
    paths = [Path(f) for f in ([files] if isinstance(files, str | os.PathLike) else files)]
    if not paths or not all(path.is_file() for path in paths):
        bad = next((str(path) for path in paths if not path.is_file()), "none")
        raise DataError(f"files: expected one or more files, got {bad}")
    if root not in ("sample", "file") and not (root.startswith("info:") and len(root) > 5):
        raise DataError(f"root: expected 'sample', 'file' or 'info:KEY', got {root!r}")
    if set(require) - set(LABELS):
        raise DataError(f"require: expected labels among {', '.join(LABELS)}, got {sorted(set(require) - set(LABELS))}")
    if batch_samples < 1:
        raise DataError(f"batch_samples: expected 1 or more, got {batch_samples}")
    check_teacher_name(teacher)
    reader = LabelReader(keys or {}, units or {}, stress_sign)
    target = _Target(store, dict(create_options or {}))
    target.check_writable()
    content = {
        "teacher": teacher, "keys": dict(keys or {}), "units": dict(units or {}), "stress_sign": stress_sign, "root": root,
        "source": source, "add_hydrogens": add_hydrogens, "precision": target.precision,
    }  # fmt: skip
    check = StressCheck(stress_sign) if check_stress else None
    samples = atoms = skipped = hydrogens = 0
    versions: list[int] = []
    warnings: list[str] = []
    for path in paths:
        kind = choose_format(path, format)
        if kind in UNLABELLED and require and not (keys and set(require) <= set(keys)):
            raise DataError(
                f"{path}: expected labels ({', '.join(require)}), got {kind.upper()}, which holds none; import bare "
                "structures with require=() (--require none) and label them afterwards"
            )
        if kind == "spice" and (units or keys):
            raise DataError(
                f"{path}: expected no units or keys for SPICE's layout, which names its own; leave them out"
            )
        sha = _sha256(path)
        digest = hashlib.sha256(json.dumps([sha, kind, content], sort_keys=True).encode()).hexdigest()
        done = target.done(digest)
        if any(block["last"] for block in done.values()) and len(done) == max(done) + 1:
            skipped += sum(block["samples"] for block in done.values())
            if progress is not None:
                progress(samples + skipped)
            continue
        # An interrupted import goes on with the blocks that it began with.
        size = next((block["batch_samples"] for block in done.values()), batch_samples)
        roots = _Roots(root)
        begun = 0
        for number, (block, last) in enumerate(_blocks(read_records(path, kind, add_hydrogens=add_hydrogens), size)):
            committed = f"{begun} samples of this file were committed before" if begun else "nothing of it was stored"
            try:
                batch, notes = _make_batch(path, block, reader, teacher, require, allow_no_hydrogen)
                own = source or ("spice" if kind == "spice" else path.name)
                batch = batch.astype(target.precision).with_source(own, "imported")
                where = [record.where for record in block]
                with _Place(path, where):
                    rules.check(batch, require)
                batch = batch.with_columns(root=roots.of(path, block, batch))
                notes += remarks(batch, teacher, path, where)
                if check is not None:
                    check.add(batch, teacher, path, where)
                    try:
                        notes += check.verdict()
                    except DataError as error:
                        raise DataError(f"{path}, up to {where[-1]}: {error}") from None
            except DataError as error:
                raise type(error)(f"{error}\n({committed})") from error.__cause__
            warnings += [note for note in notes if note not in warnings]
            if number in done:
                skipped += len(batch)
            else:
                note = {
                    "digest": digest, "file": path.name, "sha256": sha, "format": kind or "ase", "block": number,
                    "batch_samples": size, "samples": len(batch), "last": last, "options": content,
                }  # fmt: skip
                before = target.store.version
                version = target.store.commit(
                    batch, key=f"import/{digest}/{size}/{number}", require=require, provenance={"import": note}
                )
                target.remember(note)
                if version <= before:  # another process imports the same file and was faster
                    skipped += len(batch)
                else:
                    versions.append(version)
                    samples += len(batch)
                    atoms += batch.n_atoms_total
                    hydrogens += sum(record.hydrogens for record in block)
            begun += len(batch)
            if progress is not None:
                progress(samples + skipped)
        if not begun:
            raise DataError(f"{path}: expected at least one structure, got none")
    return ImportReport(tuple(map(str, paths)), samples, atoms, tuple(versions), skipped, hydrogens, tuple(warnings))


def _make_batch(
    path: Path,
    block: Sequence[Record],
    reader: LabelReader,
    teacher: str,
    require: Sequence[str],
    allow_no_hydrogen: bool,
) -> tuple[SampleBatch, list[str]]:
    """Return the block with its labels in the store's units, and warnings; or raise with every problem of it."""
    problems: list[str] = []
    labels: list[Mapping[str, Any]] = []
    warnings: list[str] = []
    for record in block:
        place = f"{path}, {record.where}"
        found = record.labels
        wrong: list[str] = []
        if found is None:
            reader.convert_structure(record.atoms)
            found, wrong = reader.read(record.atoms)
        problems += [f"{place}: {text}" for text in wrong]
        labels.append(found)
        missing = [name for name in require if name not in found]
        hints = reader.hints(record.atoms) if record.labels is None and len(found) < len(LABELS) else {}
        if missing and not wrong:
            problems.append(f"{place}: {missing_message(missing, hints)}")
        unused = {k: v for k, v in hints.items() if k not in found and not (k == "virial" and "stress" in found)}
        if unused and not missing and not warnings:
            warnings.append(
                f"{place} holds {', '.join(unused.values())}, not imported; pass keys={unused!r} if it is meant"
            )
    if problems:
        raise DataError(problems_message("these frames cannot be imported:", problems))
    with _Place(path, [record.where for record in block]):
        batch = SampleBatch.from_ase([record.atoms for record in block], teacher=teacher, labels=labels)
    if not allow_no_hydrogen:
        bare = [block[i] for i in lacks_hydrogen(batch).nonzero()[0].tolist()]
        problems = [
            f"{path}, {record.where}: expected a whole molecule, got {record.atoms.get_chemical_formula()}, whose carbons "
            "lack hydrogens; write the file again with explicit hydrogens, or pass allow_no_hydrogen=True if it is right"
            for record in bare
        ]
        if problems:
            raise DataError(problems_message("these frames cannot be imported:", problems))
    return batch, warnings


class _Target:
    """The store, made only when there is something to put into it."""

    def __init__(self, store: str | os.PathLike[str] | Store, options: dict[str, Any]) -> None:
        self._url, self._options = store, options
        self._store: Store | None = store if isinstance(store, Store) else None
        self._blocks: dict[str, dict[int, dict[str, Any]]] = {}
        if self._store is None:
            try:
                self._store = open_store(store, mode="a")  # type: ignore[arg-type]
            except StoreNotFoundError:
                return
            if options:
                self._store = create(store, exist_ok=True, **options)  # type: ignore[arg-type]
        elif options:
            raise DataError("create_options: expected none with an open store, got some; leave them out")
        for entry in self._store.provenance():
            if isinstance(note := entry.get("import"), dict):
                self.remember(note)

    @property
    def precision(self) -> str:
        return self._store.precision if self._store is not None else str(self._options.get("precision", "float32"))

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = create(self._url, exist_ok=True, **self._options)  # type: ignore[arg-type]
        return self._store

    def check_writable(self) -> None:
        if self._store is not None:
            self._store._check_writable()

    def done(self, digest: str) -> dict[int, dict[str, Any]]:
        """Return what the log says of the blocks of a file that are there already, by their number."""
        return self._blocks.get(digest, {})

    def remember(self, note: dict[str, Any]) -> None:
        self._blocks.setdefault(note["digest"], {})[note["block"]] = note


class _Roots:
    """Gives every sample of a file its root."""

    def __init__(self, how: str) -> None:
        self.how = how
        self._known: dict[str, np.uint64] = {}

    def of(self, path: Path, block: Sequence[Record], batch: SampleBatch) -> Any:
        own = batch.content_hash
        roots = own.copy()
        for i, record in enumerate(block):
            name = record.molecule if record.molecule is not None else "" if self.how == "file" else None
            if name is not None:
                roots[i] = self._known.setdefault(name, own[i])
            elif self.how != "sample":
                roots[i] = self._named(path, record, self.how.removeprefix("info:"))
        return roots

    @staticmethod
    def _named(path: Path, record: Record, key: str) -> int:
        """Return a hash of the name and the formula: it needs no first frame, so it holds across files and imports."""
        if key not in record.atoms.info:
            known = ", ".join(map(str, record.atoms.info)) or "nothing"
            raise DataError(f"{path}, {record.where}: expected info[{key!r}] to name the root, got {known}")
        text = f"{key}={record.atoms.info[key]}|{record.atoms.get_chemical_formula()}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


class _Place:
    """Says file and frame instead of "sample 3" in errors about a block."""

    def __init__(self, path: Path, where: Sequence[str]) -> None:
        self.path, self.where = path, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DataError):
            text = re.sub(r"\bsample (\d+)", lambda found: f"{self.path}, {self.where[int(found[1])]}", str(error))
            raise type(error)(text) from None


def _blocks(records: Iterator[Record], size: int) -> Iterator[tuple[list[Record], bool]]:
    """Yield lists of `size` records, and whether each is the last."""
    block = list(itertools.islice(records, size))
    while block:
        following = list(itertools.islice(records, 1))
        yield block, not following
        block = following + list(itertools.islice(records, size - 1)) if following else []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
