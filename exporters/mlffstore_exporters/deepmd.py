"""DeePMD-kit's folders of NumPy arrays, mixed type: train/, val/ and test/ with one system for each number of atoms."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.labels import choose_teacher
from mlffstore.release.selection import select
from mlffstore.runtime.paths import local_path
from mlffstore.store.presence import present
from mlffstore_exporters.columns import root_attributes
from mlffstore_exporters.folder import new_folder, other_labels, parts, tell_left_out, write_sidecar

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.store.samples import Samples

logger = logging.getLogger(__name__)

#: Property -> name of its file. DeePMD-kit trains on each of them.
_FILES = {"energy": "energy", "forces": "force", "stress": "virial", "atomic_energies": "atom_ener", "dipole": "dipole"}


def export_deepmd(
    snapshot: Samples,
    path: str | os.PathLike[str],
    *,
    teacher: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled as systems of DeePMD-kit (format `deepmd/npy/mixed` of dpdata).

    Parameters
    ----------
    snapshot : Snapshot, Selection or Release
    path : path
        A new folder, with the folders `train`, `val` and `test`.
    teacher : str, optional
        Teacher whose labels are used. It is required if there are several.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path

    Notes
    -----
    Samples with the same number of atoms, periodicity and labels are one system, since a system has the same arrays for all
    of its frames: `24-periodic-energy-force-virial` has frames of 24 atoms with these three labels. Units are eV and
    angstrom; the virial is minus stress times volume (eV), as in dpdata. `fparam.npy` has charge (e) and multiplicity;
    `root.npy`, `source.npy` and `sampler.npy`, which DeePMD-kit ignores, tell where a frame comes from, and
    ``mlffstore.json`` where the export comes from: ``mlffstore import`` takes all of it back. DeePMD-kit
    knows full periodicity or none: samples that are periodic along one or two vectors are left out, and so are user columns,
    labels for which there is no file, and stresses of molecules, which have no volume; a warning names them.
    """
    teacher_name, target = choose_teacher(snapshot.teachers, teacher), local_path(path)
    left_out = {
        name: reason
        for name, reason in other_labels(snapshot, teacher_name, "the layout has no file for it").items()
        if name not in _FILES
    }
    left_out |= dict.fromkeys(snapshot.user_columns, "the layout has no place for user columns")
    partly = volumeless = 0
    elements = set[int]()
    with new_folder(target) as folder:
        for split, _, batch in parts(snapshot, select(snapshot, (teacher_name,)), teacher_name, progress):
            periodic = batch.pbc.sum(axis=1)
            partly += int(np.count_nonzero((periodic == 1) | (periodic == 2)))
            volumeless += int(np.count_nonzero((periodic == 0) & present(batch, teacher_name, "stress")))
            elements |= set(np.unique(batch.numbers).tolist())
            for name, labels, rows in _systems(batch, teacher_name):
                system = folder / split / name
                system.mkdir(parents=True, exist_ok=True)
                for file, values in _arrays(batch.take(rows), teacher_name, labels).items():
                    with (system / f"{file}.part").open("ab") as part:
                        np.save(part, values, allow_pickle=False)
        for system in sorted(folder.glob("*/*")):
            _finish(system, sorted(elements))
        write_sidecar(folder, "deepmd", root_attributes(snapshot, (teacher_name,)))
    if partly:
        logger.warning(
            "deepmd knows full periodicity or none: %s samples that are periodic along one or two vectors were left out",
            f"{partly:,}",
        )
    if volumeless:
        logger.warning(
            "deepmd takes stresses as virials, stress times volume: those of %s samples without a volume were left out",
            f"{volumeless:,}",
        )
    tell_left_out("deepmd", left_out)
    return target


def _systems(batch: SampleBatch, teacher: str) -> Iterator[tuple[str, tuple[str, ...], Ints]]:
    """Yield the name of each system that a batch has frames of, the labels that they all have, and these samples."""
    whole = np.asarray(batch.pbc.all(axis=1))
    has = {name: present(batch, teacher, name) for name in _FILES}
    has["stress"] &= whole
    systems: dict[tuple[int, bool, tuple[str, ...]], list[int]] = {}
    for i in np.flatnonzero(whole | ~batch.pbc.any(axis=1)).tolist():
        labels = tuple(name for name in _FILES if has[name][i])
        systems.setdefault((int(batch.n_atoms[i]), bool(whole[i]), labels), []).append(i)
    for (n_atoms, periodic, labels), rows in systems.items():
        words = [str(n_atoms), "periodic" if periodic else "molecule", *(_FILES[name] for name in labels)]
        yield "-".join(words), labels, np.array(rows)


def _arrays(batch: SampleBatch, teacher: str, labels: tuple[str, ...]) -> dict[str, Array]:
    """Return the arrays of frames with the same number of atoms and these labels, each with one row for each frame."""
    from ase.stress import voigt_6_to_full_3x3_stress

    n, numbers = len(batch), batch.numbers.reshape(len(batch), -1)
    out: dict[str, Array] = {
        "coord": batch.positions.reshape(n, -1),
        "box": batch.cell.reshape(n, 9),
        "real_atom_types": numbers.astype(np.int32),
        "fparam": np.stack([batch.charge, batch.multiplicity], axis=1).astype(np.float64),
        "root": batch.root,
        "source": np.array(batch.source, dtype=np.str_),
        "sampler": np.array(batch.sampler, dtype=np.str_),
    }
    for name in labels:
        values = batch.labels[teacher][name]
        if name == "stress":
            volumes = np.abs(np.linalg.det(batch.cell))
            values = -voigt_6_to_full_3x3_stress(values.astype(np.float64)) * volumes[:, None, None]
        out[_FILES[name]] = values if values.shape == (n,) else values.reshape(n, -1)
    return out


def _finish(system: Path, elements: list[int]) -> None:
    """Join the parts of each array of a system, and write what describes it."""
    from ase.data import chemical_symbols

    folder = system / "set.000"
    folder.mkdir()
    for part in sorted(system.glob("*.part")):
        pieces = []
        with part.open("rb") as file:
            while file.peek(1):
                pieces.append(np.load(file, allow_pickle=False))
        values = np.concatenate(pieces)
        if part.stem == "real_atom_types":  # atomic numbers until all elements are known
            values = np.searchsorted(elements, values).astype(np.int32)
        np.save(folder / f"{part.stem}.npy", values, allow_pickle=False)
        part.unlink()
    n_atoms, kind = system.name.split("-")[:2]
    (system / "type.raw").write_text("0\n" * int(n_atoms))
    (system / "type_map.raw").write_text("".join(f"{chemical_symbols[z]}\n" for z in elements))
    if kind == "molecule":
        (system / "nopbc").write_text("")
