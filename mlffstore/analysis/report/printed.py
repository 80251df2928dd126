"""The report as a PDF drawn by matplotlib, for machines without a browser that prints the page."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.report.picture import layout
from mlffstore.lazy.plots import COLOURS, OTHER, plain

if TYPE_CHECKING:
    from pathlib import Path

    from mlffstore.analysis.report.contents import Contents, Shown

#: A4, inches.
_PAPER = (8.27, 11.69)
#: Lines of text on a page.
_LINES = 62
#: Pictures in a row and in a column of a page; height of one and of its title, of which the width is 1.
_ACROSS, _DOWN = 5, 6
_TALL, _TITLE = 1.17, 0.12


def write_pdf(contents: Contents, path: Path) -> None:
    """Write the tables, figures and pictures of a report, several per page."""
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    c = contents
    with PdfPages(path, metadata={"Title": c.title, "CreationDate": None}) as pdf, warnings.catch_warnings():
        # Letters that Matplotlib's font lacks are boxes on paper; the page shows them.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        lines = _lines(c)
        for start in range(0, len(lines), _LINES):
            sheet = Figure(figsize=_PAPER)
            text = plain("\n".join(lines[start : start + _LINES]), lines=True)
            sheet.text(0.07, 0.95, text, va="top", family="monospace", fontsize=8)
            pdf.savefig(sheet)
        for start in range(0, len(c.charts), 6):
            sheet = Figure(figsize=_PAPER)
            grid = sheet.subplots(3, 2, squeeze=False).ravel()
            # Not the constrained layout, which draws the text of all axes several times.
            sheet.subplots_adjust(left=0.09, right=0.97, top=0.95, bottom=0.06, hspace=0.35, wspace=0.32)
            for ax, chart in zip(grid, c.charts[start : start + 6], strict=False):
                _draw(ax, chart, c)
                ax.set_title(plain(chart["title"]), fontsize=8)
            for ax in grid[len(c.charts[start : start + 6]) :]:
                ax.set_axis_off()
            pdf.savefig(sheet, dpi=150)
        _pictures(pdf, "Worst samples", c.worst)
        _pictures(pdf, "Random samples", c.gallery)


def colours(n: int) -> list[str]:
    """Return colours of groups."""
    return [*COLOURS, OTHER][:n]


def _draw(ax: Any, chart: dict[str, Any], c: Contents) -> None:
    """Draw a chart into the axes of matplotlib."""
    if chart["kind"] == "histogram":
        edges, below = np.array(chart["edges"]), np.zeros(len(chart["edges"]) - 1)
        for (name, counts), colour in zip(chart["groups"]["sampler"].items(), colours(8), strict=False):
            ax.stairs(below + counts, edges, baseline=below, fill=True, label=plain(name), color=colour)
            below = below + counts
        ax.set_xscale("log" if chart["log"] else "linear")
        ax.set_xlabel(plain(chart["unit"]))
        ax.set_ylabel("samples")
        ax.legend(fontsize=6, frameon=False)
        return
    x, y = chart["x"], chart["y"]
    labels = chart.get("labels", ("", ""))
    if chart["kind"] == "scatter":
        first, second = c.rows.column(x), c.rows.column(y)
        x, y, labels = first.values, second.values, (f"{first.label} ({first.unit})", f"{second.label} ({second.unit})")
    x, y = np.array(x, float), np.array(y, float)
    ax.scatter(x, y, s=3, color=colours(1)[0], linewidths=0, alpha=0.6, rasterized=True)
    if chart["kind"] == "parity":
        ax.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
    if chart.get("log"):
        ax.set_yscale("log")
    ax.set_xlabel(plain(labels[0]), fontsize=7)
    ax.set_ylabel(plain(labels[1]), fontsize=7)


def _lines(c: Contents) -> list[str]:
    s = c.summary
    out = [
        c.title, "", f"{s['samples']:,} samples, {s['atoms']:,} atoms, version {s['version']} of {s['uuid']}",
        *([f"chosen from {c.selection}"] if c.selection else []),
        f"The dataset {'passes' if c.validation.ok else 'DOES NOT PASS'}.", "", "ACCEPTANCE",
    ]  # fmt: skip
    out += [f"  {one.mark:<5} {one.quantity:<28} {one.target:<18} {one.figure}" for one in c.validation.acceptance]
    out += ["", "FINDINGS"]
    for one in c.validation.checks:
        if not one.problem:
            out += [
                f"  {one.mark:<5} {one.check:<20} {one.measured_on}",
                *(f"    {part}" for part in _folded(one.figure)),
            ]
    for problem in c.validation.problems:
        out += [f"  {problem.severity}: {problem.check}", *(f"    {part}" for part in _folded(problem.text))]
    out += [f"  {f.severity:<8} {f.check:<22} {f.n_samples:>9,} samples" for f in c.validation.findings] or ["  none"]
    out += ["", "QUARANTINE"]
    out += [f"  {n:>9,}  {reason}" for reason, n in list(c.reasons.items())[:40]] or ["  empty"]
    out += ["", "ELEMENTS (atoms)"]
    items = [f"{symbol} {n:,}" for symbol, n in s["elements"].items()]
    return out + [f"  {'   '.join(items[i : i + 6])}" for i in range(0, len(items), 6)]


def _folded(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 90)


def _pictures(pdf: Any, title: str, shown: list[Shown]) -> None:
    """Draw structures into the cells of one pair of axes: matplotlib takes seconds to lay out thirty of them."""
    from matplotlib.collections import EllipseCollection, LineCollection
    from matplotlib.figure import Figure

    for start in range(0, len(shown), _ACROSS * _DOWN):
        sheet = Figure(figsize=_PAPER)
        sheet.suptitle(title, fontsize=10)
        ax = sheet.add_axes((0.04, 0.03, 0.92, 0.92))
        ax.set_axis_off()
        ax.set(xlim=(0, _ACROSS), ylim=(_DOWN * _TALL, 0), aspect="equal")
        centres, radii, colours, lines = [], [], [], []
        for place, one in enumerate(shown[start : start + _ACROSS * _DOWN]):
            row, column = divmod(place, _ACROSS)
            x, radius, colour, edges = layout(one.atoms)
            every = np.concatenate([x - radius[:, None], x + radius[:, None], edges.reshape(-1, 2)])
            low, high = every.min(axis=0), every.max(axis=0)
            scale = 0.9 * min(1 / (high[0] - low[0]), (_TALL - _TITLE) / (high[1] - low[1]))
            middle = np.array([column + 0.5, row * _TALL + _TITLE + (_TALL - _TITLE) / 2])
            down = np.array([scale, -scale])  # the rows of the page go down
            centres.append(middle + down * (x - (low + high) / 2))
            lines += list(middle + down * (edges - (low + high) / 2))
            radii.append(scale * radius)
            colours.append(colour)
            name = f"{one.index}  {one.atoms.get_chemical_formula()}"[:26]
            ax.text(column + 0.5, row * _TALL + _TITLE, name, fontsize=6, ha="center", va="bottom")
        ax.add_collection(LineCollection(lines, colors="0.4", linewidths=0.5), autolim=False)
        size = 2 * np.concatenate(radii)
        discs = EllipseCollection(
            size, size, np.zeros(len(size)), units="xy", offsets=np.concatenate(centres), transOffset=ax.transData,
            facecolors=np.concatenate(colours), edgecolors="0.2", linewidths=0.3,
        )  # fmt: skip
        ax.add_collection(discs, autolim=False)
        pdf.savefig(sheet, dpi=150)
