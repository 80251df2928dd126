"""What comes back of an export: each layout is exported, imported into a new store and compared, value by value."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import mlffstore as ml
from mlffstore.data.masks import user_rows
from mlffstore.data.properties import PROPERTIES, property_of
from mlffstore.errors import MlffstoreError

#: Layouts that the importer reads; `concatenated` is read by another library alone.
LAYOUTS = ("hdf5", "zarr", "parquet", "nvalchemi", "atompack", "extxyz", "aselmdb", "mace", "deepmd")
PLAIN = ("energy", "forces", "stress")
MORE = tuple(name for name in PROPERTIES if name not in PLAIN)
USER = {"weight": "1", "step": "1", "config_type": "1", "residue": "1", "velocity": "angstrom/fs"}
#: Columns of the table -> what is compared.
FIELDS = {
    "structure": ("numbers", "positions", "cell", "pbc"),
    "charge, multiplicity": ("charge", "multiplicity"),
    "energy, forces, stress": PLAIN,
    **{name: (name,) for name in ("atomic_energies", "charges", "magmoms", "dipole")},
    "other properties": tuple(name for name in MORE if name not in ("atomic_energies", "charges", "magmoms", "dipole")),
    "teacher": ("teacher",), "split": ("split",), "root": ("root",), "source, sampler": ("source", "sampler"),
    "numbers of users": ("weight", "step", "velocity"), "strings of users": ("config_type", "residue"),
}  # fmt: skip
HEAD = f"| layout | {' | '.join(FIELDS)} |\n|{'---|' * (len(FIELDS) + 1)}\n"


def samples() -> ml.SampleBatch:
    """Return crystals of a teacher with every property and user columns, some of which samples lack."""
    rng, n_atoms = np.random.default_rng(4), np.array([2, 3, 1, 4, 2, 5, 3, 2])
    n, total = len(n_atoms), int(n_atoms.sum())
    labels = {}
    for name in PROPERTIES:
        spec = property_of(name)
        shape = tuple(4 if size is None else size for size in spec.sizes)
        labels[name] = rng.normal(size=(total if spec.axis == "atom" else n, *shape)).astype(spec.dtype)
    labels["stress"] *= 1e-3
    labels["dipole"][1] = np.nan
    step = np.ma.MaskedArray(np.arange(n) * 2**33, [False, True] * (n // 2))
    strings = ["bulk", None, "two words"] * n
    return ml.SampleBatch(
        n_atoms=n_atoms, numbers=rng.integers(1, 80, total), positions=rng.normal(size=(total, 3)).astype(np.float32) * 4,
        cell=np.tile(np.eye(3) * 11.0, (n, 1, 1)), pbc=np.ones((n, 3), bool), charge=np.arange(n) - 3,
        multiplicity=1 + np.arange(n), labels={"pbe": labels}, source=["mp", "icsd"] * (n // 2), sampler="rattle",
        root=np.arange(n, dtype=np.uint64) // 2 + 2**63,
        extra={
            "weight": (rng.random(n).astype(np.float32), "1", "sample"), "step": (step, "1", "sample"),
            "config_type": (strings[:n], "1", "sample"), "residue": (["ALA", "GLY"] * (total // 2), "1", "atom"),
            "velocity": (rng.normal(size=(total, 3)), "angstrom/fs", "atom"),
        },
    )  # fmt: skip


def row(layout: str) -> str:
    """Return the row of a layout.

    Raises
    ------
    ImportError
        If the layout needs a package that is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        store = ml.create(path / "d.zarr", splits={"train": 0.5, "val": 0.25, "test": 0.25}, split_seed=4)
        store.append(samples(), require=())
        snap = store.snapshot()
        export = getattr(importlib.import_module(f"mlffstore_exporters.{layout}"), f"export_{layout}")
        out = export(snap, path / ("out.h5" if layout == "hdf5" else "out"))
        plain, named = (_came_back(snap, _imported(out, path / how, layout, how)) for how in ("plain", "named"))
    cells = ["yes" if plain[field] else "named" if named[field] else "no" for field in FIELDS]
    return f"| `{layout}` | {' | '.join(cells)} |\n"


def _imported(out: Path, target: Path, layout: str, how: str) -> Any:
    """Import an export with no options, or with names for everything."""
    suffixes = {"extxyz": "*.extxyz", "aselmdb": "*.aselmdb", "mace": "*.h5"}
    files = sorted(out.rglob(suffixes[layout])) if layout in suffixes else [out]
    options: dict[str, Any] = {"require": ()}
    if how == "named" and layout in suffixes:
        options |= {"split": "file", "root": "info:root", "source": "info:source"}
        options |= {"keys": {name: name for name in MORE if name != "atomic_energies"}, "columns": USER}
    while True:
        try:
            ml.import_files(files, target, check_stress=False, create_options={"precision": "float32"}, **options)
            break
        except MlffstoreError as error:  # a name that the layout does not have, or an option that its reader refuses
            if not _without_the_culprit(str(error), options):
                raise
    return ml.open(target).snapshot()


def _without_the_culprit(message: str, options: dict[str, Any]) -> bool:
    """Take an option out of which an error says that no file has its name; return whether there was one."""
    for option in ("keys", "columns"):
        for name in list(options.get(option, ())):
            if f"'{name}'" in message:
                options[option] = {key: value for key, value in options[option].items() if key != name}
                return True
    return options.pop("root", None) is not None


def _came_back(before: Any, after: Any) -> dict[str, bool]:
    """Return which fields are equal in both snapshots, whatever the order of the samples."""
    ours, theirs = before.read(), after.read()
    order, back = np.argsort(ours.energy), np.argsort(theirs.energy)
    splits = np.array_equal(before.split_codes()[order], after.split_codes()[back])
    ours, theirs = ours.take(order), theirs.take(back)
    teacher = theirs.teachers[0]

    def equal(name: str) -> bool:
        if name == "teacher":
            return teacher == "pbe"
        if name == "split":
            return splits
        if name in ("source", "sampler"):
            return getattr(ours, name) == getattr(theirs, name)
        if name in PROPERTIES:
            values, found = ours.labels["pbe"][name], theirs.labels[teacher].get(name)
            if name == "dipole" and found is not None:  # in Debye in MACE's layout
                return np.allclose(found, values, rtol=1e-14, atol=0, equal_nan=True)
            return found is not None and found.dtype == values.dtype and np.array_equal(found, values, equal_nan=True)
        if name not in USER:
            return np.array_equal(ours.columns[name], theirs.columns[name])
        if name not in theirs.user or theirs.user[name].unit != ours.user[name].unit:
            return False
        if ours.user[name].coded:
            return theirs.user[name].coded and ours.strings(name) == theirs.strings(name)
        (values, mask), (found, same) = user_rows(ours, ours.user[name]), user_rows(theirs, theirs.user[name])
        return np.array_equal(mask, same) and np.array_equal(values[mask], found[mask])

    return {field: all(map(equal, names)) for field, names in FIELDS.items()}
