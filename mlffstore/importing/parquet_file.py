"""Reads Parquet and Arrow: ColabFit, LeMaterial, and any other layout with a mapping, row group by row group.

A mapping names the columns: ``keys={"positions": "pos", "numbers": "z", "energy": "y"}``. Lists of lists are arrays. Rows of
LeMaterial have pymatgen's fields (`lattice_vectors`, `cartesian_site_positions`, `species_at_sites`); those of ColabFit
`atomic_numbers`, `positions`, `cell`, `pbc`, `energy`, `atomic_forces`, `cauchy_stress`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.casting import exactly
from mlffstore.errors import DataError, missing_dependency
from mlffstore.importing.frames import Results
from mlffstore.importing.packed import reading
from mlffstore.importing.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mlffstore.importing.wording import Wording

#: What a row holds -> names of columns in use, of which the first that is there counts.
_STRUCTURE = {
    "numbers": ("numbers", "atomic_numbers", "species", "species_at_sites", "elements_at_sites", "z"),
    "positions": ("positions", "cartesian_site_positions", "coordinates", "pos"),
    "cell": ("cell", "lattice_vectors", "lattice"),
    "pbc": ("pbc",),
}
_RESULTS = {
    "energy": ("energy",),
    "forces": ("forces", "atomic_forces"),
    "stress": ("stress", "cauchy_stress", "stress_tensor"),
    "magmoms": ("magmoms", "magnetic_moments"),
    "dipole": ("dipole",),
    "charges": ("charges",),
}
_GROUPS = ("immutable_id",)


def read_parquet(path: Path, kind: str, keys: Mapping[str, Sequence[str]], wording: Wording) -> Iterator[Record]:
    """Yield the rows of a file, or of all files of a folder, in order.

    Parameters
    ----------
    path : Path
    kind : {"parquet", "arrow"}
    keys : mapping of str to sequence of str
        Names of columns that the caller gave.
    wording : Wording

    Raises
    ------
    DataError
        If a file is damaged, or has no columns for elements and positions.
    MissingDependencyError
        If the package pyarrow is not installed.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    for file in files:
        where = "" if file == path else f"{file.relative_to(path)}, "
        yield from _of_file(file, where, kind, keys, wording)


def _of_file(
    file: Path, where: str, kind: str, keys: Mapping[str, Sequence[str]], wording: Wording
) -> Iterator[Record]:
    try:
        import pyarrow
    except ImportError as error:
        raise missing_dependency("pyarrow", "parquet", "Reading Parquet and Arrow") from error
    number = 0
    what = f"{kind.capitalize()} with structures"
    with reading(what, lambda: f"{file}, row {number}", pyarrow.ArrowException):
        for batch in _batches(file, kind):
            names = _names(file, batch.schema.names, keys, wording)
            for row in batch.to_pylist():
                yield _record(row, names, f"{where}row {number}")
                number += 1


def _batches(path: Path, kind: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "parquet":
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=1024)
        return
    with pa.OSFile(str(path)) as source:
        try:
            reader = pa.ipc.open_file(source)
        except pa.ArrowInvalid:  # Hugging Face's datasets writes streams
            source.seek(0)
            yield from pa.ipc.open_stream(source)
            return
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def _names(path: Path, held: Sequence[str], keys: Mapping[str, Sequence[str]], wording: Wording) -> dict[str, str]:
    """Return which column holds what."""
    out = {}
    for what, names in _STRUCTURE.items():
        name = next((name for name in (*keys.get(what, ()), *names) if name in held), None)
        if name is not None:
            out[what] = name
    for what, names in _RESULTS.items():
        name = next((name for name in names if name in held), None)
        if name is not None and what not in keys:
            out[what] = name
    if not {"numbers", "positions"} <= out.keys():
        raise DataError(
            f"{path}: expected columns for numbers and positions, got {', '.join(held)}; name them with "
            f"{wording.option('keys', {'positions': 'NAME', 'numbers': 'NAME', 'energy': 'NAME'})}"
        )
    return out


def _record(row: Mapping[str, Any], names: Mapping[str, str], where: str) -> Record:
    from ase import Atoms

    taken = set(names.values())
    numbers = row[names["numbers"]]
    positions = np.asarray(row[names["positions"]], np.float64).reshape(-1, 3)
    cell = row.get(names.get("cell", ""))
    pbc = row.get(names.get("pbc", ""))
    cell = None if cell is None else np.asarray(cell, np.float64).reshape(3, 3)
    periodic = exactly("pbc", pbc, "bool", where) if pbc is not None else cell is not None and bool(np.any(cell))
    is_symbols = bool(numbers) and isinstance(numbers[0], str)
    kinds = {"symbols": numbers} if is_symbols else {"numbers": exactly("numbers", numbers, "int64", where)}
    atoms = Atoms(**kinds, positions=positions, cell=cell, pbc=periodic)
    results = {}
    for what in _RESULTS:
        value = row.get(names.get(what, ""))
        if value is not None:
            results[what] = value if what == "energy" else np.asarray(value, np.float64)
    if results:
        atoms.calc = Results(results)
    rest = {name: _plain(value) for name, value in row.items() if name not in taken and value is not None}
    group = next((str(row[name]) for name in _GROUPS if row.get(name)), None)
    return Record(atoms, where, more={"columns": rest}, group=group)


def _plain(value: Any) -> Any:
    """Return lists of numbers as arrays."""
    if isinstance(value, list) and value and not isinstance(value[0], (str, dict)):
        try:
            return np.asarray(value, np.float64) if not isinstance(value[0], int) else np.asarray(value)
        except (TypeError, ValueError):
            return value
    return value
