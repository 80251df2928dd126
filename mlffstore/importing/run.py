"""`import_files`: reads and checks every file first, in blocks, and commits only then: all of it or nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from mlffstore.data import rules
from mlffstore.errors import DataError
from mlffstore.importing.job import ImportJob
from mlffstore.importing.layouts import folder_kind
from mlffstore.importing.options import OnError, Options
from mlffstore.importing.report import ImportReport
from mlffstore.importing.spool import Spool
from mlffstore.importing.target import Target
from mlffstore.runtime.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

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
    split: str | None = None,
    match: Literal["structure"] | None = None,
    tolerance: float = 0.0,
    preset: str | None = None,
    workers: int = 1,
    create_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] | None = None,
) -> ImportReport:
    """Import structures and their labels from files.

    Every file is read and checked before anything is stored, so that a refusal leaves the store as it was. The report says
    of each key that the files hold whether it was kept, renamed, converted or left out.

    Parameters
    ----------
    files : path or iterable of paths
        Anything that ASE reads, ASE databases and aselmdb with their `data`, stores and releases of this library, and the
        formats of docs/reference/formats.md. Files may be compressed (``.gz``, ``.bz2``, ``.xz``); a ``.zip`` stands for the
        files in it.
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
        "info:KEY": frames with the same value under KEY, whatever their formula, also across files; a frame without
        the key is its own root. What a file groups by itself shares one: the conformations of a SPICE molecule, the frames
        of a material of MPtrj. Samples of a store or release keep theirs.
    source : str, optional
        Where the data came from; by default "spice" for SPICE's layout and else the name of the file. "info:KEY" takes it
        from each frame that has the key.
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
    split : str, optional
        Splits that came with the data are kept as they are: "file" reads them from the names of the files (train.xyz,
        valid.xyz), "key" from the key `split` of each frame, "info:KEY" from another one. Where the hash of a root would
        decide otherwise, the samples get another root that stands for it in this split. "hash" keeps none. By default the
        splits of stores and releases are kept, and others are decided by the hash.
    match : {"structure"}, optional
        Instead of storing samples, add the labels to those samples of the store that have the same structure: labels of a
        second method. What matches nothing is not stored, and is listed in `ImportReport.unmatched`.
    tolerance : float, optional
        With `match`, how far atoms may be apart, angstrom; their order may differ then. 0, the default, joins structures
        that are equal bit for bit as they are stored.
    preset : str, optional
        A convention that names keys, units and signs, see `mlffstore.importing.presets.PRESETS`: "mace", "nequip", "gap",
        "castep", "fairchem", "mattersim". What `keys`, `units` and `columns` say counts before it.
    workers : int, optional
        Processes that read and check an extended XYZ file.
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
    missing. Samples that were put into quarantine are tried again with other `require` or `allow_no_hydrogen` and
    ``on_duplicate="skip"``. A file that has grown since is another file: all of it is imported again, with a warning that
    its structures are there already.
    """
    options = Options(
        teacher=teacher, format=format, keys=dict(keys or {}), columns=columns, units=dict(units or {}),
        stress_sign=stress_sign, charge=charge, multiplicity=multiplicity, spin=spin, elements=tuple(elements), root=root,
        source=source, require=require, batch_samples=batch_samples, add_hydrogens=add_hydrogens,
        allow_no_hydrogen=allow_no_hydrogen, check_stress=check_stress, on_error=on_error, on_duplicate=on_duplicate,
        split=split, match=match, tolerance=tolerance, preset=preset, workers=workers,
    )  # fmt: skip
    given = [files] if isinstance(files, str | os.PathLike) else files
    return run_import([local_path(path) for path in given], store, options, create_options, progress)


def run_import(
    paths: Sequence[Path],
    store: str | os.PathLike[str] | Store,
    options: Options,
    create_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] | None = None,
) -> ImportReport:
    """Import files with options that are checked; see `import_files`."""
    if not paths:
        raise DataError("files: expected one or more files, got none")
    for path in paths:
        if path.is_dir() and options.format is None and folder_kind(path) is None:
            raise DataError(f"{path}: expected a file, a store, a release or a folder of data, got another folder")
        if not path.exists():
            raise DataError(f"{path}: there is no such file")
    target = Target(store, dict(create_options or {}))
    target.check_writable()
    if options.match is not None and target.is_new:
        raise DataError(
            f"{options.wording.name('match')}: expected a store with structures to add labels to, got {store}, where there "
            "is none; check the path, or import the structures first"
        )
    with Spool() as spool:
        job = ImportJob(paths, target, options, spool, progress)
        try:
            job.read()
        except DataError as error:
            raise type(error)(f"{error}\n(nothing was stored)") from error.__cause__
        return job.commit()


__all__ = ["ImportReport", "import_files", "run_import"]
