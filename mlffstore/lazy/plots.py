"""Plots of a dataset, behind ``ds.mlff.plot`` and in the report. They draw into the axes given, or into new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError, missing_dependency
from mlffstore.lazy.inputs import meanings
from mlffstore.lazy.missing import mask_of
from mlffstore.runtime.words import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from mlffstore.data.schema import Array

#: Colours of Okabe and Ito, which are distinct for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999933", "#882255")
#: Colour of groups that are not among the most frequent.
OTHER = "#999999"
#: Characters of a name in a legend, at most.
_NAME = 40


def axes(ax: Any = None, size: tuple[float, float] = (5.0, 3.2)) -> Any:
    """Return the axes, or new axes if there are none."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise missing_dependency("matplotlib", "report", "plotting") from error
    return plt.subplots(figsize=size, layout="constrained")[1]


def plain(text: str, *, lines: bool = False) -> str:
    """Return text that Matplotlib draws as it is: no formula, no control characters."""
    return printable(text, lines=lines).replace("$", r"\$")


def _short(name: str) -> str:
    """Return a name for a legend, which must not fill the figure. Matplotlib leaves out those that begin with ``_``."""
    name = name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."
    return plain(f"'{name}'" if not name or name.startswith("_") else name)


def histogram(ax: Any, groups: Mapping[str, Array], label: str, *, log: bool = False) -> Any:
    """Draw one line per group over shared bins, the counts on a logarithmic axis."""
    groups = {name: finite for name, values in groups.items() if len(finite := values[np.isfinite(values)])}
    everything = np.concatenate([*groups.values(), np.zeros(0)])
    if log:
        everything = everything[everything > 0]
    ax.set_xlabel(label)
    ax.set_ylabel("count")
    if not len(everything):
        ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center")
        return ax
    low, high = float(everything.min()), float(everything.max())
    n_bins = int(np.clip(2 * len(everything) ** 0.4, 10, 80))
    if log:
        edges = np.geomspace(max(low, high * 1e-6), high * (1 + 1e-9), n_bins + 1)
        ax.set_xscale("log")
    else:
        edges = np.linspace(low, high if high > low else low + 1, n_bins + 1)
    for (name, values), colour in zip(groups.items(), _cycle(len(groups)), strict=True):
        ax.stairs(np.histogram(values, edges)[0], edges, label=_short(name), color=colour, linewidth=1.4)
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(bottom=0)
    if len(groups) > 1:
        ax.legend(fontsize="small", frameon=False)
    return ax


def scatter(ax: Any, points: Array, groups: Mapping[str, Array], labels: tuple[str, str]) -> Any:
    """Draw points in the colours of their groups, which are boolean masks."""
    for (name, mask), colour in zip(groups.items(), _cycle(len(groups)), strict=True):
        ax.scatter(
            points[mask, 0],
            points[mask, 1],
            s=4,
            color=colour,
            label=_short(name),
            linewidths=0,
            alpha=0.7,
            rasterized=True,
        )
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    if len(groups) > 1:
        ax.legend(fontsize="small", frameon=False, markerscale=3)
    return ax


def parity(ax: Any, x: Array, y: Array, labels: tuple[str, str], unit: str) -> Any:
    """Draw two arrays against each other with the diagonal, and their mean and root mean square difference."""
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    ax.scatter(x, y, s=2, color=COLOURS[0], linewidths=0, alpha=0.4, rasterized=True)
    if len(x):
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        ax.plot([low, high], [low, high], color=OTHER, linewidth=1)
        text = f"MAE {np.abs(x - y).mean():.3g}, RMSE {np.sqrt(((x - y) ** 2).mean()):.3g} {unit}"
        ax.set_title(text, fontsize="small")
    ax.set_xlabel(f"{labels[0]} ({unit})")
    ax.set_ylabel(f"{labels[1]} ({unit})")
    return ax


def words(variable: xr.DataArray, present: Array | None = None, most: int = 7) -> dict[str, Array]:
    """Return masks of the meanings of a coded variable, the most frequent ones and the rest, and of those without one."""
    codes, names = np.asarray(variable), meanings(variable)
    there = np.ones(len(codes), bool) if present is None else present
    counts = np.bincount(codes[there], minlength=len(names))
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    out = {names[i]: (codes == i) & there for i in order[:most]}
    if len(order) > most:
        out[f"{len(order) - most} others"] = np.isin(codes, order[most:]) & there
    if not there.all():
        out["no value"] = ~there
    return out


def _cycle(n: int) -> list[str]:
    return [COLOURS[i] if i < len(COLOURS) else OTHER for i in range(n)]


class Plots:
    """Plots of a Dataset. Each reads the variables that it needs and returns the axes of matplotlib."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def size(self, ax: Any = None) -> Any:
        """Draw the numbers of atoms of the samples."""
        return histogram(axes(ax), {"n_atoms": np.asarray(self._ds["n_atoms"]).astype(float)}, "atoms per sample")

    def energy(self, ax: Any = None) -> Any:
        """Draw the energies per atom, one line per teacher."""
        energy = np.asarray(self._ds["energy"]) / np.asarray(self._ds["n_atoms"])[:, None]
        return histogram(axes(ax), self._by_teacher(energy), "energy per atom (eV)")

    def force(self, ax: Any = None) -> Any:
        """Draw the largest forces of the samples, one line per teacher."""
        force = np.asarray(self._ds.mlff.reduce("forces", "norm_max"))
        return histogram(axes(ax), self._by_teacher(force), "largest force (eV/Å)", log=True)

    def composition(self, ax: Any = None) -> Any:
        """Draw the atoms of each element."""
        counts = self._ds.mlff.composition().sum("sample")
        counts = counts[np.asarray(counts > 0)]
        ax = axes(ax, (max(4.0, 0.25 * counts.sizes["element"]), 3.0))
        ax.bar(counts["element"].values, np.asarray(counts), color=COLOURS[0])
        ax.set_yscale("log")
        ax.set_ylabel("atoms")
        ax.tick_params(axis="x", labelrotation=90 if counts.sizes["element"] > 20 else 0)
        return ax

    def parity(self, first: str, second: str, ax: Any = None) -> Any:
        """Draw force components of two teachers against each other. Energies have different zeros and are never compared."""
        forces = self._ds["forces"]
        known = [str(teacher) for teacher in self._ds["teacher"].values]
        if first not in known or second not in known:
            raise DataError(f"parity: expected two of {', '.join(known)}, got {first!r} and {second!r}")
        x, y = (np.asarray(forces.sel(teacher=teacher)).ravel() for teacher in (first, second))
        return parity(axes(ax, (4, 4)), x, y, (first, second), "eV/Å")

    def map(self, colour: str = "sampler", ax: Any = None, n_samples: int = 3000) -> Any:
        """Draw structures in the plane of their two main components, coloured by a coded variable."""
        from mlffstore.lazy.embedding import embed_dataset

        points = embed_dataset(self._ds, n_samples=n_samples)
        variable, mask = self._ds[colour], mask_of(self._ds[colour], self._ds)
        drawn = {"sample": points["sample"].values}
        groups = words(variable.isel(drawn), None if mask is None else np.asarray(mask.isel(drawn)))
        return scatter(axes(ax, (5, 4)), points["pc"].values, groups, component_labels(points))

    def _by_teacher(self, values: Array) -> dict[str, Array]:
        return {str(teacher): values[:, t] for t, teacher in enumerate(self._ds["teacher"].values)}


def component_labels(points: xr.Dataset) -> tuple[str, str]:
    """Return the labels of the axes of a map."""
    first, second = (
        f"component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(points["explained"].values)
    )
    return first, second
