"""Extended XYZ, as ASE reads and writes it: train.extxyz, val.extxyz and test.extxyz in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlffstore.batch import choose_teacher
from mlffstore_exporters.folder import new_folder, parts
from mlffstore_exporters.hdf5 import select

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from mlffstore.snapshot import Snapshot


def export_extxyz(
    snapshot: Snapshot,
    path: str | os.PathLike[str],
    *,
    teacher: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled as extended XYZ.

    Parameters
    ----------
    snapshot : Snapshot
    path : path
        A new folder for one file a split.
    teacher : str, optional
        Whose labels; needed when there are several.
    progress : callable, optional
        Called with the number of samples written and of all.

    Returns
    -------
    Path

    Notes
    -----
    Units and signs are ASE's, which are ours. Text keeps eight decimals of coordinates and forces. Charge, multiplicity and
    root are in the comment line.
    """
    from ase.io import write

    who, target = choose_teacher(snapshot.teachers, teacher), Path(path)
    with new_folder(target) as folder:
        for split, _, batch in parts(snapshot, select(snapshot, (who,)), who, progress):
            frames = batch.to_ase(who)
            for frame, charge, multiplicity, root in zip(
                frames, batch.charge, batch.multiplicity, batch.root, strict=True
            ):
                # A name that ASE's reader leaves a string: 16 digits could pass for a number.
                frame.info |= {"charge": int(charge), "multiplicity": int(multiplicity), "root": f"x{int(root):016x}"}
            with (folder / f"{split}.extxyz").open("a", encoding="utf-8") as file:
                write(file, frames, format="extxyz")
    return target
