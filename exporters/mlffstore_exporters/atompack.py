"""The files of atompack (LeMaterial): train.atp, val.atp and test.atp in a folder, and more where fields differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import user_rows
from mlffstore.data.schema import CODED
from mlffstore.errors import missing_dependency
from mlffstore.release.selection import select
from mlffstore.runtime.paths import local_path
from mlffstore.store.presence import present
from mlffstore_exporters.columns import FileColumns, root_attributes
from mlffstore_exporters.folder import new_folder, parts, write_sidecar

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array, Column
    from mlffstore.store.samples import Samples

#: Labels that atompack has a field for; others are properties of its molecules.
_BUILTIN = ("energy", "forces", "stress", "charges")
#: dtypes of arrays that atompack keeps.
_KEPT = ("float32", "float64", "int32", "int64")


def export_atompack(
    snapshot: Samples,
    path: str | os.PathLike[str],
    *,
    teacher: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled as databases of atompack.

    Parameters
    ----------
    snapshot : Samples
    path : path
        A new folder for one file per split, or several.
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
        Without the package atompack-db.

    Notes
    -----
    Energy (eV), forces, stress (a matrix, tension positive) and charges are atompack's own fields. `charge`, `multiplicity`,
    `root` (hexadecimal), `source`, `sampler`, other properties and user columns are properties of the molecule or of its
    atoms. A label or value that a sample lacks is not there; since atompack reads batches only of molecules with the same
    fields, samples with others go to ``train-1.atp`` and so on. atompack keeps arrays of 32 and 64 bits: smaller integers
    and booleans are widened, strings of atoms are one JSON text, and unsigned integers of 64 bits are the signed ones with
    the same bits. ``mlffstore.json`` says of each column what it was: ``mlffstore import`` takes all of it back.
    """
    try:
        import atompack
    except ImportError as error:
        raise missing_dependency("atompack-db", "atompack", "The layout atompack") from error
    teacher_name, target = choose_teacher(snapshot.teachers, teacher), local_path(path)
    source = FileColumns(snapshot, (teacher_name,))
    columns = {
        name: {"axis": column.axis, "dtype": column.dtype, "shape": list(column.shape), "coded": column.coded,
               **{key: _plain(value) for key, value in source.attributes(name).items()}}
        for name, (column, _) in source.columns.items() if column.quantity is not None or name in snapshot.user_columns
    }  # fmt: skip
    with new_folder(target) as folder:
        databases: dict[tuple[str, tuple[str, ...]], Any] = {}
        n_files: dict[str, int] = {}
        for split, _, batch in parts(snapshot, select(snapshot, (teacher_name,)), teacher_name, progress):
            alike: dict[tuple[str, ...], list[Any]] = {}
            for fields, molecule in _molecules(batch, teacher_name, atompack.Molecule.from_arrays):
                alike.setdefault(fields, []).append(molecule)
            for fields, molecules in alike.items():
                if (split, fields) not in databases:
                    n_files[split] = number = n_files.get(split, -1) + 1
                    file = folder / (f"{split}-{number}.atp" if number else f"{split}.atp")
                    databases[split, fields] = atompack.Database(str(file), compression="zstd")
                databases[split, fields].add_molecules(molecules)
        for database in databases.values():
            database.flush()
        write_sidecar(
            folder, "atompack", {**root_attributes(snapshot, (teacher_name,)), "columns": json.dumps(columns)}
        )
    return target


def _molecules(batch: SampleBatch, teacher: str, make: Callable[..., Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each sample as a molecule of atompack, with the names of the fields that it has."""
    from ase.stress import voigt_6_to_full_3x3_stress

    labels = batch.labels.get(teacher, {})
    there = {name: present(batch, teacher, name) for name in labels}
    user = {name: user_rows(batch, column) for name, column in batch.user.items()}
    for i in range(len(batch)):
        atoms = slice(batch.offsets[i], batch.offsets[i + 1])

        def rows(name: str, i: int = i, atoms: slice = atoms) -> Array:
            return np.asarray(labels[name][atoms if batch.property_of(name).axis == "atom" else i])

        given: dict[str, Any] = {name: rows(name) for name in _BUILTIN if name in labels and there[name][i]}
        if "energy" in given:
            given["energy"] = float(given["energy"])
        if "stress" in given:
            given["stress"] = voigt_6_to_full_3x3_stress(given["stress"].astype(np.float64))
        if "charges" in given:
            given["charges"] = given["charges"].astype(np.float64)
        if batch.pbc[i].any():
            given["cell"] = batch.cell[i]
        molecule = make(
            batch.positions[atoms], batch.numbers[atoms], pbc=tuple(map(bool, batch.pbc[i])), **given
        )  # fmt: skip
        for name, value in (("charge", int(batch.charge[i])), ("multiplicity", int(batch.multiplicity[i])),
                            ("root", f"{int(batch.root[i]):016x}")):  # fmt: skip
            molecule.set_property(name, value)
        for name in CODED:
            molecule.set_property(name, getattr(batch, name)[i])
        for name in labels:
            if name not in _BUILTIN and there[name][i]:
                _set(molecule, name, rows(name), batch.property_of(name).axis)
        for name, column in batch.user.items():
            values, mask = user[name]
            row = atoms if column.axis == "atom" else slice(i, i + 1)
            if mask[row].any():
                _set_user(molecule, batch, column, values[row], mask[row])
        yield (*sorted(given), *sorted(molecule.property_keys())), molecule


def _set_user(molecule: Any, batch: SampleBatch, column: Column, values: Array, mask: Array) -> None:
    """Set a user column of a sample; where only some of its atoms have a value, the mask too."""
    name = column.name
    if column.coded:
        words = batch.vocabulary[name]
        texts = [words[code] if ok else None for code, ok in zip(values.tolist(), mask.tolist(), strict=True)]
        molecule.set_property(name, texts[0] if column.axis == "sample" else json.dumps(texts))
        return
    if column.axis == "sample":
        _set(molecule, name, values[0], "sample")
        return
    _set(molecule, name, values, "atom")
    if not mask.all():
        molecule.set_property(f"{name}.mask", mask.astype(np.int32), scope="atom")


def _set(molecule: Any, name: str, values: Array, axis: str) -> None:
    """Set numbers; those of types that atompack does not keep are widened."""
    array = np.asarray(values)
    if array.dtype == np.uint64:
        array = array.view(np.int64)
    elif array.dtype.name not in _KEPT:
        array = array.astype("float32" if array.dtype.kind == "f" else "int64")
    if axis == "atom":
        molecule.set_property(name, np.ascontiguousarray(array), scope="atom")
    else:
        value = array.item() if array.ndim == 0 else np.ascontiguousarray(array)
        molecule.set_property(name, value, scope="molecule")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


__all__ = ["export_atompack"]
