"""The report as one HTML file: nothing fetched, light and dark, readable on a phone.

The file holds the data as JSON, two libraries (see ``static/README.md``) and a script that draws charts, the list of
structures and the viewer. Tables and pictures are there without the script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mlffstore.analysis.report.contents import COPIES
from mlffstore.analysis.report.elements import element_cells
from mlffstore.analysis.report.picture import picture
from mlffstore.analysis.report.provenance import other_records, parts, total
from mlffstore.analysis.report.structures import structures
from mlffstore.runtime.version import VERSION
from mlffstore.runtime.words import printable
from mlffstore.store.describe import human_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from mlffstore.analysis.report.contents import Contents

#: Scripts of the page, in order.
_SCRIPTS = ("plotly-basic.min.js", "3Dmol-min.js", "report.js", "charts.js", "viewer.js", "start.js")
#: Lines of the acceptance table -> the samples that they are about: a key of the list, an operation, a value.
_ABOUT = {
    **{f"samples_{name}": ("split", "is", name) for name in ("train", "val", "test")},
    "invalid_fraction": ("severity", "is", "error"),
    "leaked_samples": ("flags", "has", "leakage"),
    "periodic_fraction": ("periodic", "is", "periodic"),
    "samples": ("set", "is", "dataset"),
}


def page(contents: Contents) -> str:
    """Return the report as an HTML document."""
    c, part, several = contents, contents.statistics.part, parts(contents.provenance)
    labels = c.statistics.to_dict()["teachers"]
    return (
        _environment()
        .from_string(_static("page.html.jinja"))
        .render(
            title=c.title,
            selection=c.selection,
            summary=c.summary,
            periodic=f"{c.summary['periodic'] / max(c.summary['samples'], 1):.0%}",
            nbytes=_size(c.summary),
            validation=c.validation,
            about=_ABOUT,
            listed={int(index): row for row, index in enumerate(c.rows.index[: c.rows.n_dataset])},
            n_listed=c.rows.n_dataset,
            n_rejected=len(c.rows.index) - c.rows.n_dataset,
            reasons=c.reasons,
            worst=c.worst,
            gallery=c.gallery,
            elements=element_cells(c.statistics),
            diversity=c.diversity,
            splits=[(name, part.samples[i], part.atoms[i]) for i, name in enumerate(c.statistics.splits)],
            samplers=[(name, n) for name, n in zip(c.statistics.samplers, part.by_sampler.tolist(), strict=False) if n],
            labels=labels,
            others=_other_properties(labels),
            disagreement=[(name, f"{value:,.4g}") for name, value in c.disagreement.items()],
            copies=c.copies,
            meanings=COPIES,
            version=VERSION,
            parts=several,
            whole=total(several),
            records=other_records(c.provenance),
            picture=_picture,
            style=Markup(_static("report.css")),
            scripts=[Markup(_static(name)) for name in _SCRIPTS],
            data=Markup(script_json(_data(c))),
        )
    )


def _other_properties(labels: dict[str, Any]) -> list[list[str]]:
    """Return a line for each property of a teacher beside energy, forces and stress."""
    return [
        [teacher, name, one["unit"], f"{one['samples']:,}", *(f"{one[key]:.4g}" for key in ("mean", "std", "min", "max")),
         ", ".join(f"{symbol} {row['mean']:.3g}" for symbol, row in one.get("by_element", {}).items())]
        for teacher, figures in labels.items()
        for name, one in figures["properties"].items()
    ]  # fmt: skip


def _environment() -> Environment:
    """Return how the page is filled in: all text is escaped and its control characters are shown, but for markup."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown)
    environment.filters |= {"count": "{:,}".format, "json": _json, "anchor": _anchor, "sha256": _sha256}
    return environment


def _shown(value: Any) -> Any:
    return value if isinstance(value, Markup) else printable(value, lines=True)


def _json(document: Any, indent: int | None = None) -> str:
    return json.dumps(document, indent=indent, default=str, ensure_ascii=indent is None)


def _size(summary: Mapping[str, Any]) -> str:
    """Return the bytes of the columns of a store, of the files of a release, or of the numbers of a selection."""
    known = (summary.get("nbytes"), summary["nbytes_on_disk"], summary["nbytes_raw"])
    return human_bytes(next(nbytes for nbytes in known if nbytes is not None))


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _picture(atoms: Atoms, width: int) -> Markup:
    return Markup(picture(atoms, width))  # numbers and colours only


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
