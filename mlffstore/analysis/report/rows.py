"""The samples that a report lists: which they are, and their figures as the columns of one table.

A report of a large dataset lists some samples: those that fail checks, up to a number per check, and others drawn at random.
Nothing here knows HTML.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.report.kinds import KINDS, formula, kinds
from mlffstore.analysis.validation.sample_checks import SAMPLE_CHECKS
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import LABELS
from mlffstore.data.splits import SPLITS
from mlffstore.store.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from mlffstore.analysis.validation import Validation
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array
    from mlffstore.store.samples import Samples

#: Samples that are drawn at random, that are listed per check and in all, and rejected samples.
N_RANDOM, N_PER_CHECK, N_ROWS, N_REJECTED = 3000, 120, 6000, 400
#: Bytes of the structures in the HTML.
_BUDGET = 8 << 20
#: Columns that are read of the samples.
_READ = (
    "numbers", "positions", "cell", "pbc", "charge", "multiplicity", "content_hash", "root", "source", "sampler",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table of samples.

    Attributes
    ----------
    key, label, unit : str
    kind : {"number", "text", "code", "flags"}
        `code`: values are indices into `words`; `flags`: values are bits that stand for `words`.
    values : list
        One value per row; None where there is none.
    group : str
        Where the details of a sample show it: ``structure``, ``checks``, ``provenance``, or the name of a teacher after
        ``teacher:``.
    words : list of str
    """

    key: str
    label: str
    kind: str
    values: list[Any]
    group: str = "structure"
    unit: str = ""
    words: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the column as plain types."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Rows:
    """Samples of the dataset in order, then rejected ones.

    Attributes
    ----------
    index : ndarray, shape (R,), int64
        Index in the dataset; in the quarantine for rejected samples.
    n_dataset : int
        How many of the rows are samples of the dataset.
    batches : list of SampleBatch
        The samples of the dataset, and the rejected ones.
    columns : list of Column
    """

    index: Array
    n_dataset: int
    batches: list[SampleBatch]
    columns: list[Column]

    def column(self, key: str) -> Column:
        """Return a column by its key."""
        return next(column for column in self.columns if column.key == key)


def choose(validation: Validation, ds: xr.Dataset, worst: Array, random: Array) -> Array:
    """Return the indices of the samples that are listed, in order, shape (R,).

    Parameters
    ----------
    validation : Validation
    ds : Dataset
    worst, random : ndarray of int
        Samples that are listed in any case, and those that are listed as far as there is room.
    """
    keys = {name: np.asarray(ds[name]) for name in ("content_hash", "root") if name in ds}
    wanted = [worst]
    for finding in validation.findings:
        failed = validation.failed(finding.check)
        key = keys.get("root" if finding.check == "leakage" else "content_hash")
        if key is not None and finding.check in ("leakage", "duplicate"):  # those of one structure side by side
            failed = failed[np.argsort(key[failed], kind="stable")]
        wanted.append(failed[:N_PER_CHECK])
        if finding.check == "duplicate" and key is not None:
            wanted.append(np.flatnonzero(np.isin(key, key[failed[:N_PER_CHECK]]))[: 2 * N_PER_CHECK])
    order = np.concatenate([*wanted, random])
    order = order[np.sort(np.unique(order, return_index=True)[1])][:N_ROWS]
    per_atom = 4 / 3 * (7 + 6 * ds.sizes.get("teacher", 0))
    nbytes = np.cumsum(np.asarray(ds["n_atoms"])[order] * per_atom)
    return np.sort(order[: max(int(np.searchsorted(nbytes, _BUDGET)), 1)])


def gather_rows(snapshot: Samples, ds: xr.Dataset, validation: Validation, index: Array, spread: Array | None) -> Rows:
    """Read samples and those of the quarantine, and return their table."""
    labels = [name for name in LABELS if name in ds]
    batch = snapshot.read(index, columns=[*_READ, *labels])
    rejected, reasons, at = _rejected(snapshot)
    batches = [batch, *([rejected] if rejected is not None else [])]
    columns = [
        *_identity(index, at, batches),
        *([_coded("reason", "reason of the rejection", [*[None] * len(index), *reasons])] if reasons else []),
        *_figures(validation, index, len(at)),
        *_labels(snapshot.teachers, batch, validation, index, len(at)),
        *_provenance(snapshot, ds, batches, index, len(at)),
    ]
    if spread is not None:
        values = [*plain(spread[index]), *[None] * len(at)]
        columns.append(Column("spread", "disagreement of forces", "number", values, "checks", "eV/Å"))
    return Rows(np.concatenate([index, at]), len(index), batches, columns)


