"""Chooses the reader of a file and streams its records; every error of a parser names the file and the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.errors import DataError, MlffstoreError
from mlffstore.importing.molecules import read_sdf, read_smiles
from mlffstore.importing.record import Record
from mlffstore.importing.spice import read_spice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OWN = {".h5": "spice", ".hdf5": "spice", ".sdf": "sdf", ".mol": "sdf", ".smi": "smiles", ".smiles": "smiles"}
#: Formats without labels in a place that everybody agrees on.
UNLABELLED = ("sdf", "smiles")


def choose_format(path: Path, format: str | None) -> str | None:
    """Return the format of a file: the one given, one of ours by the name, or None for ASE to find out."""
    given = {"mol": "sdf", "smi": "smiles"}.get(format or "", format)
    return given or _OWN.get(path.suffix.lower())


def read_records(path: Path, format: str | None, *, add_hydrogens: bool) -> Iterator[Record]:
    """Yield the structures of a file one after the other.

    Parameters
    ----------
    path : Path
    format : str or None
        As `choose_format` returns it: "spice", "sdf", "smiles", or a name of `ase.io`.
    add_hydrogens : bool
        Whether the hydrogens that an SDF or SMILES leaves out are added.

    Raises
    ------
    DataError
        If the file cannot be parsed; the message names it and the frame.
    """
    if format == "spice":
        yield from read_spice(path)
    elif format == "sdf":
        yield from read_sdf(path, add_hydrogens=add_hydrogens)
    elif format == "smiles":
        yield from read_smiles(path, add_hydrogens=add_hydrogens)
    else:
        yield from _read_ase(path, format)


def _read_ase(path: Path, format: str | None) -> Iterator[Record]:
    import ase.io

    # A name such as run@2.xyz is a name here, not a range of frames.
    frames = ase.io.iread(str(path), index=":", format=format, parallel=False, do_not_split_by_at_sign=True)
    count = 0
    while True:
        try:
            atoms = next(frames, None)
        except MlffstoreError:
            raise
        except Exception as error:  # ASE's parsers raise whatever a line that they did not expect makes them raise
            raise DataError(
                f"{path}, frame {count}: expected {format or 'a file that ASE can read'}, got an error while parsing it "
                f"({type(error).__name__}: {error}); repair the file, or name its format with format=..."
            ) from error
        if atoms is None:
            return
        yield Record(atoms, f"frame {count}")
        count += 1
