"""The contents of a report, gathered before they are drawn, so that the HTML and the PDF agree."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.statistics import statistics
from mlffstore.analysis.statistics.embedding import embed
from mlffstore.analysis.validation import validate
from mlffstore.analysis.validation.sample_checks import SAMPLE_CHECKS
from mlffstore.data.splits import SPLITS
from mlffstore.lazy import plots as plotting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import xarray as xr
    from ase import Atoms

    from mlffstore.analysis.statistics import Statistics
    from mlffstore.analysis.validation import Validation
    from mlffstore.contracts.protocols import Teacher
    from mlffstore.data.schema import Array
    from mlffstore.store.snapshot import Snapshot

#: Number of structures that are shown.
N_WORST, N_GALLERY = 10, 100


@dataclass(frozen=True, slots=True)
class Shown:
    """A structure that is shown: its index, the structure, and a line under it."""

    index: int
    atoms: Atoms
    text: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure: a name, a title, and the function that draws it into matplotlib's axes."""

    name: str
    title: str
    draw: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that a report shows."""

    title: str
    summary: dict[str, Any]
    validation: Validation
    statistics: Statistics
    quarantine: dict[str, int]
    figures: list[Figure]
    worst: list[Shown]
    gallery: list[Shown]
    copies: dict[str, int]
    disagreement: dict[str, float]
    diversity: dict[str, Any] | None
    provenance: list[dict[str, Any]]


def gather(
    snapshot: Snapshot,
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
    rng = np.random.default_rng(seed)
    n = len(snapshot)
    some = np.sort(rng.permutation(n)[:N_GALLERY])
    worst = _worst(validation)
    frames = _frames(ds, np.concatenate([worst, some]))
    sentence = _sentences(validation)
    spread = _disagreement(ds)
    score = None
    if diversity:
        from mlffstore.analysis.statistics.diversity import diversity as measure

        score = dataclasses.asdict(measure(ds))
    return Contents(
        title=title,
        summary=snapshot.summary(),
        validation=validation,
        statistics=stats,
        quarantine=dict(Counter(snapshot.quarantine.reasons()).most_common()) if snapshot.n_quarantined else {},
        figures=_figures(ds, measured, stats, spread),
        worst=[Shown(int(i), frames[k], sentence(int(i))) for k, i in enumerate(worst)],
        gallery=[Shown(int(i), frames[len(worst) + k], "") for k, i in enumerate(some)],
        copies={name: len(validation.failed(name)) for name in
                ("duplicate", "near_duplicate", "leakage", "near_leakage", "molecule_leakage")},
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
    for i in range(len(SAMPLE_CHECKS)):
        failed += (flags["flags"].values >> np.uint32(i)) & np.uint32(1)
    force = flags["force_max"].values
    force = np.nan_to_num(force).max(axis=1) if force.shape[1] else np.zeros(len(failed))
    order = np.lexsort((-force, -failed, -flags["severity"].values.astype(int)))
    return np.asarray(order[:N_WORST])


def _sentences(validation: Validation) -> Callable[[int], str]:
    flags = validation.flags

    def text(i: int) -> str:
        bits = int(flags["flags"].values[i])
        checks = [name for k, name in enumerate(SAMPLE_CHECKS) if bits >> k & 1]
        force = flags["force_max"].values[i]
        force = force[np.isfinite(force)]
        figures = [f"|F| up to {force.max():.3g} eV/Å"] if len(force) else []
        closest = float(flags["d_min"].values[i])
        figures += [f"closest pair {closest:.2f} Å"] if np.isfinite(closest) else []
        return "; ".join([", ".join(checks) or "nothing failed", *figures])

    return text


def _frames(ds: xr.Dataset, index: Array) -> list[Atoms]:
    structure = ["n_atoms", "numbers", "positions", "cell", "pbc", "charge", "multiplicity"]
    return list(ds[structure].mlff.isel(index).mlff.to_ase()) if len(index) else []


def _disagreement(ds: xr.Dataset) -> Array | None:
    if "forces" not in ds or ds.sizes.get("teacher", 0) < 2:
        return None
    spread = np.asarray(ds.mlff.disagreement()["force_max"])
    return spread if np.isfinite(spread).any() else None


def _figures(ds: xr.Dataset, measured: Mapping[str, Array], stats: Statistics, spread: Array | None) -> list[Figure]:
    small = ds[[name for name in ("n_atoms", "sampler", "split", "pbc", "energy", "stress") if name in ds]].compute()
    by = {"sampler": plotting.words(small["sampler"]), "split": _splits(small)}
    size = small["n_atoms"].values.astype(float)
    out = []

    def histograms(name: str, title: str, values: Array, label: str, *, log: bool) -> None:
        for what, groups in by.items():
            chosen = {key: values[mask] for key, mask in groups.items()}
            out.append(
                Figure(
                    f"{name}-by-{what}", f"{title}, by {what}",
                    partial(_draw_histogram, groups=chosen, label=label, log=log),
                )
            )  # fmt: skip

    histograms("size", "Atoms per sample", size, "atoms", log=False)
    for t, teacher in enumerate(stats.teachers):
        residual = np.asarray(measured["energy_residual"])[:, t]
        histograms(
            f"energy-{teacher}", f"Energy of {teacher} above that of the elements", residual, "eV per atom", log=False
        )
        force = np.asarray(measured["force_max"])[:, t]
        histograms(f"force-{teacher}", f"Largest force per sample, {teacher}", force, "eV/Å", log=True)
        if "stress" in small:
            pressure = -small["stress"].values[:, t, :3].mean(axis=1)
            if np.isfinite(pressure).any():
                histograms(f"pressure-{teacher}", f"Pressure, {teacher}", pressure, "eV/Å³", log=False)
    points = embed(ds)
    where = points["sample"].values
    labels = plotting.component_labels(points)
    for what, groups in {**by, "element class": _classes(ds, where)}.items():
        masks = groups if what == "element class" else {key: mask[where] for key, mask in groups.items()}
        out.append(
            Figure(
                f"map-by-{what.replace(' ', '-')}", f"Map of the structures, by {what}",
                partial(_draw_scatter, points=points["pc"].values, groups=masks, labels=labels),
            )
        )  # fmt: skip
    if spread is not None:
        out.append(
            Figure(
                "disagreement", "Teachers' disagreement: largest deviation of a force per sample",
                lambda ax: plotting.histogram(ax, {"all": spread}, "eV/Å", log=True),
            )
        )  # fmt: skip
        first, second = stats.teachers[:2]
        out.append(
            Figure(
                "parity",
                f"Force components, {second} against {first}",
                lambda ax: ds.mlff.plot.parity(first, second, ax),
            )
        )
    return out


def _draw_histogram(ax: Any, groups: Mapping[str, Array], label: str, log: bool) -> Any:
    return plotting.histogram(ax, groups, label, log=log)


def _draw_scatter(ax: Any, points: Array, groups: Mapping[str, Array], labels: tuple[str, str]) -> Any:
    return plotting.scatter(ax, points, groups, labels)


def _splits(small: xr.Dataset) -> dict[str, Array]:
    if "split" not in small:
        return {"all": np.ones(small.sizes["sample"], bool)}
    codes = small["split"].values
    return {name: codes == i for i, name in enumerate(SPLITS) if (codes == i).any()}


def _classes(ds: xr.Dataset, index: Array) -> dict[str, Array]:
    """Return masks of the kinds of structures, told by their elements."""
    counts = ds[["n_atoms", "numbers"]].mlff.isel(index).mlff.composition().compute()
    present = counts > 0

    def any_of(symbols: str) -> Array:
        return np.asarray(present.sel(element=symbols.split()).any("element"))

    organic = any_of("C") & any_of("H")
    metal = np.asarray(present.isel(element=[z for z in range(119) if z in METALS]).any("element"))
    one = np.asarray(present.sum("element") == 1)
    out = {
        "organic": organic & ~metal,
        "metal-organic": organic & metal,
        "oxide": ~organic & any_of("O"),
        "halide": ~organic & ~any_of("O") & any_of("F Cl Br I"),
        "chalcogenide": ~organic & ~any_of("O F Cl Br I") & any_of("S Se Te"),
        "element": one,
    }
    rest = np.ones(len(index), bool)
    masks = {}
    for name, mask in out.items():
        masks[name] = mask & rest
        rest &= ~mask
    masks["other"] = rest
    return {name: mask for name, mask in masks.items() if mask.any()}


#: Atomic numbers of the metals.
METALS = frozenset(
    {3, 4, *range(11, 14), *range(19, 32), *range(37, 51), *range(55, 84), *range(87, 119)}
)  # fmt: skip
