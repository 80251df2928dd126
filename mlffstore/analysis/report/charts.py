"""The charts of a report as plain numbers, which the page draws in the browser and `printed` on paper.

Histograms count every sample of the dataset. Points are drawn for the samples that the report lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.report.rows import plain
from mlffstore.data.splits import SPLITS
from mlffstore.lazy.plots import component_labels, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from mlffstore.analysis.report.rows import Rows
    from mlffstore.data.schema import Array

#: Points of a parity plot.
_N_POINTS = 3000
#: Pairs of teachers that are compared.
_N_PAIRS = 3


def charts(
    ds: xr.Dataset, measured: Mapping[str, Array], rows: Rows, points: xr.Dataset, spread: Array | None
) -> list[dict[str, Any]]:
    """Return the charts.

    Parameters
    ----------
    ds : Dataset
    measured : mapping of str to ndarray
        The figures of all samples: the variables of `Validation.flags`.
    rows : Rows
        The samples that are listed.
    points : Dataset
        A map of structures, see `mlffstore.analysis.statistics.embedding.embed`.
    spread : ndarray, shape (S,), or None
        Largest deviation of a force between teachers, for each sample.
    """
    teachers = [str(name) for name in ds["teacher"].values] if "teacher" in ds.coords else []
    small = ds[[name for name in ("n_atoms", "sampler", "split", "stress") if name in ds]].compute()
    groups = {"split": _splits(small), "sampler": words(small["sampler"])}
    listed = {column.key for column in rows.columns}
    out = []

    def histogram(key: str, title: str, unit: str, values: Array, *, log: bool = False) -> None:
        if key in listed and np.isfinite(values).any():
            out.append({**_histogram(values, groups, log), "key": key, "title": title, "unit": unit})

    histogram("n_atoms", "Atoms per sample", "atoms", small["n_atoms"].values.astype(float))
    histogram("d_min", "Closest pair of atoms", "Å", np.asarray(measured["d_min"], float))
    histogram("volume_per_atom", "Volume per atom", "Å³", np.asarray(measured["volume_per_atom"], float))
    for t, teacher in enumerate(teachers):
        title = f"Energy per atom above that of the elements, {teacher}"
        histogram(f"energy_residual:{teacher}", title, "eV", np.asarray(measured["energy_residual"])[:, t])
        force = np.asarray(measured["force_max"])[:, t]
        histogram(f"force_max:{teacher}", f"Largest force per sample, {teacher}", "eV/Å", force, log=True)
        if "stress" in small:
            pressure = -small["stress"].values[:, t, :3].mean(axis=1)
            histogram(f"pressure:{teacher}", f"Pressure, {teacher}", "eV/Å³", pressure)
    if spread is not None:
        title = "Disagreement of teachers: largest deviation of a force"
        histogram("spread", title, "eV/Å", spread, log=True)
    out.append(_map(rows, points))
    for teacher in teachers:
        keys = f"energy_residual:{teacher}", f"force_max:{teacher}"
        if listed.issuperset(keys):
            out.append({"kind": "scatter", "id": f"outliers-{teacher}", "title": f"Energy against force, {teacher}",
                        "x": keys[0], "y": keys[1], "log": True})  # fmt: skip
    return out + _parities(ds, rows, teachers)


def _histogram(values: Array, groups: Mapping[str, Mapping[str, Array]], log: bool) -> dict[str, Any]:
    finite = values[np.isfinite(values) & (values > 0)] if log else values[np.isfinite(values)]
    edges = _edges(finite, log)
    counted = {
        by: {name: np.histogram(values[mask], edges)[0].tolist() for name, mask in masks.items()}
        for by, masks in groups.items()
    }
    n = int((values <= 0).sum()) if log else 0
    about = f"{n:,} with 0, of which there is no logarithm, are not shown" if n else ""
    return {"kind": "histogram", "log": log, "edges": edges.tolist(), "groups": counted, "about": about}


def _edges(finite: Array, log: bool) -> Array:
    """Return the edges of the bins; the first and the last have room for the rounding of the figures in the table."""
    if not len(finite):
        return np.array([1.0, 10.0]) if log else np.array([0.0, 1.0])
    low, high = float(finite.min()), float(finite.max())
    n_bins = int(np.clip(2 * len(finite) ** 0.4, 10, 60))
    if log:
        return np.geomspace(low * (1 - 1e-6), max(high, 1.01 * low) * (1 + 1e-6), n_bins + 1)
    # Whole numbers: bins of equal numbers of them. From 2**52 on there are no halves between them.
    if (finite == np.rint(finite)).all() and max(-low, high) < 2**52:
        step = max(int(np.ceil((high - low + 1) / n_bins)), 1)
        return np.arange(low - 0.5, high + step + 0.5, step)
    scale = max(abs(low), abs(high), 1e-6)  # the difference of two huge numbers is infinite
    return np.linspace(low / scale - 1e-6, high / scale + 1e-6, n_bins + 1) * scale


def _splits(small: xr.Dataset) -> dict[str, Array]:
    if "split" not in small:
        return {"all": np.ones(small.sizes["sample"], bool)}
    codes = small["split"].values
    return {name: codes == i for i, name in enumerate(SPLITS) if (codes == i).any()}


def _map(rows: Rows, points: xr.Dataset) -> dict[str, Any]:
    where = points["sample"].values
    index = rows.index[: rows.n_dataset]
    row = np.searchsorted(index, where)
    known = (row < len(index)) & (index[np.minimum(row, len(index) - 1)] == where)
    pc = points["pc"].values[known]
    return {
        "kind": "map", "id": "map", "title": "Map of the structures", "rows": row[known].tolist(),
        "x": plain(pc[:, 0], 4), "y": plain(pc[:, 1], 4), "labels": list(component_labels(points)),
    }  # fmt: skip


def _parities(ds: xr.Dataset, rows: Rows, teachers: Sequence[str]) -> list[dict[str, Any]]:
    """Return force components of pairs of teachers for samples that both labelled. Energies have different zeros.

    The points are of samples that are listed; the figures are of all samples.
    """
    batch = rows.batches[0]
    owner = np.repeat(np.arange(len(batch)), batch.columns["n_atoms"])
    out: list[dict[str, Any]] = []
    pairs = [(a, b) for i, a in enumerate(teachers) for b in teachers[i + 1 :]]
    for first, second in pairs:
        f, g = (batch.labels.get(name, {}).get("forces") for name in (first, second))
        if f is None or g is None or len(out) == _N_PAIRS:
            continue
        good = np.isfinite(f).all(axis=1) & np.isfinite(g).all(axis=1)
        f, g, atom = f[good].astype(float), g[good].astype(float), owner[good]
        if not len(f):
            continue
        error = g - f
        mae, rms, n = _deviation(ds, first, second)
        about = f"MAE {mae:.3g}, RMSE {rms:.3g} eV/Å over the {n:,} components of all samples"
        largest = np.lexsort((-np.abs(error).max(axis=1),))[: _N_POINTS // 10]  # outliers are never left out
        some = np.random.default_rng(0).permutation(len(f))[: _N_POINTS // 3]
        chosen = np.unique(np.concatenate([largest, some]))
        out.append(
            {
                "kind": "parity", "id": f"parity-{first}-{second}", "title": f"Force components, {second} against {first}",
                "rows": np.repeat(atom[chosen], 3).tolist(), "x": plain(f[chosen].ravel(), 4),
                "y": plain(g[chosen].ravel(), 4), "labels": [f"{first} (eV/Å)", f"{second} (eV/Å)"], "about": about,
            }
        )  # fmt: skip
    return out


def _deviation(ds: xr.Dataset, first: str, second: str) -> tuple[float, float, int]:
    """Return mean absolute and root mean square deviation of the force components of two teachers, and their number."""
    import dask

    names = [str(name) for name in ds["teacher"].values]
    forces = ds["forces"].astype(np.float64)
    error = forces.isel(teacher=names.index(second)) - forces.isel(teacher=names.index(first))
    mae, square, n = dask.compute(abs(error).mean(), (error**2).mean(), error.count())  # type: ignore[attr-defined, no-untyped-call]
    return float(mae), float(np.sqrt(square)), int(n)
