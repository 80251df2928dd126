"""`ExportSource`: a plain export of this library that samples are read from, with teachers, roots, splits and columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from mlffstore.data.schema import check_teacher_name
from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError
from mlffstore.importing.digests import sha256_of
from mlffstore.importing.exports.atompack import blocks_of_atompack
from mlffstore.importing.exports.deepmd import blocks_of_deepmd
from mlffstore.importing.exports.nvalchemi import blocks_of_nvalchemi
from mlffstore.importing.exports.parquet import attributes_of_parquet, blocks_of_parquet, is_parquet_export
from mlffstore.importing.exports.sidecar import read_sidecar
from mlffstore.importing.exports.zarr import FORMAT, attributes_of_zarr, blocks_of_zarr
from mlffstore.importing.origin import Origin, teachers_of, trimmed, uses_of
from mlffstore.importing.samples import ReadSamples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

    #: Path, teachers and samples at a time -> samples and the split of each.
    Blocks = Callable[[Path, tuple[str, ...], int], Iterator[tuple[SampleBatch, Array]]]

#: Attributes that the log of the target keeps.
_KEPT = ("store_uuid", "store_version", "selection", "software", "format")


class _Layout(NamedTuple):
    """How a layout of an export is read."""

    attributes: Callable[[Path], dict[str, Any]]
    blocks: Blocks


_LAYOUTS = {
    "zarr": _Layout(attributes_of_zarr, blocks_of_zarr),
    "parquet": _Layout(attributes_of_parquet, blocks_of_parquet),
    "deepmd": _Layout(read_sidecar, blocks_of_deepmd),
    "nvalchemi": _Layout(read_sidecar, blocks_of_nvalchemi),
    "atompack": _Layout(read_sidecar, blocks_of_atompack),
}


def export_layout(path: Path) -> str | None:
    """Return the layout of an export of this library at a path, such as "zarr"; None if it is none."""
    if path.is_dir() and (path / "zarr.json").is_file():
        try:
            document = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
            return "zarr" if str(document["attributes"]["format"]).startswith(FORMAT) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
    layout = read_sidecar(path).get("format") if path.is_dir() else None
    if layout is not None:
        name = str(layout).removeprefix("mlffstore-").partition(" ")[0]
        return name if name in _LAYOUTS else None
    return "parquet" if is_parquet_export(path) else None


class ExportSource:
    """An export of this library.

    Parameters
    ----------
    path : Path

    Raises
    ------
    DataError
        If it is none, or what it says of itself is damaged.
    """

    def __init__(self, path: Path) -> None:
        layout = export_layout(path)
        if layout is None:
            raise DataError(f"{path}: expected an export of mlffstore ({', '.join(_LAYOUTS)}), got something else")
        self._path, self._layout = path, _LAYOUTS[layout]
        attributes = self._layout.attributes(path)
        try:
            self._teachers = tuple(check_teacher_name(name) for name in json.loads(attributes["teachers"]))
            settings = json.loads(attributes["settings"])
            fractions = {split: float(settings["splits"][split]) for split in SPLITS}
            settings = {"splits": fractions, "split_seed": int(settings["split_seed"])}
            teachers = teachers_of(attributes, self._teachers)
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}: expected the names of teachers and the settings of the store that the export is from, got "
                f"something else ({type(error).__name__}: {error}); the file is damaged"
            ) from error
        if not self._teachers:
            raise DataError(f"{path}: expected at least one teacher, got none; the file is damaged")
        note = {"export": {"layout": layout, **{name: attributes[name] for name in _KEPT if name in attributes}}}
        precision = str(attributes.get("precision", "float32"))
        self.origin = Origin(sha256_of(path), settings, precision, teachers, note)

    def blocks(self, n_samples: int) -> Iterator[ReadSamples]:
        """Yield the samples, in the order of the files."""
        start = 0
        for batch, splits in self._layout.blocks(self._path, self._teachers, n_samples):
            places = [f"sample {i}" for i in range(start, start + len(batch))]
            start += len(batch)
            yield ReadSamples(trimmed(batch), places, splits=splits, **uses_of(batch))
