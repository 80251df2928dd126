"""Reads releases: HDF5 files with one teacher's labels in the groups `train`, `val` and `test`.

`mlffstore_exporters.hdf5` writes them. What both sides must agree on is here: names, versions, and which samples and
labels of a snapshot a release holds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.batch import SampleBatch, assemble, concatenate, normalise_indices
from mlffstore.errors import CorruptionError, DataError, FormatError, StorageError, StoreNotFoundError
from mlffstore.ragged import offsets
from mlffstore.schema import CODED, INNER_SIZES, LABELS, STANDARD, USER_DTYPES, Column
from mlffstore.splits import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import h5py
    import numpy.typing as npt

    from mlffstore.ragged import Ints
    from mlffstore.schema import Array
    from mlffstore.snapshot import Snapshot

#: The root attribute `format` is this word, a blank, and the format version.
FORMAT = "mlffstore-release"
RELEASE_VERSION = 1
SUFFIXES = (".h5", ".hdf5")
#: Root attributes that hold JSON.
JSON_ATTRIBUTES = ("teacher_info", "splits", "counts", "provenance")
#: Dimensions of the schema; each is a dimension scale in every group, the inner ones with these coordinates.
COORDINATES = {"vector": "a b c".split(), "xyz": "x y z".split(), "voigt": "xx yy zz yz xz xy".split()}
DIMENSIONS = ("sample", "atom", *INNER_SIZES)
#: Attribute of a boolean column, which lies in the file as int8 because netCDF has no booleans (xarray's convention).
BOOL_ATTRIBUTE = {"dtype": "bool"}
#: Attribute with the exact strings of a coded column; CF `flag_meanings` cannot hold blanks.
MEANINGS = "meanings"

#: Samples and atoms that are read at once: enough for speed, little enough for any machine.
BLOCK_SAMPLES, BLOCK_ATOMS = 4096, 1 << 20
#: DEFLATE never shrinks more than 1032 times (zlib's technical notes), so a file that claims more is damaged or hostile.
_MAX_RATIO = 1032


def blocks(n_atoms: Array) -> Iterator[slice]:
    """Cut samples into blocks of at most `BLOCK_SAMPLES` samples and, where one sample is not more, `BLOCK_ATOMS` atoms.

    Examples
    --------
    >>> list(blocks(np.array([1, 2_000_000, 3])))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    starts = offsets(n_atoms)
    begin = 0
    while begin < len(n_atoms):
        full = int(np.searchsorted(starts, starts[begin] + BLOCK_ATOMS, side="right")) - 1
        stop = max(begin + 1, min(full, begin + BLOCK_SAMPLES))
        yield slice(begin, stop)
        begin = stop


def released_labels(snapshot: Snapshot, teacher: str, indices: Ints) -> tuple[str, ...]:
    """Return the labels that `teacher` gave to at least one of the samples at `indices`, in the order of the schema.

    A stress that applies to no sample is thus no column, in a release as in training.
    """
    found = []
    for name in LABELS:
        for start in range(0, len(indices), BLOCK_SAMPLES):
            batch = snapshot.read(indices[start : start + BLOCK_SAMPLES], teacher=teacher, columns=[name])
            values = batch.labels.get(teacher, {}).get(name)
            if values is not None and not np.isnan(values).all():
                found.append(name)
                break
    return tuple(found)


