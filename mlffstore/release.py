"""Releases: reading the HDF5 files that `mlffstore_exporters.hdf5` writes, and the names that both sides share.

A release holds the labels of one teacher in the groups `train`, `val` and `test`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.batch import SampleBatch, assemble, concatenate
from mlffstore.errors import DataError, FormatError, StoreNotFoundError
from mlffstore.ragged import offsets
from mlffstore.schema import CODED, LABELS, STANDARD, Array, Axis, Column
from mlffstore.splits import SPLITS

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import h5py

#: Value of the root attribute `format`.
FORMAT = "mlffstore-release 1"


class Release:
    """A release file. It is opened anew for every read, so that no handle crosses a fork.

    Parameters
    ----------
    path : path

    Raises
    ------
    StoreNotFoundError
        If there is no file.
    FormatError
        If it is not a release, or one of a newer format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import h5py

        self.path = Path(path)
        if not self.path.is_file():
            raise StoreNotFoundError(f"{self.path}: there is no such file; make one with 'mlffstore export'")
        try:
            with h5py.File(self.path, "r") as file:
                self.attributes: dict[str, Any] = dict(file.attrs)
                self.counts = {split: len(file[split]["n_atoms"]) for split in SPLITS if split in file}
        except (OSError, KeyError) as error:
            raise FormatError(
                f"{self.path}: expected an HDF5 release of mlffstore, got something else ({error})"
            ) from error
        found = str(self.attributes.get("format", ""))
        if found != FORMAT:
            newer = found.startswith("mlffstore-release")
            remedy = "upgrade mlffstore" if newer else "make one with 'mlffstore export'"
            raise FormatError(f"{self.path}: expected the format {FORMAT!r}, got {found!r}; {remedy}")
        self.teacher = str(self.attributes["teacher"])

    def __len__(self) -> int:
        return sum(self.counts.values())

    def n_atoms(self, split: str) -> Array:
        """Return the atoms of each sample of a split, shape (S,), int32."""
        import h5py

        with h5py.File(self.path, "r") as file:
            return np.asarray(file[split]["n_atoms"][...])

    def labels(self) -> set[str]:
        """Return the names of the labels that the file holds."""
        import h5py

        with h5py.File(self.path, "r") as file:
            return {name for name in LABELS for split in self.counts if name in file[split]}

    def blocks(self, split: str, n_samples: int) -> Iterator[SampleBatch]:
        """Yield the samples of a split in order, some at a time: structures, hashes and labels, without user columns."""
        import h5py

        starts = offsets(self.n_atoms(split))
        with h5py.File(self.path, "r") as file:
            group = file[split]
            for low in range(0, self.counts[split], n_samples):
                high = min(low + n_samples, self.counts[split])
                rows = {"sample": slice(low, high), "atom": slice(int(starts[low]), int(starts[high]))}
                columns = {
                    name: group[name][rows[column.axis]] for name, column in STANDARD.items() if name not in CODED
                }
                columns["pbc"] = columns["pbc"].astype(bool)
                labels = {name: group[name][rows[LABELS[name].axis]] for name in LABELS if name in group}
                yield assemble(columns, {self.teacher: labels}, {}, {})

    def read(self, split: str | None) -> SampleBatch:
        """Return all samples of a split (of all splits for None), in the order of the file."""
        if split is None:
            return concatenate([self.read(one) for one in self.counts])
        if split not in self.counts:
            raise DataError(f"split: expected one of {', '.join(self.counts)}, got {split!r}")
        import h5py

        columns: dict[str, Array] = {}
        labels: dict[str, Array] = {}
        user: dict[str, Column] = {}
        vocabulary: dict[str, tuple[str, ...]] = {}
        with h5py.File(self.path, "r") as file:
            for name, dataset in file[split].items():
                if "long_name" not in dataset.attrs:  # a dimension scale
                    continue
                values: Array = dataset[...]
                if name in LABELS:
                    labels[name] = values
                    continue
                columns[name] = values.astype(bool) if name == "pbc" else values
                if name in CODED:
                    vocabulary[name] = tuple(json.loads(dataset.attrs["meanings"]))
                elif name not in STANDARD:
                    user[name] = _user_column(name, dataset)
        ordered = {name: labels[name] for name in LABELS if name in labels}
        return assemble(columns, {self.teacher: ordered}, user, vocabulary)


def _user_column(name: str, dataset: h5py.Dataset) -> Column:
    axis: Axis = "sample" if dataset.attrs["axis"] == "sample" else "atom"
    shape = tuple(dataset.shape[1:])
    inner = tuple(f"{name}_dim{i}" for i in range(1, dataset.ndim))
    return Column(
        name, axis, inner, shape, dataset.dtype.name, str(dataset.attrs["units"]), str(dataset.attrs["long_name"])
    )


def is_release(path: str | os.PathLike[str]) -> bool:
    """Return whether a path looks like a release rather than a store."""
    return Path(path).suffix in (".h5", ".hdf5")
