"""Chooses the reader of a file and streams its records; every error of a parser names the file and the frame."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from mlffstore.errors import DataError, MlffstoreError
from mlffstore.importing.atompack_file import read_atompack
from mlffstore.importing.comments import PROBLEM
from mlffstore.importing.databases import DATABASES, read_database
from mlffstore.importing.exports.source import export_layout
from mlffstore.importing.frames import cut_frames, parse_frames
from mlffstore.importing.inventions import correct, examine
from mlffstore.importing.layouts import folder_kind, hdf5_kind, is_materials_json
from mlffstore.importing.mace_file import read_mace
from mlffstore.importing.materials import read_materials
from mlffstore.importing.molecules import read_sdf, read_smiles
from mlffstore.importing.nvalchemi_file import read_nvalchemi
from mlffstore.importing.outputs import read_facts
from mlffstore.importing.packed import is_packed, open_binary, plain_name, reading
from mlffstore.importing.parquet_file import read_parquet
from mlffstore.importing.record import Record
from mlffstore.importing.tables.registry import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mlffstore.importing.wording import Wording

_OWN = {
    ".sdf": "sdf", ".sd": "sdf", ".mol": "sdf", ".smi": "smiles", ".smiles": "smiles", ".aselmdb": "db",
    ".npz": "npz", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
    ".atp": "atompack",
}  # fmt: skip
_ALIASES = {"mol": "sdf", "smi": "smiles", "aselmdb": "db", "mptrj": "materials-json"}
_HDF5 = (".h5", ".hdf5", ".hdf")
#: Frames of an extended XYZ file that are cut off in one piece.
_FRAMES = 256
#: Formats without labels in a place that everybody agrees on.
UNLABELLED = ("sdf", "smiles")
#: Formats whose compressed files are read as a stream; others are unpacked into a temporary file first.
STREAMED = ("extxyz", "sdf", "smiles", "materials-json")


def choose_format(path: Path, format: str | None) -> str:
    """Return the format of a file or folder: the one given, one of ours, or what ASE finds it to be.

    Raises
    ------
    DataError
        If nothing knows the format.
    """
    from ase.io.formats import UnknownFileTypeError, filetype

    if format is not None:
        return _ALIASES.get(format, format)
    name = plain_name(path)
    suffix = name.suffix.lower()
    if path.is_dir():
        kind = folder_kind(path)
    elif suffix in _HDF5:
        kind = "hdf5" if is_packed(path) else hdf5_kind(path)
    elif suffix == ".json" and is_materials_json(path):
        kind = "materials-json"
    else:
        kind = _OWN.get(suffix)
        kind = "export" if kind == "parquet" and export_layout(path) is not None else kind
    if kind is None:
        try:
            kind = filetype(str(path))
        except (UnknownFileTypeError, EOFError) as error:
            raise DataError(
                f"{path}: expected a format that ASE knows, a store or release, or one of {', '.join(FORMATS)}, got another "
                f"({error}); name the format if it has one of these"
            ) from error
    return _ALIASES.get(kind, kind)


#: Formats that ASE does not read, or not whole.
FORMATS = (
    "spice",
    "mace-hdf5",
    "nvalchemi",
    "atompack",
    "materials-json",
    "parquet",
    "arrow",
    "sdf",
    "smiles",
    *TABLES,
)


def read_records(
    path: Path,
    format: str,
    *,
    add_hydrogens: bool,
    elements: Sequence[str],
    wording: Wording,
    keys: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Record]:
    """Yield the structures of a file one after the other.

    Parameters
    ----------
    path : Path
    format : str
        As `choose_format` returns it: "sdf", "smiles", "materials-json", or a name of `ase.io`.
    add_hydrogens : bool
        Whether the hydrogens that an SDF or SMILES leaves out are added.
    elements : sequence of str
        Element of each LAMMPS type, or none.
    wording : Wording
    keys : mapping of str to sequence of str, optional
        Names of columns of a table.

    Raises
    ------
    DataError
        If the file cannot be parsed, or what it lacks cannot be known; the message names the file, and the frame if it is
        one.
    """
    if format == "sdf":
        yield from read_sdf(path, add_hydrogens=add_hydrogens)
    elif format == "smiles":
        yield from read_smiles(path, add_hydrogens=add_hydrogens)
    elif format == "mace-hdf5":
        yield from read_mace(path, takes_dipole="dipole" in (keys or {}))
    elif format == "nvalchemi":
        yield from read_nvalchemi(path)
    elif format == "atompack":
        yield from read_atompack(path)
    elif format in ("parquet", "arrow"):
        yield from read_parquet(path, format, keys or {}, wording)
    elif format == "extxyz":
        yield from _read_extxyz(path)
    elif format == "materials-json":
        yield from read_materials(path)
    elif format in DATABASES:
        for record in read_database(path):
            yield correct(record, format)
    else:
        yield from _read_ase(path, format, elements, wording)


def _read_extxyz(path: Path) -> Iterator[Record]:
    for first, texts in frame_pieces(path, _FRAMES):
        yield from frame_records(path, first, texts)


def frame_pieces(path: Path, size: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the frames of an extended XYZ file, compressed or not, as `cut_frames` does.

    Raises
    ------
    DataError
        If the file cannot be read to its end.
    """
    with reading("an extended XYZ file", lambda: str(path)), open_binary(path) as file:
        yield from cut_frames(file, size)


