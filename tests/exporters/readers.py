"""Reads every layout back with the reader that people use for it: one mapping of fields for each sample, by its root.

A field that a sample lacks is not in its mapping; a NaN, a "None", or an entry that a mask says is missing is no field.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xarray as xr
from ase import units
from ase.io import read

from mlffstore.release import Release

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

Fields = dict[str, Any]


def read_layout(layout: str, path: Path) -> dict[str, Fields]:
    """Return the fields of each sample of an export."""
    return _READERS[layout](path)


def of_batch(batch: Any, teacher: str) -> dict[str, Fields]:
    """Return the fields of each sample of a batch."""
    out = {}
    for i in range(len(batch)):
        atoms = slice(batch.offsets[i], batch.offsets[i + 1])
        one = {name: batch.columns[name][i] for name in ("cell", "pbc", "charge", "multiplicity")}
        one |= {"numbers": batch.numbers[atoms], "positions": batch.positions[atoms]}
        one |= {"source": batch.source[i], "sampler": batch.sampler[i]}
        for name, column in batch.user.items():
            rows = atoms if column.axis == "atom" else i
            if name not in batch.masks or batch.masks[name][rows].all():
                one[name] = batch.columns[name][rows]
        for name, values in batch.labels.get(teacher, {}).items():
            one[name] = values[atoms] if batch.property_of(name).axis == "atom" else values[i]
        out[f"{int(batch.root[i]):016x}"] = _there(one)
    return out


def _there(fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if not _missing(value)}


def _missing(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind == "f" and bool(np.isnan(array).all())


def _of_frame(frame: Atoms) -> Fields:
    out = {"cell": frame.cell.array, "pbc": frame.pbc, **frame.arrays, **frame.info}
    return _there(out | ({} if frame.calc is None else dict(frame.calc.results)))


def _extxyz(path: Path) -> dict[str, Fields]:
    out = {}
    for file in sorted(path.glob("*.extxyz")):
        for frame in read(file, ":"):
            fields = _of_frame(frame)
            out[fields.pop("root").removeprefix("x")] = fields
    return out


def _aselmdb(path: Path) -> dict[str, Fields]:
    from ase.db import connect

    out = {}
    for file in sorted(path.glob("*/*.aselmdb")):
        with connect(file, type="aselmdb", readonly=True) as database:
            for i in database.ids:
                row = database._get_row(i)
                fields = _of_frame(row.toatoms()) | dict(row.data)
                fields["multiplicity"] = fields.pop("spin")
                out[fields.pop("root").removeprefix("x")] = fields
    return out


def _mace(path: Path) -> dict[str, Fields]:
    out = {}
    for name in sorted(path.glob("*/*.h5")):
        with h5py.File(name) as file:
            for i, root in enumerate(file.attrs["root"]):
                group = file[f"config_batch_0/config_{i}"]
                fields = {key: group["properties"][key][()] for key in group["properties"]}
                for key, weight in group["property_weights"].items():
                    assert (weight[()] == 0) == isinstance(fields[key], bytes), key
                fields = {key: value for key, value in fields.items() if not isinstance(value, bytes)}
                if "dipole" in fields:
                    assert file.attrs["dipole_units"] == "Debye"
                    fields["dipole"] = fields["dipole"] * units.Debye
                fields["charge"], fields["multiplicity"] = fields.pop("total_charge"), fields.pop("total_spin")
                fields |= {key: group[key][()] for key in ("positions", "cell", "pbc")}
                fields["numbers"] = group["atomic_numbers"][()]
                for key in ("source", "sampler"):
                    fields[key] = json.loads(file.attrs[f"{key}_meanings"])[file.attrs[key][i]]
                out[f"{int(root):016x}"] = _there(fields)
    return out


def _concatenated(path: Path) -> dict[str, Fields]:
    with h5py.File(path) as file:
        columns = {
            f"{group}/{name}": (dataset[()], dict(dataset.attrs))
            for group in file
            for name, dataset in file[group].items()
        }
    starts = columns["structures/atomic_numbers_splits"][0]
    ours = {"atomic_numbers": "numbers", "cells": "cell"}
    out = {}
    for i in range(len(starts) - 1):
        fields: Fields = {}
        for key, (values, about) in columns.items():
            name = key.partition("/")[2]
            if name.endswith(("_splits", "_mask")) or name in ("structure_indices", "split"):
                continue
            atoms = slice(starts[i], starts[i + 1])
            rows = atoms if about.get("axis") == "atom" or name in ("atomic_numbers", "positions", "forces") else i
            value = values[rows]
            if "ancillary_variables" in about:
                there = columns[f"columns/{about['ancillary_variables']}"][0][rows].all()
            else:
                there = columns.get(f"{key}_mask", (np.ones(len(starts), bool), {}))[0][i]
            if there:
                fields[ours.get(name, name)] = json.loads(about["meanings"])[value] if "meanings" in about else value
        out[f"{int(fields.pop('root')):016x}"] = _there(fields)
    return out


def _hdf5(path: Path) -> dict[str, Fields]:
    release = Release(path)
    return of_batch(release.read(None), release.teachers[0])


def _zarr(path: Path) -> dict[str, Fields]:
    """Read the plain Zarr group with xarray, which knows nothing of this package there."""
    data = xr.open_zarr(path).load()
    starts = np.append(0, np.cumsum(data.n_atoms.values))
    masks = {about: name for name, array in data.items() if (about := array.attrs.get("ancillary_variables"))}
    out = {}
    for i, root in enumerate(data.root.values.tolist()):
        fields: Fields = {}
        for name, array in data.items():
            if name in masks or name in ("n_atoms", "root", "content_hash", "split"):
                continue
            rows = slice(starts[i], starts[i + 1]) if array.dims[0] == "atom" else i
            mask = array.attrs.get("ancillary_variables")
            if mask is None or data[mask].values[rows].all():
                value = array.values[rows]
                fields[name] = json.loads(array.attrs["meanings"])[value] if "meanings" in array.attrs else value
        out[f"{root:016x}"] = _there(fields)
    return out


def _parquet(path: Path) -> dict[str, Fields]:
    """Read Parquet with pyarrow; null, and a list with a null in it, is no field."""
    import pyarrow.parquet as pq

    out = {}
    for file in sorted((path / "data").glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            del row["n_atoms"], row["content_hash"]
            root = row.pop("root")
            there = {
                name: value
                for name, value in row.items()
                if value is not None and not (isinstance(value, list) and None in value)
            }
            out[f"{root:016x}"] = _there({name: _plain(value) for name, value in there.items()})
    return out


def _plain(value: Any) -> Any:
    return np.array(value) if isinstance(value, list) else value


_READERS = {
    "parquet": _parquet,
    "extxyz": _extxyz, "aselmdb": _aselmdb, "mace": _mace, "concatenated": _concatenated, "hdf5": _hdf5, "zarr": _zarr
}  # fmt: skip
