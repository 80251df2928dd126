"""The report as one HTML file: nothing fetched, light and dark, readable on a phone.

The file holds the data as JSON, two libraries (see ``static/README.md``) and a script that draws charts, the list of
structures and the viewer. Tables and pictures are there without the script.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.report.elements import periodic_table
from mlffstore.analysis.report.picture import picture
from mlffstore.analysis.report.provenance import other_records, parts, total
from mlffstore.analysis.report.structures import structures
from mlffstore.runtime.words import printable
from mlffstore.store.describe import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.analysis.report.contents import Contents, Shown

#: Scripts of the page, in order.
_SCRIPTS = ("plotly-basic.min.js", "3Dmol-min.js", "report.js", "charts.js", "viewer.js", "start.js")
#: Characters from which the text of a cell is not squeezed on a narrow screen.
_LONG = 40
#: Lines of the acceptance table -> the samples that they are about.
_ABOUT = {
    **{f"samples_{name}": {"key": "split", "op": "is", "value": name} for name in ("train", "val", "test")},
    "invalid_fraction": {"key": "severity", "op": "is", "value": "error"},
    "leaked_samples": {"key": "flags", "op": "has", "value": "leakage"},
    "periodic_fraction": {"key": "periodic", "op": "is", "value": "periodic"},
    "samples": {"key": "set", "op": "is", "value": "dataset"},
}


def page(contents: Contents) -> str:
    """Return the report as an HTML document."""
    c = contents
    verdict, mark = ("passes", "pass") if c.validation.ok else ("does not pass", "FAIL")
    sections = [
        ("Acceptance", _acceptance(c)),
        ("Findings", _findings(c)),
        ("Worst samples", _cards(c.worst, "worst", 150)),
        ("Structures", _explorer(c)),
        ("Composition", _composition(c)),
        ("Map", '<div class="charts" id="maps"></div>'),
        ("Distributions", '<div class="charts" id="histograms"></div>'),
        ("Teachers", _teachers(c)),
        ("Duplicates and leakage", _copies(c)),
        ("Quarantine", _quarantine(c)),
        ("Gallery", _cards(c.gallery, "gallery", 96)),
        ("Provenance", _provenance(c)),
    ]
    links = " ".join(f'<a href="#{_anchor(title)}">{title}</a>' for title, _ in sections)
    body = "".join(f'<section id="{_anchor(title)}"><h2>{title}</h2>{text}</section>' for title, text in sections)
    s = c.summary
    facts = (
        f"{s['samples']:,} samples, {s['atoms']:,} atoms, {len(s['elements'])} elements, "
        f"{s['periodic'] / max(s['samples'], 1):.0%} periodic, version {s['version']}, {human_bytes(s['nbytes'])}"
    )
    scripts = [_static(name) for name in _SCRIPTS]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    )
    policy += "form-action 'none'; base-uri 'none'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">'
        f"<title>{_e(c.title)}</title><style>{_static('report.css')}</style></head><body>"
        f'<header><h1>{_e(c.title)}</h1><p>{facts}. The dataset <span class="verdict {mark}">{verdict}</span>.</p></header>'
        f'<nav>{links}</nav><noscript><p class="warning">Charts, lists and the viewer need JavaScript.</p></noscript>'
        f'<main>{body}</main><dialog id="details"></dialog>'
        f'<script type="application/json" id="data">{script_json(_data(c))}</script>'
        f"{''.join(f'<script>{script}</script>' for script in scripts)}</body></html>"
    )


def script_json(document: Any) -> str:
    r"""Return JSON for a script element: no character in it can end the element or begin a comment.

    Examples
    --------
    >>> script_json({"a": "</script><!--"})
    '{"a":"\\u003c/script\\u003e\\u003c!--"}'
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _static(name: str) -> str:
    text = (files("mlffstore.analysis.report") / "static" / name).read_text(encoding="utf-8")
    return re.sub(r"</(script)", r"<\\/\1", text, flags=re.IGNORECASE) if name.endswith(".js") else text


def _data(c: Contents) -> dict[str, Any]:
    from ase.data import chemical_symbols

    return {
        "title": c.title,
        "total": c.summary["samples"],
        "rejected": c.summary["quarantined"],
        "rows": len(c.rows.index),
        "listed": c.rows.n_dataset,
        "columns": [column.to_json() for column in c.rows.columns],
        "teachers": list(c.statistics.teachers),
        "structures": structures(c.rows, c.statistics.teachers),
        "charts": c.charts,
        "symbols": list(chemical_symbols),
        "elements": {str(z): _look(z) for z in _numbers(c)},
    }


