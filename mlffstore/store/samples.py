"""`Samples`: what snapshots, selections and releases have in common, and `Selection`: some samples of one of them.

Whatever reads, validates, exports, converts or trains takes `Samples`, so that it need not know which of them it was given.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.casting import integer
from mlffstore.data.schema import split_key
from mlffstore.errors import DataError
from mlffstore.runtime.words import counted
from mlffstore.store.question import Step, words
from mlffstore.store.readable import ReadableSamples
from mlffstore.store.rows import ChosenRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt
    import pyarrow as pa
    import xarray as xr

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.properties import Property
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Column
    from mlffstore.store.rows import ColumnRows


class Samples(ReadableSamples):
    """Samples in a fixed order that never change, which can be read, converted, and chosen from.

    A snapshot, a selection, or the samples of a release.
    """

    _table: tuple[str, pa.Table] | None = None

    def selected(self) -> Selection | None:
        """Return the selection, if the samples are one."""
        return None

    def selection_record(self) -> dict[str, Any] | None:
        """Return what chose the samples, as plain types; of a release, what its samples had been chosen by; None for all."""
        selection = self.selected()
        return None if selection is None else selection.to_json()

    def rounding(self) -> dict[str, float]:
        """Return the steps to whose multiples labels were rounded before, by their on-disk names."""
        return {}

    def to_xarray(self, *, chunks: Any = (), teachers: str | Sequence[str] | None = None) -> xr.Dataset:
        """Return the samples as a lazy `xarray.Dataset` with the accessor ``.mlff``.

        Parameters
        ----------
        chunks : optional
            As in `xarray.Dataset.chunk`. The default is dask chunks of whole samples; None gives a Dataset without dask.
        teachers : str or sequence of str, optional
            Names of the teachers whose labels are variables; all by default.
        """
        from mlffstore.lazy.dataset import dataset

        out = dataset(self, teachers)
        if chunks is None:
            return out
        preferred: dict[Any, Any] = {}
        for variable in out.variables.values():
            preferred |= variable.encoding.get("preferred_chunks", {})
        # Dask would otherwise find names for the variables by pickling each, and open the store again for each.
        token = f"{self.store_uuid} {self.digest} {teachers}"
        return out.chunk(preferred if chunks == () else chunks, token=token)

    # -- choosing ------------------------------------------------------------------------------------------------

    def table(self) -> pa.Table:
        """Return one row per sample: composition, size, periodicity, origin, figures of the labels, user columns.

        It is computed in one pass over the samples, in which Dask decides where the blocks run, and kept in the cache
        folder under the digest of the version. See docs/reference/table.md for the columns and their units; a figure that
        a sample lacks is null.

        Returns
        -------
        pyarrow.Table
            In the order of the samples. The column `sample` has their indices in the snapshot or release.

        Raises
        ------
        MissingDependencyError
            If pyarrow is not installed.
        """
        chosen = self.selected()
        if chosen is not None:
            return chosen.snapshot.table().take(chosen.indices)
        from mlffstore.lazy.table import table

        if self._table is None or self._table[0] != self.digest:
            self._table = self.digest, table(self)
        return self._table[1]

    def select(
        self,
        where: str | None = None,
        *,
        order_by: str | None = None,
        limit: int | None = None,
        sample: int | None = None,
        seed: int | None = 0,
    ) -> Selection:
        """Choose samples by a question over `table`.

        Parameters
        ----------
        where : str, optional
            A condition in SQL, as DuckDB reads it, such as ``n_atoms < 50 and list_contains(elements, 'Li')``. A column
            whose name has a dot is quoted: ``"max_force.orb-v2" < 10``; the name of the teacher may be left out if there is
            only one. Subqueries may refer to the whole table as ``samples``. The query can read nothing else.
        order_by : str, optional
            Expressions in SQL, such as ``max_force desc, n_atoms``. Missing values come last. The order of the samples by
            default.
        limit : int, optional
            Number of samples that are kept of these, at most.
        sample : int, optional
            Number of samples that are drawn at random from those that meet the condition, before they are sorted and cut.
        seed : int, optional
            Seed of the draw. None draws a seed too, which is kept in the steps, so that the choice can be made again.

        Returns
        -------
        Selection

        Raises
        ------
        DataError
            If the condition or the order cannot be understood.
        MissingDependencyError
            If DuckDB or pyarrow is not installed.
        """
        from mlffstore.lazy.query import choose

        seed = _checked_seed(seed)
        chosen = choose(self.table(), where, order_by=order_by, limit=limit, sample=sample, seed=seed)
        options = {
            "where": where,
            "order_by": order_by,
            "limit": limit,
            "sample": sample,
            "seed": seed if sample else None,
        }
        return self.take(chosen, Step("select", {name: value for name, value in options.items() if value is not None}))

    def take(self, indices: npt.ArrayLike | slice, step: Step | None = None) -> Selection:
        """Choose samples by their indices, in this order.

        Parameters
        ----------
        indices : array_like of int, boolean mask or slice
            Each sample at most once.
        step : Step, optional
            What chose them, for the record.

        Raises
        ------
        DataError
            If a sample is named twice.
        IndexError
            If an index is outside.
        """
        index = self.as_indices(indices)
        return Selection(self, index, (Step("take", {"samples": len(index)}) if step is None else step,))

    def diverse(self, n: int, *, method: str = "auto", seed: int | None = 0, progress: Any = None) -> Selection:
        """Choose samples that differ as much as possible from each other.

        Parameters
        ----------
        n : int
            Number of samples.
        method : {"auto", "farthest", "direct"}, optional
            Farthest-point selection, or DIRECT: clusters in principal coordinates, and the sample nearest to the middle of
            each. By default farthest-point selection of up to 20,000 samples.
        seed : int, optional
            Seed of the environments by which the coverage is measured; None draws one.
        progress : callable, optional
            It is called with the number of samples described so far and the number of all samples.

        Returns
        -------
        Selection
            In the order of the samples; its `report` says how much of the environments is covered.
        """
        from mlffstore.analysis.choosing.choose import diverse

        seed = _checked_seed(seed)
        chosen, report = diverse(self, n, method=method, seed=seed, progress=progress)
        step = Step("diverse", {"n": n, "method": report["method"], "seed": seed})
        return self.take(chosen, step).with_report(report)

    def cover(self, threshold: float, *, seed: int | None = 0, progress: Any = None) -> Selection:
        """Choose as few samples as cover the atomic environments of all.

        Parameters
        ----------
        threshold : float
            An environment is covered if its differential entropy with respect to the environments of the chosen samples is
            at most this, in nats (arXiv:2511.10561, arXiv:2404.12367). Larger thresholds keep fewer samples.
        seed : int, optional
            Seed of the environments by which the coverage is measured; None draws one.
        progress : callable, optional
            It is called with the number of samples described so far and the number of all samples.

        Returns
        -------
        Selection
            In the order of the samples; its `report` says how much of the environments is covered.
        """
        from mlffstore.analysis.choosing.choose import cover

        seed = _checked_seed(seed)
        chosen, report = cover(self, threshold, seed=seed, progress=progress)
        return self.take(chosen, Step("cover", {"threshold": threshold, "seed": seed})).with_report(report)

    def without_near_duplicates(self, tolerance: float = 1e-4, *, seed: int | None = 0) -> Selection:
        """Leave out samples that equal an earlier one, or nearly.

        Parameters
        ----------
        tolerance : float, optional
            Relative difference up to which the shapes of two structures of one composition agree. The default is that of the
            check `near_duplicate` of the validation: the same but for rotation, order of the atoms and rounding.
        seed : int, optional
            Seed of the environments by which the coverage is measured; None draws one.

        Returns
        -------
        Selection
            In the order of the samples; its `report` says how many were left out, and how much of the environments is
            covered.
        """
        from mlffstore.analysis.choosing.choose import without_near_duplicates

        chosen, report = without_near_duplicates(self, tolerance, seed=_checked_seed(seed))
        return self.take(chosen, Step("without_near_duplicates", {"tolerance": tolerance})).with_report(report)


def _checked_seed(seed: int | None) -> int:
    """Return a seed for `numpy.random.default_rng`; one that is drawn if there is none."""
    if seed is None:
        return int(np.random.default_rng().integers(2**32))
    return integer("seed", seed, "an integer that is not negative, or None to draw one", least=0)


class Selection(Samples):
    """Some samples of a snapshot or of a release, with what chose them: `Samples.select` and the like make it.

    It is immutable, can be pickled, and reads, validates, exports and trains as its snapshot does.

    Attributes
    ----------
    snapshot : Samples
        The snapshot, or the samples of the release.
    indices : ndarray, shape (S,), int64
        Indices of the samples in `snapshot`, in the order of the selection, each once.
    steps : tuple of Step
        What chose them, step by step.
    report : mapping
        What a choice by structure found: the coverage that is kept. Empty for others.

    Examples
    --------
    >>> hot = snap.select("max_force > 5", order_by="max_force desc", limit=100)  # doctest: +SKIP
    >>> hot.question, hot[0], hot.read()  # doctest: +SKIP
    """

    snapshot: Samples
    indices: Ints
    steps: tuple[Step, ...]

    def __init__(
        self, samples: Samples, indices: Ints, steps: tuple[Step, ...], report: Mapping[str, Any] | None = None
    ) -> None:
        base = samples.selected()
        self.snapshot = samples if base is None else base.snapshot
        self.indices = np.array(indices if base is None else base.indices[indices], np.int64)
        if len(np.unique(self.indices)) != len(self.indices):
            raise DataError("indices: expected each sample at most once, got some of them twice")
        self.indices.flags.writeable = False
        self.steps = steps if base is None else (*base.steps, *steps)
        self.report: Mapping[str, Any] = dict(report or {})
        self.store_uuid, self.version = self.snapshot.store_uuid, self.snapshot.version
        content = hashlib.sha256(self.indices.astype("<i8").tobytes()).hexdigest()[:32]
        self.digest = f"{self.snapshot.digest} selection {content}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Selection, (self.snapshot, self.indices, self.steps, dict(self.report)))

    def with_report(self, report: Mapping[str, Any]) -> Selection:
        """Return the same selection with a report of what it covers."""
        return Selection(self.snapshot, self.indices, self.steps, report)

    def selected(self) -> Selection | None:
        """Return itself."""
        return self

    def rounding(self) -> dict[str, float]:
        """See `Samples.rounding`."""
        return self.snapshot.rounding()

    # -- description -------------------------------------------------------------------------------------------

    @property
    def question(self) -> str:
        """What chose the samples, in words."""
        return words(self.steps)

    def to_json(self) -> dict[str, Any]:
        """Return what was chosen from what, as plain types; what a release made from the selection says."""
        return {
            "samples": len(self), "of": len(self.snapshot), "question": self.question,
            "steps": [step.to_json() for step in self.steps], "report": dict(self.report),
        }  # fmt: skip

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return (
            f"<Selection of {self.url} at version {self.version}: {counted(len(self), 'sample')} of "
            f"{len(self.snapshot):,}, {self.question}>"
        )

    @property
    def url(self) -> str:
        """Where the store or the release is."""
        return self.snapshot.url

    @property
    def precision(self) -> str:
        """dtype of the stored positions."""
        return self.snapshot.precision

    @property
    def settings(self) -> dict[str, Any]:
        """Split fractions and seed of the store."""
        return self.snapshot.settings

    @property
    def n_atoms(self) -> int:
        """Atoms of all samples together."""
        return self.rows().sizes["atom"]

    @property
    def nbytes_on_disk(self) -> int | None:
        """None: a selection has no files of its own."""
        return None

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers that may have labelled some of the samples."""
        held = {split_key(key)[1] for key in self.label_columns()}
        return tuple(teacher for teacher in self.snapshot.teachers if teacher in held)

    def teacher_info(self, teacher: str) -> dict[str, Any]:
        """Return what is on record of a teacher."""
        return self.snapshot.teacher_info(teacher)

    @property
    def properties(self) -> dict[str, Property]:
        """The properties that some teacher gave, by name."""
        held = {split_key(key)[0] for key in self.label_columns()}
        return {name: spec for name, spec in self.snapshot.properties.items() if name in held}

    @property
    def user_columns(self) -> dict[str, Column]:
        """The user columns."""
        return self.snapshot.user_columns

    def label_columns(self) -> dict[str, Column]:
        """Return the columns of labels that some of the samples may have, by their on-disk names."""
        columns = self.snapshot.label_columns()
        return {key: column for key, column in columns.items() if self.holds(key).any()}

    def mask_names(self) -> dict[str, str]:
        """Return the user columns that some sample may lack, each with the name of its mask."""
        return self.snapshot.mask_names()

    def vocabulary(self, name: str) -> tuple[str, ...]:
        """Return the strings of a coded column."""
        return self.snapshot.vocabulary(name)

    def provenance(self) -> list[dict[str, Any]]:
        """Return the provenance of the commits up to the version, oldest first."""
        return self.snapshot.provenance()

    def committed(self) -> str:
        """Return when the version was committed, ISO 8601, UTC."""
        return self.snapshot.committed()

    # -- reading -------------------------------------------------------------------------------------------------

    def read(
        self,
        indices: npt.ArrayLike | slice | None = None,
        *,
        teacher: str | Sequence[str] | None = None,
        columns: Iterable[str] | None = None,
    ) -> SampleBatch:
        """Read samples into memory; `indices` are those in the selection. See `Samples.read`."""
        return self.snapshot.read(self.indices[self.as_indices(indices)], teacher=teacher, columns=columns)

    def rows(self) -> ColumnRows:
        """Return the rows of the columns."""
        return ChosenRows(self.snapshot.rows(), self.indices)

    def holds(self, key: str) -> Array:
        """Return which samples may have values of a column, shape (S,), bool."""
        return np.asarray(self.snapshot.holds(key)[self.indices])

    def files_of(self, indices: Ints) -> list[str]:
        """Return the name of the file that holds each of some samples."""
        return self.snapshot.files_of(self.indices[indices])

    def split_codes(self) -> npt.NDArray[np.uint8]:
        """Return the split of every sample, shape (S,)."""
        return self.snapshot.split_codes()[self.indices]

    def roots(self) -> npt.NDArray[np.uint64]:
        """Return the root of every sample, shape (S,)."""
        return self.snapshot.roots()[self.indices]
