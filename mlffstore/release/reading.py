"""Reading the HDF5 files of a release, one or several shards.

A file holds the labels of one teacher, or of several as columns ``energy.NAME`` and so on, in the groups `train`, `val` and
`test`. `mlffstore_exporters.hdf5` writes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlffstore.data.batch import SampleBatch, assemble
from mlffstore.data.concatenation import concatenate
from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import TRUTH, present
from mlffstore.data.properties import Axis, ordered
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import CODED, STANDARD, Array, Column, label_key, split_key
from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError, FormatError, MlffstoreError, StoreNotFoundError, problems_message
from mlffstore.release import gate
from mlffstore.release.labels import property_in
from mlffstore.release.manifest import MANIFEST, read_manifest
from mlffstore.runtime.paths import local_path

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    import h5py

    from mlffstore.data.properties import Property

#: Value of the root attribute `format`.
FORMAT = "mlffstore-release 1"
_REMEDY = "make one with 'mlffstore export'"


class Part(NamedTuple):
    """The samples of one split in one file."""

    path: Path
    split: str
    n_samples: int


class Release:
    """A release file, or the folder of a release with its files.

    Files are opened for every read, so that no handle crosses a fork.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    paths : list of Path
        The HDF5 files.
    attributes : dict
        Root attributes of the first file.
    teachers : tuple of str
    counts : dict of str to int
        Samples of each split.

    Raises
    ------
    StoreNotFoundError
        If there is no file.
    FormatError
        If it is not a release, or one of a newer format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = local_path(path)
        if self.path.is_dir():
            paths = [self.path / name for name in read_manifest(self.path)["files"] if name.endswith(".h5")]
        else:
            paths = [self.path]
        self._read(paths)

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Release:
        """Return the release of some files, without a manifest."""
        out = cls.__new__(cls)
        out.path = paths[0]
        out._read(paths)
        return out

    def _read(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        contents = [_open(path) for path in self.paths]
        if not contents:
            raise FormatError(f"{self.path}: expected HDF5 files in the manifest, got none; {_REMEDY}")
        self.attributes: dict[str, Any] = contents[0][0]
        self._counts = [counts for _, counts in contents]
        self.counts = {split: sum(counts.get(split, 0) for counts in self._counts) for split in SPLITS}
        self.counts = {split: n for split, n in self.counts.items() if any(split in counts for counts in self._counts)}
        listed = self.attributes.get("teachers")
        self.teachers: tuple[str, ...] = (
            (str(self.attributes["teacher"]),) if listed is None else tuple(json.loads(listed))
        )

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def settings(self) -> dict[str, Any]:
        """Split fractions and seed of the store."""
        return dict(json.loads(self.attributes["settings"]))

    def key(self) -> str:
        """Return what names the content: the digests that the files carry, or else those of the files.

        Sizes and times of change are part of it, so that a file that was edited has another key.
        """
        files = [(path, path.stat()) for path in self.paths]
        return " ".join(f"{_digest(path)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in files)

    def parts(self) -> list[Part]:
        """Return the splits of all files: train of each file, then val, then test."""
        return [
            Part(path, split, counts[split])
            for split in self.counts
            for path, counts in zip(self.paths, self._counts, strict=True)
            if split in counts
        ]

    def n_atoms(self, split: str) -> Array:
        """Return the atoms of each sample of a split, shape (S,), int32."""
        return self._whole(split, gate.atoms_per_sample)

    def column(self, split: str, name: str) -> Array:
        """Return a whole column of a split, by its name in the file."""

        def read(group: h5py.Group) -> Array:
            if name not in group or "axis" not in group[name].attrs:
                raise DataError(f"{group.name}: expected a column of the file, got {name!r}")
            return np.asarray(group[name][...])

        return self._whole(split, read)

    def _whole(self, split: str, read: Callable[[h5py.Group], Array]) -> Array:
        """Return what is read of a split in each file, one after another."""
        import h5py

        parts = []
        for path, counts in zip(self.paths, self._counts, strict=True):
            if split in counts:
                with told(path), h5py.File(path, "r") as file:
                    parts.append(read(file[split]))
        return np.concatenate(parts)

    def labels(self, teacher: str | None = None) -> set[str]:
        """Return the names of the labels that the files hold of a teacher."""
        import h5py

        teacher_name = choose_teacher(self.teachers, teacher)
        out = set()
        for path in self.paths:
            with told(path), h5py.File(path, "r") as file:
                for group in (file[split] for split in file):
                    out |= {spec.name for name, spec in labels_of(group).items()
                            if name == self._stored(spec.name, teacher_name)}  # fmt: skip
        return out

    def blocks(
        self, split: str, n_samples: int, teacher: str | None = None, *, everything: bool = False
    ) -> Iterator[SampleBatch]:
        """Yield the samples of a split in order, some at a time.

        Parameters
        ----------
        split : str
        n_samples : int
        teacher : str, optional
            Teacher whose labels are read. By default the labels of all teachers are read.
        everything : bool, optional
            Whether to read also where samples come from (`source`, `sampler`), and user columns.
        """
        import h5py

        teacher_names = self.teachers if teacher is None else (choose_teacher(self.teachers, teacher),)
        for path, counts in zip(self.paths, self._counts, strict=True):
            if not counts.get(split):
                continue
            with told(path), h5py.File(path, "r") as file:
                group = file[split]
                starts = offsets(gate.atoms_per_sample(group))
                for low in range(0, counts[split], n_samples):
                    high = min(low + n_samples, counts[split])
                    rows = {"sample": slice(low, high), "atom": slice(int(starts[low]), int(starts[high]))}
                    yield self._batch(group, rows, teacher_names, everything)

    def read_rows(
        self, part: Part, samples: slice, teacher_names: tuple[str, ...], wanted: Collection[str] | None
    ) -> SampleBatch:
        """Return some samples of a part that lie one after another, with all columns or those that are wanted.

        Parameters
        ----------
        part : Part
        samples : slice
        teacher_names : tuple of str
        wanted : collection of str, or None
            Names of standard columns, properties and user columns; None for all.
        """
        import h5py

        with told(part.path), h5py.File(part.path, "r") as file:
            group = file[part.split]
            starts = offsets(gate.atoms_per_sample(group))
            rows = {"sample": samples, "atom": slice(int(starts[samples.start]), int(starts[samples.stop]))}
            return self._batch(group, rows, teacher_names, True, wanted)

    def stored_name(self, key: str) -> str:
        """Return the name that a column of a store, such as ``energy.orb-v2``, has in the files."""
        name, teacher = split_key(key)
        return key if teacher is None else self._stored(name, teacher)

    def read(self, split: str | None, teacher: str | None = None) -> SampleBatch:
        """Return all samples of a split (of all splits for None), in the order of the files."""
        if split is not None and split not in self.counts:
            raise DataError(f"split: expected one of {', '.join(self.counts)}, got {split!r}")
        wanted = self.counts if split is None else [split]
        size = max(len(self), 1)
        return concatenate([batch for split in wanted for batch in self.blocks(split, size, teacher, everything=True)])

    def _stored(self, name: str, teacher: str) -> str:
        return name if len(self.teachers) == 1 else label_key(name, teacher)

    def _batch(
        self,
        group: h5py.Group,
        rows: dict[str, slice],
        teacher_names: tuple[str, ...],
        everything: bool,
        wanted: Collection[str] | None = None,
    ) -> SampleBatch:
        columns: dict[str, Array] = {}
        user: dict[str, Column] = {}
        vocabulary: dict[str, tuple[str, ...]] = {}
        masks: dict[str, Array] = {}
        masked = {str(dataset.attrs["ancillary_variables"]): name for name, dataset in group.items()
                  if everything and "ancillary_variables" in dataset.attrs}  # fmt: skip
        found = labels_of(group)
        for name, dataset in group.items():
            if "axis" not in dataset.attrs or name in found:  # a dimension scale, a label
                continue
            if wanted is not None and masked.get(name, name) not in wanted:
                continue
            if name in masked:
                mask = present(dataset[rows[dataset.attrs["axis"]]].astype(bool))
                masks |= {} if mask is None else {masked[name]: mask}
                continue
            if name not in STANDARD or name in CODED:
                if not everything:
                    continue
                if name in CODED:
                    vocabulary[name] = gate.strings(dataset)
                else:
                    user[name] = user_column_of(name, dataset)
                    if user[name].coded:
                        vocabulary[name] = gate.strings(dataset)
            values: Array = dataset[rows[dataset.attrs["axis"]]]
            columns[name] = values.astype(bool) if _is_truth(dataset) else values
            if name in vocabulary and len(values) and int(values.max()) >= len(vocabulary[name]):
                raise DataError(f"{dataset.name}: a code without a meaning; the file is damaged")
        missing = [name for name in STANDARD if name not in columns and (everything or name not in CODED)
                   and (wanted is None or name in wanted)]  # fmt: skip
        if missing:
            raise DataError(f"{group.name}: expected the columns {', '.join(missing)}, got none; the file is damaged")
        labels = {
            teacher_name: {
                spec.name: group[name][rows[spec.axis]]
                for name, spec in found.items()
                if name == self._stored(spec.name, teacher_name) and (wanted is None or spec.name in wanted)
            }
            for teacher_name in teacher_names
        }
        labels = {teacher: {name: named[name] for name in ordered(named)} for teacher, named in labels.items()}
        properties = {spec.name: spec for spec in found.values() if not spec.built_in}
        return assemble(columns, labels, user, vocabulary, masks=masks, properties=properties)


def labels_of(group: h5py.Group) -> dict[str, Property]:
    """Return the datasets of a group that are labels, each with its property."""
    found = {name: property_in(name, dataset) for name, dataset in group.items() if "axis" in dataset.attrs}
    return {name: spec for name, spec in found.items() if spec is not None}


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Raise `DataError` for whatever error a damaged file leads to: h5py raises whatever the HDF5 library comes upon."""
    try:
        yield
    except MlffstoreError:
        raise
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error}); the file is damaged") from error


def _open(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the root attributes of a file and the samples of each split."""
    import h5py

    if not path.is_file():
        raise StoreNotFoundError(f"{path}: there is no such file; {_REMEDY}")
    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
            file_format = str(attributes.get("format", ""))
            wrong = list(gate.problems(file)) if file_format == FORMAT else []
            counts = {} if wrong or file_format != FORMAT else {s: len(file[s]["n_atoms"]) for s in SPLITS if s in file}
    except (
        Exception
    ) as error:  # the HDF5 library and h5py raise whatever a file that they did not expect makes them raise
        raise FormatError(f"{path}: expected an HDF5 release of mlffstore, got something else ({error})") from error
    if file_format != FORMAT:
        remedy = "upgrade mlffstore" if file_format.startswith("mlffstore-release") else _REMEDY
        raise FormatError(f"{path}: expected the format {FORMAT!r}, got {file_format[:60]!r}; {remedy}")
    if wrong:
        raise FormatError(problems_message(f"{path}: this is not the layout of a release; get the file again:", wrong))
    return attributes, counts


def _digest(path: Path) -> str:
    import h5py

    with told(path), h5py.File(path, "r") as file:
        known = file.attrs.get("content_sha256")
    if known is not None:
        return str(known)
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _is_truth(dataset: h5py.Dataset) -> bool:
    """Return whether a column is one of booleans, which HDF5 and netCDF-4 keep as numbers."""
    return str(dataset.attrs.get("flag_meanings")) == TRUTH


def user_column_of(name: str, dataset: h5py.Dataset) -> Column:
    """Return the user column that a dataset holds."""
    axis: Axis = "sample" if dataset.attrs["axis"] == "sample" else "atom"
    shape, dtype = tuple(dataset.shape[1:]), "bool" if _is_truth(dataset) else dataset.dtype.name
    inner = tuple(f"{name}_dim{i}" for i in range(1, dataset.ndim))
    return Column(name, axis, inner, shape, dtype, str(dataset.attrs["units"]), str(dataset.attrs["long_name"]),
                  coded="meanings" in dataset.attrs)  # fmt: skip


def is_release(path: str | os.PathLike[str]) -> bool:
    """Return whether a path looks like a release rather than a store."""
    path = local_path(path)
    return path.suffix in (".h5", ".hdf5") or (path / MANIFEST).is_file()
