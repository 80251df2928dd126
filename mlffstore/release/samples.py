"""`ReleaseSamples`: the samples of a release, read and chosen from as those of a store are."""

from __future__ import annotations

import json
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data import ragged
from mlffstore.data.concatenation import concatenate
from mlffstore.data.labels import choose_teacher
from mlffstore.data.properties import find_property
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import STANDARD, split_key
from mlffstore.data.splits import SPLITS
from mlffstore.data.vocabulary import merge_words, translate
from mlffstore.errors import DataError
from mlffstore.release.manifest import MANIFEST, read_manifest
from mlffstore.release.parts import columns_of, sizes_of, spans, steps_of, strings_of, values_of
from mlffstore.release.reading import Release, is_release
from mlffstore.store.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.properties import Property
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Axis, Column
    from mlffstore.release.reading import Part

__all__ = ["ReleaseSamples", "is_release", "open_release"]


def open_release(path: str | os.PathLike[str]) -> ReleaseSamples:
    """Return the samples of a release, in the order of its splits.

    Parameters
    ----------
    path : path
        The folder of a release, or a file of one (``.h5``).

    Raises
    ------
    StoreNotFoundError
        If there is none.
    FormatError
        If it is not a release, or one of a newer format.
    """
    return ReleaseSamples(Release(path))


