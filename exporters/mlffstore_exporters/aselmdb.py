"""ASE databases in LMDB (ase-db-backends), as fairchem trains from them: a folder for each split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import user_rows
from mlffstore.errors import missing_dependency
from mlffstore.release.selection import select
from mlffstore.runtime.paths import local_path
from mlffstore_exporters.folder import new_folder, parts, tell_left_out
from mlffstore_exporters.meanings import ase_frames

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
    from mlffstore.store.samples import Samples

#: Samples of a file. The package looks every new row up in a list of all rows, which takes quadratic time.
_ROWS = 5000
#: What fairchem reads in the data of a row, beside `charge` and `spin`.
_RESERVED = frozenset(("sid", "fid"))


def export_aselmdb(
    snapshot: Samples,
    path: str | os.PathLike[str],
    *,
    teacher: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled as ``train/data.0000.aselmdb`` and so on.

    Parameters
    ----------
    snapshot : Samples
    path : path
        A new folder.
    teacher : str, optional
        Teacher whose labels are used. It is required if there are several.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path

    Raises
    ------
    MissingDependencyError
        Without the package ase-db-backends.

    Notes
    -----
    Charge (e) and spin multiplicity are in ``row.data`` as `charge` and `spin`, where fairchem looks for them, beside root,
    source, sampler and user columns; an atom without a string has None. `metadata.npz` in each folder has the `natoms` that
    fairchem's samplers read. A label that a sample lacks is not in its row. Columns with names that readers take for
    something else (`spin`, `dipole`, `tags`, ...) are left out with a warning.
    """
    try:
        from ase_db_backends.aselmdb import LMDBDatabase
    except ImportError as error:
        raise missing_dependency("ase-db-backends", "aselmdb", "The layout aselmdb") from error
    import numpy as np

    teacher_name, target = choose_teacher(snapshot.teachers, teacher), local_path(path)
    left_out: dict[str, str] = {}
    splits = select(snapshot, (teacher_name,))
    with new_folder(target) as folder:
        for split, number, batch in parts(snapshot, splits, teacher_name, progress, _ROWS):
            (folder / split).mkdir(exist_ok=True)
            file = folder / split / f"data.{number:04d}.aselmdb"
            with LMDBDatabase(file, use_lock_file=False) as database:
                for i, frame in enumerate(ase_frames(batch, teacher_name, left_out, _RESERVED)):
                    database.write(frame, data=_data(frame, batch, i))
        for split, index in splits.items():
            if len(index):
                n_atoms = snapshot.read(index, columns=["n_atoms"]).n_atoms
                np.savez(folder / split / "metadata.npz", natoms=n_atoms)
    tell_left_out("aselmdb", left_out)
    return target


def _data(frame: Atoms, batch: SampleBatch, i: int) -> dict[str, Any]:
    """Return what a row of the database holds beside structure and labels. fairchem makes `atoms.info` of it."""
    info = {name: value for name, value in frame.info.items() if name not in ("charge", "multiplicity")}
    names = {*batch.user, *(name for named in batch.labels.values() for name in named)} - {"forces"}
    arrays = {name: frame.arrays[name] for name in sorted(names) if name in frame.arrays}
    for name, column in batch.user.items():
        if column.coded and name in arrays:  # an array has no place for an atom without a string, JSON has null
            there = user_rows(batch, column)[1][batch.offsets[i] : batch.offsets[i + 1]]
            arrays[name] = [
                text if ok else None for text, ok in zip(arrays[name].tolist(), there.tolist(), strict=True)
            ]
    return {**info, **arrays, "charge": int(batch.charge[i]), "spin": int(batch.multiplicity[i])}