class Release:
    """A release file, read as samples.

    The file is opened for each call and closed again, so that a `Release` can be pickled and used after a fork.

    Parameters
    ----------
    path : str or path
        An HDF5 file that `mlffstore_exporters.hdf5.export_hdf5` wrote.

    Attributes
    ----------
    path : Path
    attributes : dict
        Root attributes: title, version, store, software, provenance, ...; those that hold JSON are decoded.
    teacher : str
        Whose labels these are.
    counts : dict of str to int
        Samples in each split.

    Raises
    ------
    StoreNotFoundError
        If there is no such file.
    FormatError
        If it is not a release, or of a later format version.

    Examples
    --------
    >>> release = Release("lithium-1.0.0.h5")  # doctest: +SKIP
    >>> release.read("train", [0, 5]).energy  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._open() as file:
            self.attributes = _attributes(file, self.path)
            self.teacher: str = self.attributes["teacher"]
            self.counts = {split: len(_n_atoms(_group(file, split))) for split in SPLITS}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.counts)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {n:,}" for split, n in self.counts.items())
        return f"<Release {self.path}: {counts}; teacher {self.teacher}>"

    def read(self, split: str | None, indices: npt.ArrayLike | None = None) -> SampleBatch:
        """Read samples into memory.

        Parameters
        ----------
        split : {"train", "val", "test"} or None
            None for one after another.
        indices : array_like of int or boolean mask, optional
            Positions in the split, in any order, duplicates allowed; everything by default. The span from the first to
            the last is read.

        Returns
        -------
        SampleBatch
            In request order, with the labels under the teacher's name. Labels that a sample lacks are NaN.

        Raises
        ------
        DataError
            If there is no such split.
        IndexError
            If an index is outside.
        FormatError, CorruptionError
            If the file is not what a release is; damaged bytes are never returned as data.
        """
        if split is None:
            whole = concatenate([self.read(name) for name in SPLITS])
            return whole if indices is None else whole.take(indices)
        if split not in SPLITS:
            raise DataError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        n = self.counts[split]
        with self._open() as file:
            if indices is None:
                return self._span(file, split, 0, n)
            index = np.asarray(indices)
            if index.dtype == bool and index.shape == (n,):
                index = np.flatnonzero(index)
            index = normalise_indices(index, n)
            low, high = (int(index.min()), int(index.max()) + 1) if len(index) else (0, 0)
            return self._span(file, split, low, high).take(index - low)

    def _span(self, file: h5py.File, split: str, low: int, high: int) -> SampleBatch:
        """Read the samples from `low` to `high`."""
        group = _group(file, split)
        counts = _n_atoms(group)
        starts = offsets(counts)
        sizes = {"sample": len(counts), "atom": int(starts[-1])}
        spans = {"sample": slice(low, high), "atom": slice(int(starts[low]), int(starts[high]))}
        columns: dict[str, Array] = {}
        labels: dict[str, Array] = {}
        user: dict[str, Column] = {}
        vocabulary: dict[str, tuple[str, ...]] = {}
        for name in (name for name in group if name not in DIMENSIONS and not _is_scale(group, name)):
            dataset = _dataset(group, name)
            spec = (STANDARD | LABELS).get(name) or _user_column(dataset, name)
            _check_column(dataset, spec, sizes[spec.axis])
            values = dataset[spans[spec.axis]]
            if spec.dtype == "bool":
                values = values.astype(bool)
            if name in CODED:
                vocabulary[name] = tuple(str(word) for word in np.atleast_1d(dataset.attrs.get(MEANINGS, ())))
                if len(values) and int(values.max()) >= len(vocabulary[name]):
                    raise CorruptionError(f"{_where(dataset)}: a code without a meaning; the file is damaged")
            if name in LABELS:
                labels[name] = values
            else:
                columns[name] = values
                if name not in STANDARD:
                    user[name] = spec
        missing = set(STANDARD) - set(columns)
        if missing or "energy" not in labels:
            raise FormatError(
                f"{_where(group)}: expected every column of a release, {', '.join(sorted(missing) or ['energy'])} not "
                "found; the file is damaged: restore it or export it again"
            )
        ordered = {name: labels[name] for name in LABELS if name in labels}
        return assemble(columns, {self.teacher: ordered}, user, vocabulary)

    def _open(self) -> h5py.File:
        import h5py

        if not self.path.is_file():
            raise StoreNotFoundError(f"{self.path}: there is no such file; check the path")
        if not h5py.is_hdf5(self.path):
            raise FormatError(
                f"{self.path}: expected an HDF5 file, got something else; check the path, or export the release again"
            )
        try:
            return _File(self.path)
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be opened ({error}); if it was cut short on its way here, copy it again"
            ) from error


def _File(path: Path) -> h5py.File:  # noqa: N802 - stands for the class
    import h5py

    # Releases never change once they have their name, so a file system without locks is no obstacle.
    return h5py.File(path, "r", locking="best-effort")


def _where(node: h5py.Group | h5py.Dataset) -> str:
    return f"{node.file.filename}{node.name}"


def _attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    """Return the root attributes after checking that this is a release that we can read."""
    word, _, version = str(file.attrs.get("format", "")).partition(" ")
    if word != FORMAT or not version.isdecimal() or "teacher" not in file.attrs:
        raise FormatError(
            f"{path}: is HDF5 but not a release (its attribute 'format' is not '{FORMAT} {RELEASE_VERSION}'); "
            "write releases with ml.export_release(...), and read other HDF5 files with h5py or xarray"
        )
    if int(version) > RELEASE_VERSION:
        raise FormatError(
            f"{path}: has release format {version}, this release of mlffstore reads up to {RELEASE_VERSION}; "
            "upgrade mlffstore"
        )
    out = {}
    for name, value in file.attrs.items():
        try:
            out[name] = json.loads(value) if name in JSON_ATTRIBUTES else getattr(value, "tolist", lambda v=value: v)()
        except (ValueError, RecursionError) as error:
            raise FormatError(
                f"{path}: attribute {name!r}: expected JSON, got {error}; the file is damaged, export it again"
            ) from error
    return out


def _group(file: h5py.File, name: str) -> h5py.Group:
    import h5py

    # A link to another file would make us read outside the release.
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Group):
        raise FormatError(f"{file.filename}: expected the group {name!r}; the file is damaged, export it again")
    return file[name]


def _is_scale(group: h5py.Group, name: str) -> bool:
    import h5py

    node = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    return isinstance(node, h5py.Dataset) and node.is_scale


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of the file itself of which every byte is there: HDF5 reads a missing chunk as zeros."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], h5py.Dataset):
        raise FormatError(f"{_where(group)}: expected the column {name!r}; the file is damaged, export it again")
    dataset = group[name]
    if dataset.external or dataset.is_virtual:
        raise FormatError(f"{_where(dataset)}: its data lie in another file, which no release does; do not trust it")
    if dataset.chunks is None:
        whole = dataset.id.get_storage_size() == dataset.nbytes
    else:
        grid = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
        whole = dataset.id.get_num_chunks() == int(np.prod(grid, dtype=object))
    size = os.path.getsize(group.file.filename)
    if not whole or dataset.nbytes > _MAX_RATIO * size:
        raise CorruptionError(f"{_where(dataset)}: a part of the data is missing; restore the file or export it again")
    return dataset


def _n_atoms(group: h5py.Group) -> Array:
    dataset = _dataset(group, "n_atoms")
    _check_column(dataset, STANDARD["n_atoms"], len(dataset))
    counts: Array = dataset[:]
    if len(counts) and counts.min() < 1:
        raise CorruptionError(f"{_where(dataset)}: expected at least one atom a sample; the file is damaged")
    return counts


def _check_column(dataset: h5py.Dataset, spec: Column, rows: int) -> None:
    expected = {"int8"} if spec.dtype == "bool" else {spec.dtype}
    if spec.name == "positions":
        expected = {"float32", "float64"}
    if dataset.shape != (rows, *spec.shape) or dataset.dtype.name not in expected:
        raise FormatError(
            f"{_where(dataset)}: expected {' or '.join(sorted(expected))} of shape {(rows, *spec.shape)}, got "
            f"{dataset.dtype} of shape {dataset.shape}; the file is damaged: restore it or export it again"
        )


def _user_column(dataset: h5py.Dataset, name: str) -> Column:
    """Return the description of a user column from the dimensions and attributes that it has in the file."""
    dims: Sequence[str] = [dim[0].name.rsplit("/", 1)[-1] if len(dim) else "" for dim in dataset.dims]
    dtype = "bool" if dataset.attrs.get("dtype") == "bool" else dataset.dtype.name
    if not dims or dims[0] not in ("sample", "atom") or dtype not in USER_DTYPES:
        raise FormatError(f"{_where(dataset)}: expected a numeric column of samples or atoms; export the release again")
    unit, about = (str(dataset.attrs.get(key, default)) for key, default in (("units", "1"), ("long_name", name)))
    axis = "sample" if dims[0] == "sample" else "atom"
    return Column(name, axis, tuple(dims[1:]), tuple(dataset.shape[1:]), dtype, unit, about)  # type: ignore[arg-type]
