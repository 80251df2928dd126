"""The report as one HTML file: no script, nothing fetched, light and dark, readable on a phone."""

from __future__ import annotations

import html
import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.report.picture import picture
from mlffstore.runtime.words import printable
from mlffstore.store.describe import human_bytes

if TYPE_CHECKING:
    from mlffstore.analysis.report.contents import Contents, Figure, Shown

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#f3f5f7;--line:#d5dae0;--good:#1a7f37;--bad:#c62828;
 --odd:#8a5a00;--heat:0,114,178}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--paper:#14171b;--soft:#1e2329;--line:#39414a;--good:#56d364;
 --bad:#ff7b72;--odd:#e3b341;--heat:86,180,233}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1100px;padding:1rem;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:.3rem 0}
h2{font-size:1.2rem;margin:2rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.2rem}
table{border-collapse:collapse}.wide{overflow-x:auto}
td,th{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
.pass{color:var(--good)}.error,.FAIL{color:var(--bad)}.warning{color:var(--odd)}.verdict{font-weight:700}
nav a{margin-right:.9rem}a{color:inherit}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:1rem}
figure{margin:0;background:var(--soft);padding:.6rem;border-radius:6px}figure svg{width:100%;height:auto}
figcaption{font-size:.9rem}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(96px,1fr));gap:.5rem}
.worst{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:.8rem}
.card{background:var(--soft);border-radius:6px;padding:.4rem;font-size:.75rem;overflow-wrap:anywhere}
.card svg{width:100%;height:auto}
.structure circle{stroke:#333;stroke-width:.6}
.structure line{stroke:currentColor;stroke-width:.7;opacity:.6}
.elements{display:grid;grid-template-columns:repeat(18,minmax(34px,1fr));gap:2px;min-width:660px}
.elements div{border:1px solid var(--line);border-radius:3px;font-size:.6rem;text-align:center;line-height:1.25}
.elements b{display:block;font-size:.85rem}.empty{opacity:.35}
details{margin:.4rem 0}
pre{overflow-x:auto;background:var(--soft);padding:.6rem;border-radius:6px;font-size:.75rem}
@media print{details{display:none}}
"""


def page(contents: Contents) -> str:
    """Return the report as an HTML document."""
    c = contents
    verdict = "passes" if c.validation.ok else "does not pass"
    mark = "pass" if c.validation.ok else "FAIL"
    sections: list[tuple[str, str]] = [
        ("Acceptance", _acceptance(c)),
        ("Findings", _findings(c)),
        ("Quarantine", _counts(c.quarantine, "reason", "No sample was rejected when this dataset was made.")),
        ("Composition", _elements(c)),
        (
            "Distributions",
            _figures([f for f in c.figures if not f.name.startswith(("map-", "disagreement", "parity"))]),
        ),
        ("Map", _figures([f for f in c.figures if f.name.startswith("map-")])),
        ("Teachers", _teachers(c)),
        ("Duplicates and leakage", _counts(c.copies, "kind", "")),
        ("Worst samples", _shown(c.worst, "worst", 150)),
        ("Gallery", _shown(c.gallery, "gallery", 96)),
        ("Provenance", _provenance(c)),
    ]
    links = " ".join(f'<a href="#{_anchor(title)}">{title}</a>' for title, _ in sections)
    body = "".join(f'<section id="{_anchor(title)}"><h2>{title}</h2>{text}</section>' for title, text in sections)
    s = c.summary
    facts = (
        f"{s['samples']:,} samples, {s['atoms']:,} atoms, {len(s['elements'])} elements, "
        f"{s['periodic'] / max(s['samples'], 1):.0%} periodic, version {s['version']}, {human_bytes(s['nbytes'])}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><link rel="icon" href="data:,"><title>{_e(c.title)}</title><style>{_STYLE}</style></head><body>'
        f'<h1>{_e(c.title)}</h1><p>{facts}. The dataset <span class="verdict {mark}">{verdict}</span>.</p>'
        f"<nav>{links}</nav>{body}</body></html>"
    )


def _e(text: Any) -> str:
    return html.escape(printable(text, lines=True))


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


def _table(headings: list[str], rows: list[list[str]], classes: list[str] | None = None) -> str:
    head = "".join(f"<th>{_e(text)}</th>" for text in headings)
    lines = "".join(
        f"<tr>{''.join(f'<td{_class(classes, i, k)}>{_e(text)}</td>' for k, text in enumerate(row))}</tr>"
        for i, row in enumerate(rows)
    )
    return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'


def _class(classes: list[str] | None, row: int, column: int) -> str:
    return f' class="{classes[row]}"' if classes and column == 0 else ""


def _acceptance(c: Contents) -> str:
    rows, classes = [], []
    for line in c.validation.acceptance:
        rows.append([line.mark, line.quantity.replace("_", " "), line.target, line.figure])
        classes.append(line.mark)
    return _table(["", "quantity", "target", "value"], rows, classes)


def _findings(c: Contents) -> str:
    v = c.validation
    text = "".join(
        f'<p><span class="{problem.severity}">{problem.severity}: {problem.check}</span>: {_e(problem.text)}</p>'
        for problem in v.problems
    )
    rows = [[one.mark, one.check, one.measured_on, one.figure] for one in v.checks if not one.problem]
    text += _table(["", "check of the dataset", "measured on", "found"], rows, [row[0] for row in rows])
    if not v.findings:
        return text + "<p>No sample fails a check.</p>"
    rows = [[f.severity, f.check, f"{f.n_samples:,}", ", ".join(map(str, f.examples))] for f in v.findings]
    return text + _table(["severity", "check", "samples", "such as"], rows, [f.severity for f in v.findings])


def _counts(counts: dict[str, int], what: str, nothing: str) -> str:
    if not counts:
        return f"<p>{nothing}</p>"
    return _table([what, "samples"], [[name.replace("_", " "), f"{n:,}"] for name, n in counts.items()])


def _elements(c: Contents) -> str:
    """Return the periodic table with the share of atoms as the depth of the colour, on a logarithmic scale."""
    from ase.data import chemical_symbols

    atoms, samples = c.statistics.part.atoms_of, c.statistics.part.samples_with
    scale = np.log(atoms.max() + 1.0)
    cells = []
    for z in range(1, 119):
        row, column = place(z)
        style = f"grid-row:{row};grid-column:{column}"
        if atoms[z]:
            depth = 0.12 + 0.8 * np.log(atoms[z] + 1.0) / scale
            title = f"{chemical_symbols[z]}: {atoms[z]:,} atoms in {samples[z]:,} samples"
            style += f";background:rgba(var(--heat),{depth:.2f})"
            cells.append(
                f'<div style="{style}" title="{title}"><b>{chemical_symbols[z]}</b>{_short(int(atoms[z]))}</div>'
            )
        else:
            cells.append(f'<div class="empty" style="{style}"><b>{chemical_symbols[z]}</b>&nbsp;</div>')
    about = f"{int((atoms > 0).sum())} elements; the numbers are atoms, the depth of the colour their logarithm."
    if c.diversity:
        d = c.diversity
        about += (
            f" Diversity {d['score']:.3f} (QUESTS entropy over its largest value, {d['n_environments']:,} environments); "
            f"evenness of the elements {d['element_evenness']:.2f}."
        )
    return f'<p>{about}</p><div class="wide"><div class="elements">{"".join(cells)}</div></div>'


def place(z: int) -> tuple[int, int]:
    """Return row and column of an element in the periodic table, from 1; the f block in rows 9 and 10.

    Examples
    --------
    >>> place(1), place(2), place(26), place(57), place(72)
    ((1, 1), (1, 18), (4, 8), (9, 4), (6, 4))
    """
    if 57 <= z <= 71:
        return 9, z - 53
    if 89 <= z <= 103:
        return 10, z - 85
    row, before = 1, 0
    for length in (2, 8, 8, 18, 18, 32, 32):
        if z <= before + length:
            break
        row, before = row + 1, before + length
    k, length = z - before, (2, 8, 8, 18, 18, 32, 32)[row - 1]
    first = 1 if row == 1 else 2
    return row, k if k <= first else 18 - (length - k)


def _short(n: int) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)


def _figures(figures: list[Figure]) -> str:
    parts = [
        f'<figure id="figure-{_anchor(f.name)}">{svg(f)}<figcaption>{_e(f.title)}</figcaption></figure>'
        for f in figures
    ]
    return f'<div class="figures">{"".join(parts)}</div>'


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element whose lines and letters have the colour of the text around it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    ink = "#010203"  # stands for the colour of the text, and is replaced by it
    style = {
        "svg.fonttype": "none", "svg.hashsalt": figure.name, "text.color": ink, "axes.labelcolor": ink,
        "axes.edgecolor": ink, "xtick.color": ink, "ytick.color": ink, "font.family": "sans-serif", "savefig.dpi": 150,
    }  # fmt: skip
    with mpl.rc_context(style):
        canvas = Canvas(figsize=(5, 3.4), layout="constrained")
        figure.draw(canvas.subplots())
        out = io.StringIO()
        canvas.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(ink, "currentColor")
    # Names inside a drawing are global in a page.
    for name in set(re.findall(r'\bid="([^"]+)"', text)):
        text = re.sub(rf'(id="|#){re.escape(name)}(?=["\)])', rf"\g<1>{_anchor(figure.name)}-{name}", text)
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)


def _teachers(c: Contents) -> str:
    document = c.statistics.to_dict()["teachers"]
    rows = []
    for teacher, figures in document.items():
        energy, force, component = (
            figures[k] for k in ("energy_eV_per_atom", "force_eV_per_angstrom", "force_component_eV_per_angstrom")
        )
        rows.append(
            [
                teacher, f"{figures['samples']:,}",
                f"{energy['mean']:.3f} ± {energy['std']:.3f}" if energy["n"] else "-",
                f"{component['rms']:.3f}" if component["n"] else "-",
                f"{force['quantiles']['0.99']:.2f}" if force["n"] else "-",
                f"{force['max']:.2f}" if force["n"] else "-",
            ]
        )  # fmt: skip
    table = _table(["teacher", "samples", "eV/atom", "force rms, eV/Å", "99 % of |F|, eV/Å", "largest |F|, eV/Å"], rows)
    chosen = [f for f in c.figures if f.name in ("disagreement", "parity")]
    if not chosen:
        return table + "<p>No sample was labelled by several teachers, so there is no disagreement to show.</p>"
    figures = _table(["disagreement", ""], [[name, f"{value:.4g}"] for name, value in c.disagreement.items()])
    return table + figures + _figures(chosen)


def _shown(shown: list[Shown], kind: str, width: int) -> str:
    cards = "".join(
        f'<div class="card">{picture(one.atoms, width)}<b>{one.index}</b> {_e(one.atoms.get_chemical_formula())}'
        f"{'<br>' + _e(one.text) if one.text else ''}</div>"
        for one in shown
    )
    return f'<div class="{kind}">{cards}</div>'


def _provenance(c: Contents) -> str:
    from mlffstore.runtime.version import VERSION

    parts = [f"<p>Made by mlffstore {VERSION} from {_e(c.summary['url'])}, store {_e(c.summary['uuid'])}.</p>"]
    for title, document in [("Policy", c.validation.policy.to_json()), *((_heading(p), p) for p in c.provenance)]:
        parts.append(
            f"<details><summary>{_e(title)}</summary><pre>{_e(json.dumps(document, indent=1, default=str))}</pre></details>"
        )
    return "".join(parts)


def _heading(record: dict[str, Any]) -> str:
    return "Recipe, software, generators, teachers" if "recipe" in record else ", ".join(map(str, record)) or "record"