def _rejected(snapshot: Samples) -> tuple[SampleBatch | None, list[str], Array]:
    """Return some rejected samples, as many of each reason as there is room for, their reasons, and their indices."""
    if not isinstance(snapshot, Snapshot) or not snapshot.n_quarantined:
        return None, [], np.zeros(0, np.int64)
    reasons = np.array(snapshot.quarantine.reasons(), object)
    several = [np.flatnonzero(reasons == reason) for reason in dict.fromkeys(reasons)]
    most = max(N_REJECTED // len(several), 1)
    index = np.sort(np.concatenate([one[:most] for one in several])[:N_REJECTED])
    return snapshot.quarantine.read(index, columns=_READ), list(reasons[index]), index


def _identity(index: Array, at: Array, batches: list[SampleBatch]) -> list[Column]:
    pbc = np.concatenate([batch.columns["pbc"] for batch in batches]).sum(axis=1)
    periodic = np.where(pbc == 0, 0, np.where(pbc == 3, 1, 2)).tolist()
    n_atoms = np.concatenate([batch.columns["n_atoms"] for batch in batches])
    numbers = np.concatenate([batch.columns["numbers"] for batch in batches])
    starts = offsets(n_atoms)
    sets = [*[0] * len(index), *[1] * len(at)]
    return [
        Column("index", "sample", "number", [*index.tolist(), *at.tolist()]),
        Column("set", "set", "code", sets, words=("dataset", "quarantine")),
        Column("formula", "formula", "text", [formula(numbers[a:b]) for a, b in pairwise(starts)]),
        Column("n_atoms", "atoms", "number", n_atoms.tolist()),
        Column("kind", "kind", "code", kinds(numbers, starts).tolist(), words=KINDS),
        Column("periodic", "periodic", "code", periodic, words=("molecule", "periodic", "partly periodic")),
    ]


def _figures(validation: Validation, index: Array, n_rejected: int) -> list[Column]:
    flags, missing = validation.flags, [None] * n_rejected

    def number(name: str, label: str, unit: str) -> Column:
        return Column(name, label, "number", [*plain(flags[name].values[index]), *missing], "structure", unit)

    severity = [*flags["severity"].values[index].tolist(), *missing]
    bits = [*flags["flags"].values[index].tolist(), *missing]
    return [
        number("d_min", "closest pair", "Å"),
        number("contact", "closest pair over covalent radii", ""),
        number("volume_per_atom", "volume per atom", "Å³"),
        Column("severity", "severity", "code", severity, "checks", words=("fine", "warning", "error")),
        Column("flags", "failed checks", "flags", bits, "checks", words=SAMPLE_CHECKS),
    ]


def _labels(
    teachers: Sequence[str], batch: SampleBatch, validation: Validation, index: Array, n_rejected: int
) -> list[Column]:
    out = []
    missing = [None] * n_rejected
    flags, n_atoms = validation.flags, batch.columns["n_atoms"]
    for t, teacher in enumerate(teachers):
        labels = batch.labels.get(teacher, {})
        figures = [
            ("energy", "energy", "eV", labels.get("energy")),
            ("energy_per_atom", "energy per atom", "eV", labels["energy"] / n_atoms if "energy" in labels else None),
            *(
                (name, label, unit, flags[name].values[index, t])
                for name, label, unit in (
                    ("energy_residual", "energy per atom above the elements", "eV"),
                    ("force_max", "largest |F|", "eV/Å"),
                    ("net_force", "net force per atom", "eV/Å"),
                    ("net_torque", "net torque per atom", "eV"),
                    ("stress_max", "largest stress component", "eV/Å³"),
                )
            ),
        ]
        if "stress" in labels:
            figures.append(("pressure", "pressure", "eV/Å³", -labels["stress"][:, :3].mean(axis=1)))
        for name, label, unit, values in figures:
            if values is None or not np.isfinite(values).any():
                continue
            digits = 12 if name == "energy" else 7
            column = [*plain(values, digits), *missing]
            out.append(Column(f"{name}:{teacher}", f"{label}, {teacher}", "number", column, f"teacher:{teacher}", unit))
    return out


def _provenance(
    snapshot: Samples, ds: xr.Dataset, batches: list[SampleBatch], index: Array, n_rejected: int
) -> list[Column]:
    out = []
    missing = [None] * n_rejected
    if "split" in ds:
        split = [*np.asarray(ds["split"])[index].tolist(), *missing]
        out.append(Column("split", "split", "code", split, "provenance", words=SPLITS))
    for name in ("sampler", "source"):
        names = [batch.vocabulary[name][code] for batch in batches for code in batch.columns[name]]
        out.append(_coded(name, name, names))
    for name, label in (("root", "root"), ("content_hash", "content hash")):
        values = [f"{int(one):016x}" for batch in batches for one in batch.columns[name]]
        out.append(Column(name, label, "text", values, "provenance"))
    for name in ("charge", "multiplicity"):
        whole = [int(one) for batch in batches for one in batch.columns[name]]
        out.append(Column(name, name, "number", whole, "structure"))
    out.append(_coded("segment", "segment", [*snapshot.files_of(index), *missing]))
    return out


def _coded(key: str, label: str, names: Sequence[str | None]) -> Column:
    words = sorted({name for name in names if name is not None})
    code = {name: i for i, name in enumerate(words)}
    return Column(
        key, label, "code", [None if name is None else code[name] for name in names], "provenance", words=tuple(words)
    )


def plain(values: Array, digits: int = 7) -> list[float | None]:
    """Return numbers for JSON with so many significant digits; None where they are not finite."""
    return [float(f"{one:.{digits}g}") if np.isfinite(one) else None for one in np.asarray(values, np.float64)]