def frame_records(path: Path, first: int, texts: Sequence[bytes]) -> Iterator[Record]:
    """Yield the records of some frames of an extended XYZ file.

    Parameters
    ----------
    path : Path
    first : int
        Number of the first frame.
    texts : sequence of bytes
        See `mlffstore.importing.frames.cut_frames`.

    Raises
    ------
    DataError
        If a frame cannot be parsed.
    """
    count, frames = first, parse_frames(texts)
    while True:
        with _parsing(path, "extxyz", count):
            atoms = next(frames, None)
        if atoms is None:
            return
        problem = atoms.info.pop(PROBLEM, "")
        yield correct(Record(atoms, f"frame {count}", problems=(problem,) if problem else ()), "extxyz")
        count += 1


@contextlib.contextmanager
def _parsing(path: Path, format: str, count: int) -> Iterator[None]:
    """Raise `DataError` for what ASE's parsers raise: whatever a line that they did not expect makes them raise."""
    try:
        yield
    except MlffstoreError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}, frame {count}: expected {format}, got an error while parsing it "
            f"({type(error).__name__}: {error}); repair the file, or name its format"
        ) from error


def _read_ase(path: Path, format: str, elements: Sequence[str], wording: Wording) -> Iterator[Record]:
    import ase.io
    from ase.io.formats import ioformats

    if format not in ioformats:
        raise DataError(f"{path}: expected a format of ase.io, or one of {', '.join(FORMATS)}, got {format!r}")
    with _parsing(path, format, 0):
        facts, output = examine(path, format, elements, wording), read_facts(path, format)
    state = {"charge": output.charge, "multiplicity": output.multiplicity}
    more = dict(facts.more)
    if any(value is not None for value in state.values()):
        more["output"] = {name: value for name, value in state.items() if value is not None}
    notes = facts.warnings + output.warnings
    # A name such as run@2.xyz is a name here, not a range of frames.
    frames = ase.io.iread(
        str(path), index=":", format=format, parallel=False, do_not_split_by_at_sign=True, **facts.options
    )
    count = 0
    while True:
        with _parsing(path, format, count):
            atoms = next(frames, None)
        if atoms is None:
            return
        converged = count not in output.unconverged if count < output.n_loops and output.unconverged else None
        record = Record(
            atoms, f"frame {count}", more=more, converged=converged, problems=output.problems, warnings=notes
        )
        yield correct(record, format)
        count += 1