def _numbers(c: Contents) -> list[int]:
    return [int(z) for z in np.unique(np.concatenate([batch.columns["numbers"] for batch in c.rows.batches]))]


def _look(z: int) -> list[Any]:
    """Return the colour and the radius of an element in a flat picture."""
    from ase.data import covalent_radii
    from ase.data.colors import jmol_colors

    known = min(z, len(jmol_colors) - 1)
    return [
        "#" + "".join(f"{round(255 * part):02x}" for part in jmol_colors[known]),
        round(float(covalent_radii[known]), 2),
    ]


def _e(text: Any) -> str:
    return html.escape(printable(text, lines=True))


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _link(text: Any, filter_: dict[str, Any], sort: str = "") -> _Html:
    """Return a button that lists the samples of a filter."""
    order = f' data-sort="{_e(sort)}"' if sort else ""
    return _Html(f'<button class="go" data-filter="{_e(json.dumps(filter_))}"{order}>{_e(text)}</button>')


def _open(c: Contents, indices: Sequence[int]) -> _Html:
    """Return a button per sample that opens it; plain text for those that are not listed."""
    rows = {int(index): row for row, index in enumerate(c.rows.index[: c.rows.n_dataset])}
    return _Html(
        ", ".join(f'<button class="go" data-open="{rows[i]}">{i}</button>' if i in rows else str(i) for i in indices)
    )


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[Any]], marks: Sequence[str] = (), *, wordy: bool = False
) -> str:
    """Return a table that the script sorts and filters.

    `marks` are the classes of the first cells. The rows of a wordy table become blocks on a narrow screen.
    """

    def cell(value: Any, name: str) -> str:
        text = value if isinstance(value, _Html) else _e(value)
        name = name or ("long" if len(str(value)) > _LONG and not isinstance(value, _Html) else "")
        return f'<td class="{name}">{text}</td>' if name else f"<td>{text}</td>"

    head = "".join(f"<th>{_e(text)}</th>" for text in headings)
    lines = "".join(
        f"<tr>{''.join(cell(value, marks[i] if marks and k == 0 else '') for k, value in enumerate(row))}</tr>"
        for i, row in enumerate(rows)
    )
    kind = "sorts wordy" if wordy else "sorts"
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _acceptance(c: Contents) -> str:
    rows, marks = [], []
    for line in c.validation.acceptance:
        about = _ABOUT.get(line.quantity)
        figure = _link(line.figure, about) if about else line.figure
        rows.append([line.mark, line.quantity.replace("_", " "), line.target, figure])
        marks.append(line.mark)
    return _table(["mark", "quantity", "target", "value"], rows, marks)


def _findings(c: Contents) -> str:
    v = c.validation
    text = "".join(
        f'<p><span class="{problem.severity}">{problem.severity}: {_e(problem.check)}</span>: {_e(problem.text)}</p>'
        for problem in v.problems
    )
    if v.findings:
        rows = [[f.severity, f.check, _failed(f.check, f.n_samples), _open(c, f.examples)] for f in v.findings]
        heading = ["severity", "check", "samples", "such as"]
        text += _table(heading, rows, [f.severity for f in v.findings])
    else:
        text += "<p>No sample fails a check.</p>"
    rows = [[one.mark, one.check, one.measured_on, one.figure] for one in v.checks if not one.problem]
    return text + _table(
        ["mark", "check of the dataset", "measured on", "found"], rows, [str(row[0]) for row in rows], wordy=True
    )


def _failed(check: str, n: int) -> _Html | str:
    return _link(f"{n:,}", {"key": "flags", "op": "has", "value": check}) if n else "0"


def _explorer(c: Contents) -> str:
    n, total = c.rows.n_dataset, c.summary["samples"]
    about = (
        f"All {total:,} samples are listed."
        if n == total
        else f"{n:,} of {total:,} samples are listed: up to 120 for each check that samples fail, and others at random."
    )
    if c.reasons:
        about += f" {len(c.rows.index) - n:,} of {c.summary['quarantined']:,} rejected samples are listed too."
    return (
        f'<p class="about">{about} Choose a row to see the structure. Numbers in the report lead here, and so do bars and '
        'points of the charts.</p><div id="explorer"></div>'
    )


def _composition(c: Contents) -> str:
    p, out = c.statistics.part, []
    if c.statistics.splits:
        rows = [
            [_link(name, {"key": "split", "op": "is", "value": name}), f"{p.samples[i]:,}", f"{p.atoms[i]:,}"]
            for i, name in enumerate(c.statistics.splits)
        ]
        out.append(_table(["split", "samples", "atoms"], rows))
    pairs = [(name, int(n)) for name, n in zip(c.statistics.samplers, p.by_sampler, strict=False) if n]
    rows = [[_link(name, {"key": "sampler", "op": "is", "value": name}), f"{n:,}"] for name, n in pairs]
    out.append(_table(["sampler", "samples"], rows))
    return f'{periodic_table(c)}<div class="side">{"".join(out)}</div>'


