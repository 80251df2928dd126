"""Finds the layout of files and folders whose names do not say it: HDF5, JSON, npz and folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.errors import DataError
from mlffstore.importing.exports.source import export_layout
from mlffstore.importing.nvalchemi_file import is_nvalchemi
from mlffstore.importing.packed import DAMAGED, open_binary
from mlffstore.release.manifest import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

#: How much of a JSON file is looked at, bytes.
_HEAD_NBYTES = 1 << 16
#: How the format of a release begins.
_RELEASE = "mlffstore-release"
#: Columns that parts of the layouts of HDF5 files have.
_ANI = ({"coordinates"}, {"atomic_numbers", "species"})


def folder_kind(path: Path) -> str | None:
    """Return what a folder is, such as "store", "release", "export", "nvalchemi", "deepmd" or "parquet"; None if unknown."""
    if (path / "zarr.json").is_file() and (path / "_log").is_dir():
        return "store"
    if (path / MANIFEST).is_file():
        return "release"
    if export_layout(path) is not None:
        return "export"
    if is_nvalchemi(path):
        return "nvalchemi"
    if (path / "type.raw").is_file() or next(path.glob("*/type.raw"), None) is not None:
        return "deepmd"
    return "parquet" if next(path.rglob("*.parquet"), None) is not None else None


def hdf5_kind(path: Path) -> str:
    """Return the layout of an HDF5 file: "release", "spice", "ani" or "mace-hdf5".

    Raises
    ------
    DataError
        If it is no HDF5, or has another layout.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if str(file.attrs.get("format", "")).startswith(_RELEASE):
                return "release"
            names = list(file)
            if any(name.startswith("config_batch_") for name in names):
                return "mace-hdf5"
            group = file[names[0]] if names else None
            for _ in range(4):  # ANI-1 nests groups
                if not isinstance(group, h5py.Group):
                    break
                held = set(group)
                if "conformations" in held:
                    return "spice"
                if held >= _ANI[0] and held & _ANI[1]:
                    return "ani"
                group = next((group[name] for name in group), None)
    except DAMAGED as error:
        raise DataError(f"{path}: expected an HDF5 file, got something h5py cannot open ({error})") from error
    raise DataError(
        f"{path}: expected the layout of a release, of SPICE ('conformations' in every group), of ANI ('coordinates' and "
        f"'species' or 'atomic_numbers') or of MACE ('config_batch_0'), got {', '.join(map(repr, names[:3])) or 'nothing'}; "
        "other HDF5 layouts are not read: convert the file to extxyz or an ASE database first"
    )


def is_materials_json(path: Path) -> bool:
    """Return whether a JSON file holds structures as pymatgen writes them, by its first bytes."""
    try:
        with open_binary(path) as file:
            head = file.read(_HEAD_NBYTES)
    except DAMAGED:
        return False
    return b'"@module"' in head and (b"pymatgen" in head or b"emmet" in head)
