"""ASE databases in LMDB (ase-db-backends), as fairchem trains from them: a folder for each split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlffstore.data.labels import choose_teacher
from mlffstore.errors import missing_dependency
from mlffstore.release.selection import select
from mlffstore_exporters.folder import new_folder, parts

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.store.samples import Samples

#: Samples of a file. The package looks every new row up in a list of all rows, which takes quadratic time.
_ROWS = 5000


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
    source, sampler and user columns. `metadata.npz` in each folder has the `natoms` that fairchem's samplers read. A
    label that a sample lacks is not in its row.
    """
    try:
        from ase_db_backends.aselmdb import LMDBDatabase
    except ImportError as error:
        raise missing_dependency("ase-db-backends", "aselmdb", "The layout aselmdb") from error
    import numpy as np

    teacher_name, target = choose_teacher(snapshot.teachers, teacher), Path(path)
    splits = select(snapshot, (teacher_name,))
    with new_folder(target) as folder:
        for split, number, batch in parts(snapshot, splits, teacher_name, progress, _ROWS):
            (folder / split).mkdir(exist_ok=True)
            file = folder / split / f"data.{number:04d}.aselmdb"
            with LMDBDatabase(file, use_lock_file=False) as database:
                for i, frame in enumerate(batch.to_ase(teacher_name)):
                    database.write(frame, data=_data(frame, batch, i))
        for split, index in splits.items():
            if len(index):
                n_atoms = snapshot.read(index, columns=["n_atoms"]).n_atoms
                np.savez(folder / split / "metadata.npz", natoms=n_atoms)
    return target


def _data(frame: Atoms, batch: SampleBatch, i: int) -> dict[str, Any]:
    """Return what a row of the database holds beside structure and labels. fairchem makes `atoms.info` of it."""
    info = {name: value for name, value in frame.info.items() if name not in ("charge", "multiplicity")}
    names = {*batch.user, *(name for named in batch.labels.values() for name in named)} - {"forces"}
    user_arrays = {name: _plain(frame.arrays[name]) for name in sorted(names) if name in frame.arrays}
    return {"charge": int(batch.charge[i]), "spin": int(batch.multiplicity[i]), **info, **user_arrays}


def _plain(array: Array) -> Any:
    """Return strings as a list, which the database can keep, and numbers as they are."""
    return array.tolist() if array.dtype.kind == "U" else array