def _teachers(c: Contents) -> str:
    document = c.statistics.to_dict()["teachers"]
    rows = []
    for teacher, figures in document.items():
        energy, force, component = (
            figures[k] for k in ("energy_eV_per_atom", "force_eV_per_angstrom", "force_component_eV_per_angstrom")
        )
        known = {"key": f"energy:{teacher}", "op": "known"}
        rows.append(
            [
                teacher, _link(f"{figures['samples']:,}", known),
                f"{energy['mean']:.3f} ± {energy['std']:.3f}" if energy["n"] else "-",
                f"{component['rms']:.3f}" if component["n"] else "-",
                f"{force['quantiles']['0.99']:.2f}" if force["n"] else "-",
                _link(f"{force['max']:.2f}", known, f"force_max:{teacher}") if force["n"] else "-",
            ]
        )  # fmt: skip
    table = _table(["teacher", "samples", "eV/atom", "force rms, eV/Å", "99 % of |F|, eV/Å", "largest |F|, eV/Å"], rows)
    others = [
        [teacher, name, one["unit"], f"{one['samples']:,}", *(f"{one[key]:.4g}" for key in ("mean", "std", "min", "max")),
         ", ".join(f"{symbol} {row['mean']:.3g}" for symbol, row in one.get("by_element", {}).items())]
        for teacher, figures in document.items()
        for name, one in figures["properties"].items()
    ]  # fmt: skip
    if others:
        headings = ["teacher", "property", "unit", "samples", "mean", "std", "smallest", "largest", "mean by element"]
        table += _table(headings, others)
    if not c.disagreement:
        table += "<p>No sample was labelled by several teachers, so there is no disagreement to show.</p>"
    else:
        figures = [
            [name, _link(f"{value:,.4g}", {"key": "spread", "op": "known"}, "spread")]
            for name, value in c.disagreement.items()
        ]
        table += _table(["disagreement", "value"], figures)
    return f'{table}<div class="charts" id="parities"></div>'


def _copies(c: Contents) -> str:
    from mlffstore.analysis.report.contents import COPIES

    rows = [[name.replace("_", " "), _failed(name, n), COPIES[name]] for name, n in c.copies.items()]
    return _table(["kind", "samples", "meaning"], rows) + (
        "<p>The details of a sample list the samples with the same structure and with the same root.</p>"
    )


def _quarantine(c: Contents) -> str:
    if not c.reasons:
        return "<p>No sample was rejected when this dataset was made.</p>"
    several = list(c.reasons.items())
    rows = [[reason, _link(f"{n:,}", {"key": "reason", "op": "is", "value": reason})] for reason, n in several[:200]]
    more = f"<p>And {len(several) - 200:,} more reasons.</p>" if len(several) > 200 else ""
    return _table(["reason", "samples"], rows) + more


def _cards(shown: list[Shown], kind: str, width: int) -> str:
    cards = "".join(
        f'<button class="card" data-open="{one.row}">{picture(one.atoms, width)}<b>{one.index}</b> '
        f"{_e(one.atoms.get_chemical_formula())}{'<br>' + _e(one.text) if one.text else ''}</button>"
        for one in shown
    )
    return f'<div class="{kind}">{cards}</div>'


def _provenance(c: Contents) -> str:
    from mlffstore.runtime.version import VERSION

    out = [f"<p>Made by mlffstore {VERSION} from {_e(c.summary['url'])}, store {_e(c.summary['uuid'])}.</p>"]
    several = parts(c.provenance)
    if several:
        headings = [
            "part",
            "generator",
            "teacher",
            "samples wanted",
            "kept",
            "tasks",
            "rejected",
            "skipped",
            "teacher calls per kept sample",
            "samples per core-hour",
            "core-hours",
            "commits",
        ]
        out.append(_table(headings, [one.row() for one in [*several, total(several)]]))
        out += [_details(f"Part {one.name}", one.document()) for one in several]
    out += [_details(title, records) for title, records in other_records(c.provenance).items()]
    out.append(_details("Policy", c.validation.policy.to_json()))
    return "".join(out)


def _details(title: str, document: Any) -> str:
    text = json.dumps(document, indent=1, default=str, ensure_ascii=False)
    return f"<details><summary>{_e(title)}</summary><pre>{_e(text)}</pre></details>"