class ReleaseSamples(Samples):
    """The samples of a release: those of train, val and test one after another.

    It validates, exports, trains and is chosen from as a snapshot of a store. Made by `open_release`. Files are opened for
    every read.
    """

    def __init__(self, release: Release) -> None:
        self.release = release
        self.store_uuid = str(release.attributes["store_uuid"])
        self.version = int(release.attributes["store_version"])
        self.digest = f"release {release.key()}"
        self.parts = release.parts()
        self._starts = offsets([part.n_samples for part in self.parts])

    def __reduce__(self) -> tuple[Any, ...]:
        return (open_release, (os.path.abspath(self.release.path),))

    # -- description -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"<ReleaseSamples of {self.url}: {len(self):,} samples, {', '.join(self.teachers)}>"

    @property
    def url(self) -> str:
        """Where the release is."""
        return str(self.release.path)

    @property
    def precision(self) -> str:
        """dtype of the positions."""
        return str(self.release.attributes.get("precision", "float32"))

    @property
    def settings(self) -> dict[str, Any]:
        """Split fractions and seed of the store that it was cut from."""
        return self.release.settings

    @property
    def n_atoms(self) -> int:
        """Atoms of all samples together."""
        return int(self.sizes.sum(dtype=np.int64))

    @cached_property
    def sizes(self) -> Array:
        """Number of atoms of each sample, shape (S,), int32; read once."""
        parts = [sizes_of(part) for part in self.parts]
        return np.concatenate([np.zeros(0, np.int32), *parts])

    @property
    def nbytes_on_disk(self) -> int | None:
        """Bytes of the HDF5 files."""
        return sum(path.stat().st_size for path in self.release.paths)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers whose labels there are."""
        return self.release.teachers

    def teacher_info(self, teacher: str) -> dict[str, Any]:
        """Return what is on record of a teacher."""
        name = choose_teacher(self.teachers, teacher)
        info = _json(self.release.attributes.get("teacher_info", "{}"))
        info = info if len(self.teachers) == 1 else info.get(name, {})
        return dict(info) if isinstance(info, dict) else {}

    @property
    def properties(self) -> dict[str, Property]:
        """The properties that some teacher gave, by name."""
        quantities = (column.quantity for column in self.label_columns().values())
        return {spec.name: spec for spec in quantities if spec is not None}

    @cached_property
    def _described(self) -> tuple[dict[str, Column], dict[str, str]]:
        """Labels and user columns by their names in a store, and the masks of user columns."""
        return columns_of(self.release)

    @property
    def user_columns(self) -> dict[str, Column]:
        """The user columns."""
        return {name: column for name, column in self._described[0].items() if column.quantity is None}

    def label_columns(self) -> dict[str, Column]:
        """Return the columns of labels by the names that a store has for them, such as ``energy.orb-v2``."""
        return {name: column for name, column in self._described[0].items() if column.quantity is not None}

    def mask_names(self) -> dict[str, str]:
        """Return the user columns that some sample may lack, each with the name of its mask."""
        return dict(self._described[1])

    def vocabulary(self, name: str) -> tuple[str, ...]:
        """Return the strings of a coded column, in order of appearance."""
        return merge_words(strings_of(part, name) for part in self.parts) or ("",)

    def provenance(self) -> list[dict[str, Any]]:
        """Return the provenance of the samples, as the files have it."""
        entries = _json(self.release.attributes.get("provenance", "[]"))
        return [dict(entry) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []

    def selection_record(self) -> dict[str, Any] | None:
        """See `Samples.selection_record`."""
        record = _json(self.release.attributes.get("selection", "null"))
        kinds = {"samples": int, "of": int, "question": str, "steps": list, "report": dict}
        whole = isinstance(record, dict) and all(isinstance(record.get(name), kind) for name, kind in kinds.items())
        return dict(record) if whole else None

    def rounding(self) -> dict[str, float]:
        """See `Samples.rounding`."""
        return steps_of(self.release)

    def committed(self) -> str:
        """Return when the version of the store was committed, as the manifest has it; of a file alone, nothing."""
        folder = self.release.path if self.release.path.is_dir() else self.release.path.parent
        if (folder / MANIFEST).is_file():
            return str(read_manifest(folder).get("store", {}).get("committed", ""))
        return ""

    # -- reading -------------------------------------------------------------------------------------------------

    def read(
        self,
        indices: npt.ArrayLike | slice | None = None,
        *,
        teacher: str | Sequence[str] | None = None,
        columns: Iterable[str] | None = None,
    ) -> SampleBatch:
        """Read samples into memory; see `Samples.read`."""
        index = self.as_indices(indices)
        wanted = None if columns is None else {"n_atoms", *columns}
        known = {*STANDARD, *self.user_columns, *(split_key(key)[0] for key in self.label_columns())}
        if wanted is not None and (unknown := {name for name in wanted - known if find_property(name) is None}):
            raise DataError(f"columns: expected some of {', '.join(sorted(known))}, got {sorted(unknown)}")
        names = self.teachers if teacher is None else [teacher] if isinstance(teacher, str) else teacher
        chosen = tuple(choose_teacher(self.teachers, name) for name in names)
        order = np.argsort(index, kind="stable")
        batches = []
        for part, rows in self._divide(index[order]):
            for span, some, _ in spans(rows):
                batch = self.release.read_rows(part, span, chosen, wanted)
                batches.append(batch.take(some - span.start))
        if not batches:
            part = self.parts[0]
            return self.release.read_rows(part, slice(0, 0), chosen, wanted)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        joined = concatenate(batches)
        return joined if np.array_equal(back, np.arange(len(back))) else joined.take(back)

    def _divide(self, index: Ints) -> list[tuple[Part, Ints]]:
        """Return the samples of each part that holds some of them, ascending, as rows of the part."""
        cuts = np.searchsorted(index, self._starts)
        return [
            (part, index[cuts[k] : cuts[k + 1]] - self._starts[k])
            for k, part in enumerate(self.parts)
            if cuts[k + 1] > cuts[k]
        ]

    def rows(self) -> ReleaseRows:
        """Return the rows of the columns."""
        return ReleaseRows(self)

    def holds(self, key: str) -> Array:
        """Return which samples may have values of a column: all, if the files have it."""
        return np.full(len(self), key in STANDARD or key in self._described[0])

    def files_of(self, indices: Ints) -> list[str]:
        """Return the name of the file that holds each of some samples."""
        return [self.parts[k].path.name for k in np.searchsorted(self._starts, indices, side="right") - 1]

    def split_codes(self) -> npt.NDArray[np.uint8]:
        """Return the split of every sample, shape (S,)."""
        codes = np.array([SPLITS.index(part.split) for part in self.parts], np.uint8)
        return np.repeat(codes, np.diff(self._starts))

    def roots(self) -> npt.NDArray[np.uint64]:
        """Return the root of every sample, shape (S,)."""
        return self.rows().read("root", STANDARD["root"], np.arange(len(self)))


class ReleaseRows:
    """Rows of the columns of a release: those of its parts one after another; see `mlffstore.store.rows.ColumnRows`."""

    def __init__(self, samples: ReleaseSamples) -> None:
        self.samples = samples
        sizes = samples.sizes
        ends = offsets([part.n_samples for part in samples.parts])
        self.starts: dict[Axis, Ints] = {"sample": ends, "atom": offsets(sizes)[ends]}

    def __reduce__(self) -> tuple[Any, ...]:
        return (ReleaseRows, (self.samples,))

    @property
    def sizes(self) -> Mapping[Axis, int]:
        """Rows along "sample" and along "atom"."""
        return {axis: int(starts[-1]) for axis, starts in self.starts.items()}

    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return sizes of chunks of whole samples."""
        return ragged.cut(self.samples.sizes)

    def read(self, key: str, column: Column, index: Ints) -> Array:
        """Return rows of a column; NaN or 0 where there is no value."""
        missing: Any = np.nan if np.dtype(column.dtype).kind == "f" else 0
        out = np.full((len(index), *column.shape), missing, column.dtype)
        name = self.samples.release.stored_name(key)
        for part, rows, places in self._divide(column.axis, index):
            values = values_of(part, name, rows)
            if values is not None:
                out[places] = values
        return out

    def read_codes(self, key: str, column: Column, index: Ints, vocabulary: tuple[str, ...]) -> Array:
        """Return rows of a coded column as codes of a vocabulary that has all of its strings."""
        out = np.zeros(len(index), np.uint32)
        for part, rows, places in self._divide(column.axis, index):
            values = values_of(part, key, rows)
            if values is not None:
                words = strings_of(part, key)
                out[places] = translate(values, words, vocabulary, f"{part.path}/{part.split}/{key}")
        return out

    def read_mask(self, column: Column, index: Ints) -> Array:
        """Return which rows of a user column have a value, bool."""
        out = np.ones(len(index), bool)
        mask = self.samples.mask_names().get(column.name)
        if mask is not None:
            for part, rows, places in self._divide(column.axis, index):
                values = values_of(part, mask, rows)
                out[places] = False if values is None else values.astype(bool)
        return out

    def read_splits(self, index: Ints) -> Array:
        """Return the splits of samples, uint8."""
        return self.samples.split_codes()[index]

    def _divide(self, axis: Axis, index: Ints) -> list[tuple[Part, Ints, Ints]]:
        """Return, for each part that holds some rows, these rows in the part and their places in the answer."""
        owner = np.searchsorted(self.starts[axis], index, side="right") - 1
        out = []
        for k in np.unique(owner).tolist():
            places = np.flatnonzero(owner == k)
            out.append((self.samples.parts[k], index[places] - self.starts[axis][k], places))
        return out


def _json(text: object) -> Any:
    """Return a JSON document of a file's attributes; nothing if it is none."""
    try:
        return json.loads(str(text))
    except (ValueError, RecursionError):
        return {}
