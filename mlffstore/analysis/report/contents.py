"""The contents of a report, gathered before they are drawn, so that the HTML and the PDF agree."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.report.charts import charts
from mlffstore.analysis.report.rows import N_RANDOM, N_ROWS, Rows, choose, gather_rows
from mlffstore.analysis.statistics import statistics
from mlffstore.analysis.statistics.embedding import embed
from mlffstore.analysis.validation import validate
from mlffstore.analysis.validation.sample_checks import SAMPLE_CHECKS
from mlffstore.store.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import xarray as xr
    from ase import Atoms

    from mlffstore.analysis.statistics import Statistics
    from mlffstore.analysis.validation import Validation
    from mlffstore.contracts.protocols import Teacher
    from mlffstore.data.schema import Array
    from mlffstore.store.samples import Samples

#: Number of structures of which there are pictures.
N_WORST, N_GALLERY = 12, 60
#: Checks of copies, of which the report has a section.
COPIES = {
    "duplicate": "The structure is in the dataset already, atom for atom.",
    "near_duplicate": "The structure is almost that of another sample.",
    "leakage": "The structure or its seed is in another split too.",
    "near_leakage": "The structure is almost that of a sample of another split.",
    "ideal_leakage": "The structure, ideal or relaxed, is almost that of a sample of another split.",
    "molecule_leakage": "The molecule is in another split too, in another conformation.",
    "host_leakage": "The crystal is in another split too, as it is or with defects or surfaces.",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A structure of which there is a picture: its row, its index, the structure, and a line under it."""

    row: int
    index: int
    atoms: Atoms
    text: str


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that a report shows."""

    title: str
    selection: str
    summary: dict[str, Any]
    validation: Validation
    statistics: Statistics
    reasons: dict[str, int]
    rows: Rows
    charts: list[dict[str, Any]]
    worst: list[Shown]
    gallery: list[Shown]
    copies: dict[str, int]
    disagreement: dict[str, float]
    diversity: dict[str, Any] | None
    provenance: list[dict[str, Any]]


def gather(
    snapshot: Samples,
    provenance: list[dict[str, Any]],
    *,
    title: str,
    policy: Any,
    teacher: Teacher | None,
    seed: int,
    diversity: bool,
) -> Contents:
    """Read a snapshot and compute the contents of its report."""
    ds = snapshot.to_xarray()
    validation = validate(snapshot, policy, teacher=teacher).compute()
    stats = statistics(ds).compute()
    measured: Mapping[str, Array] = validation.flags.data_vars  # type: ignore[assignment]
    worst = _worst(validation)
    points = embed(ds, n_samples=N_RANDOM, seed=seed)
    random = np.random.default_rng(seed).permutation(
        points["sample"].values if len(snapshot) > N_ROWS else len(snapshot)
    )
    spread = _disagreement(ds)
    index = choose(validation, ds, worst, random)
    worst = worst[np.isin(worst, index)]  # there may not be room for all of them
    rows = gather_rows(snapshot, ds, validation, index, spread)
    sentence = _sentences(validation)
    gallery = np.sort(np.searchsorted(index, random[np.isin(random, index)][:N_GALLERY]))
    score = None
    if diversity:
        from mlffstore.analysis.statistics.diversity import diversity as measure

        score = dataclasses.asdict(measure(ds))
    return Contents(
        title=title,
        selection="" if (chosen := snapshot.selected()) is None else f"{len(chosen.snapshot):,} samples, {chosen.question}",
        summary=snapshot.summary(),
        validation=validation,
        statistics=stats,
        reasons=dict(Counter(snapshot.quarantine.reasons()).most_common()) if isinstance(snapshot, Snapshot) else {},
        rows=rows,
        charts=charts(ds, measured, rows, points, spread),
        worst=_shown(rows, np.searchsorted(index, worst), sentence),
        gallery=_shown(rows, gallery, lambda _: ""),
        copies={name: len(validation.failed(name)) for name in COPIES},
        disagreement={} if spread is None else {
            "samples with several teachers": float(np.isfinite(spread).sum()),
            "median of the largest force deviation, eV/Å": float(np.nanmedian(spread)),
            "99 % of samples below, eV/Å": float(np.nanquantile(spread, 0.99)),
        },
        diversity=score,
        provenance=provenance,
    )  # fmt: skip


def _worst(validation: Validation) -> Array:
    """Return the samples with the most and gravest failed checks, then those with the largest forces."""
    flags = validation.flags
    failed = np.zeros(flags.sizes["sample"], np.int64)
    for mask in flags["flags"].attrs["flag_masks"]:
        failed += (flags["flags"].values & mask) != 0
    force = flags["force_max"].values
    force = np.nan_to_num(force).max(axis=1) if force.shape[1] else np.zeros(len(failed))
    order = np.lexsort((-force, -failed, -flags["severity"].values.astype(int)))
    return np.asarray(order[:N_WORST])


def _sentences(validation: Validation) -> Callable[[int], str]:
    flags = validation.flags

    def text(i: int) -> str:
        bits = int(flags["flags"].values[i])
        checks = [name.replace("_", " ") for k, name in enumerate(SAMPLE_CHECKS) if bits >> k & 1]
        force = flags["force_max"].values[i]
        force = force[np.isfinite(force)]
        figures = [f"|F| up to {force.max():.3g} eV/Å"] if len(force) else []
        closest = float(flags["d_min"].values[i])
        figures += [f"closest pair {closest:.2f} Å"] if np.isfinite(closest) else []
        return "; ".join([", ".join(checks) or "fails no check", *figures])

    return text


def _shown(rows: Rows, chosen: Array, sentence: Callable[[int], str]) -> list[Shown]:
    frames = rows.batches[0].structures().take(chosen).to_ase() if len(chosen) else []
    return [
        Shown(int(row), int(rows.index[row]), atoms, sentence(int(rows.index[row])))
        for row, atoms in zip(chosen, frames, strict=True)
    ]


def _disagreement(ds: xr.Dataset) -> Array | None:
    if "forces" not in ds or ds.sizes.get("teacher", 0) < 2:
        return None
    spread = np.asarray(ds.mlff.disagreement()["force_max"])
    return spread if np.isfinite(spread).any() else None
