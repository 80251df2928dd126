"""The documents of a release: the dataset card, Croissant metadata, and how to cite it."""

from __future__ import annotations

import importlib.resources
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mlffstore.analysis.report.provenance import parts, total
from mlffstore.data.splits import SPLITS
from mlffstore.runtime.words import printable
from mlffstore.store.describe import human_bytes
from mlffstore.store.snapshot import Snapshot
from mlffstore_exporters.columns import stored_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore_exporters.about import About

    #: Name of an HDF5 file -> its ``bytes`` and ``sha256``.
    Files = Mapping[str, Mapping[str, Any]]

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
#: What has no generator to speak for it: imported data.
_UNKNOWN = "not recorded"
#: `conservative` of a teacher -> what its forces are.
_GRADIENTS = {
    True: "are the gradient of the energy",
    False: "are NOT the gradient of the energy",
    None: "may or may not be the gradient of the energy: not recorded",
}


def readme(about: About, files: Files) -> str:
    """Return the dataset card: Hugging Face front matter, then sections for people."""
    teachers, recipe, several = about.teachers, _last(about, "recipe"), parts(list(about.provenance))
    columns = stored_columns(about.snapshot, teachers)
    suffix = "" if len(teachers) == 1 else f".{teachers[0]}"
    load = {
        "file": next(iter(files)),
        "split": next(split for split in SPLITS if len(about.splits[split])),
        "suffix": suffix,
        "labels": [name for name in ("energy", "forces") if f"{name}{suffix}" in columns],
    }
    return (
        _environment()
        .from_string((importlib.resources.files(__package__) / "card.md.jinja").read_text(encoding="utf-8"))
        .render(
            about=about,
            snapshot=about.snapshot,
            s=about.statistics,
            files=files,
            front=_front(about),
            given=lambda teacher_name: _given(about, teacher_name),
            nbytes=human_bytes(sum(one["bytes"] for one in files.values())),
            selection=about.snapshot.selection_record(),
            load=load,
            columns=columns,
            unknown=_UNKNOWN,
            recipe=recipe,
            cost=[*several, total(several)] if any(one.calls for one in several) else [],
            generators=_mapping(recipe.get("generators")),
            sources=_sources(about),
            teachers={name: about.snapshot.teacher_info(name) for name in teachers},
            gradients=_GRADIENTS,
            checks=_mapping(recipe.get("recipe")).get("checks"),
            filters=_filters(about),
            limits=_limits(about),
        )
    )


def _environment() -> Environment:
    """Return how the card is filled in: all text is written such that Markdown shows it as it is, but for `Markup`."""
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, finalize=_shown
    )
    environment.filters |= {
        "count": "{:,}".format, "raw": Markup, "code": _code, "json": _json, "mapping": _mapping, "yaml": _yaml,
    }  # fmt: skip
    return environment


def _shown(text: object) -> Markup:
    """Return text of a store as Markdown shows it: no control characters, markup, or end of a table's cell."""
    if isinstance(text, Markup):
        return text
    return Markup(re.sub(r"([\\`\[\]<>|&])", lambda match: f"&#{ord(match[1])};", printable(text)))


def _code(text: object) -> Markup:
    """Return text of a store for a code span of Markdown."""
    return Markup(printable(text).replace("`", "'"))


def _json(document: Any, indent: int | None = None) -> Markup:
    return Markup(json.dumps(document, indent=indent))


def _yaml(document: Any) -> Markup:
    import yaml

    return Markup(yaml.safe_dump(document, sort_keys=False))


def _mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object of a store's log, where anybody may have written anything else."""
    return value if isinstance(value, dict) else {}


def _last(about: About, name: str) -> dict[str, Any]:
    """Return the last record of the provenance that has an entry, or an empty one."""
    return next((one for one in reversed(about.provenance) if name in one), {})


def _front(about: About) -> dict[str, Any]:
    n = about.statistics["samples"]
    return {
        "pretty_name": f"{about.name} {about.version}",
        "license": about.licence.lower() or "other",
        "tags": ["chemistry", "materials science", "interatomic potentials", "machine-learned force fields"],
        "size_categories": [next((word for limit, word in _SIZES if n < limit), "1M<n<10M")],
    }


def _given(about: About, teacher: str) -> str:
    """Return which labels of a teacher there are, counted."""
    one = about.statistics["teachers"][teacher]
    counts = (
        ("energies of {:,} samples", one["energy_eV_per_atom"]["n"]),
        ("forces on {:,} atoms", one["force_eV_per_angstrom"]["n"]),
        ("stress of {:,} samples", one["stress_eV_per_angstrom3"].get("xx", {}).get("n", 0)),
    )
    return ", ".join(words.format(n) for words, n in counts if n) or "nothing"


def _sources(about: About) -> list[dict[str, Any]]:
    """Return what the store's log says about the structures; tasks of a recipe say nothing new."""
    sources: list[dict[str, Any]] = []
    for one in about.provenance:
        what = {k: v for k, v in one.items() if k not in ("version", "time")}
        if "recipe" not in what and "part" not in what and what not in sources:
            sources.append(what)
    return sources


def _filters(about: About) -> list[tuple[int, str]]:
    """Return numbers of samples or seeds that are not in the release, and why."""
    snapshot = about.snapshot
    selection = snapshot.selected()
    base = snapshot if selection is None else selection.snapshot
    out: list[tuple[int, str]] = []
    if isinstance(base, Snapshot) and base.n_quarantined:
        reasons = Counter(reason.split(":")[0].split("(")[0].strip() for reason in base.quarantine.reasons())
        out += [(count, f"rejected: {reason}") for reason, count in reasons.most_common(20)]
    skipped: Counter[str] = Counter()
    for one in about.provenance:
        skipped.update({str(k): v for k, v in _mapping(one.get("skipped")).items() if isinstance(v, int)})
    out += [(count, f"seeds skipped: {reason}") for reason, count in skipped.most_common(20)]
    left = len(snapshot) - about.statistics["samples"]
    if left:
        out.append((left, "samples of the store are not in this release: another teacher's, or beyond the counts"))
    return out


def _limits(about: About) -> list[Markup]:
    """Return what this release lacks, as Markdown."""
    s = about.statistics
    lines: list[str] = []
    for teacher_name in about.teachers:
        info = about.snapshot.teacher_info(teacher_name)
        if info.get("conservative") is False:
            lines.append(
                f"Forces of `{_code(teacher_name)}` are not the gradient of its energy: do not take Hessians or run NVE on "
                "them."
            )
    empty = [split for split in SPLITS if not len(about.splits[split])]
    if empty:
        lines.append(f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} EMPTY: too few roots for all splits.")
    for teacher_name in about.teachers:
        if teacher_name not in s["normalisation"]:
            lines.append(f"The split train has no energy of `{_code(teacher_name)}`.")
            continue
        trained = s["normalisation"][teacher_name]["element_counts"]
        lacking = [symbol for symbol in s["elements"] if symbol not in trained]
        if lacking:
            lines.append(
                f"The split train has no sample with {', '.join(lacking)} that `{_code(teacher_name)}` labelled."
            )
    rare = [symbol for symbol, one in s["elements"].items() if one["samples"] < 10]
    if rare:
        lines.append(f"Fewer than 10 samples have {', '.join(rare)}.")
    if not about.validation.ok:
        lines.append("It does not pass its validation policy; see above.")
    return [Markup(line) for line in lines]


def citation(about: About) -> str:
    """Return CITATION.cff (https://citation-file-format.github.io, 1.2.0)."""
    import yaml

    authors: list[dict[str, str]] = []
    for author in about.authors:
        family, comma, given = author.partition(",")
        authors.append({"family-names": family.strip(), "given-names": given.strip()} if comma else {"name": author})
    document: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use this dataset, please cite it.",
        "type": "dataset",
        "title": about.name,
        "version": about.version,
        **({"date-released": about.committed[:10]} if about.committed else {}),
        "authors": authors or [{"name": f"The authors of {about.name}"}],
    }
    if about.licence:
        document["license"] = about.licence
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


#: Terms of Croissant's own vocabulary.
_TERMS = """
citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset jsonPath key md5
parentField path recordSet references regex repeated replace samplingRate separator source subField transform
"""
#: The context of Croissant 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
} | {term: f"cr:{term}" for term in _TERMS.split()}


def croissant(about: About, files: Files) -> dict[str, Any]:
    """Return the Croissant 1.0 document: what the dataset is, and its files with checksums.

    Croissant knows no HDF5, so it has no record sets; the columns are described in words.
    """
    s = about.statistics
    what = (
        f"{s['samples']:,} structures of {len(s['elements'])} elements. "
        + "".join(f"Labels of {teacher_name}: {_given(about, teacher_name)}. " for teacher_name in about.teachers)
        + "Columns: "
        + "; ".join(
            f"{c.name} ({c.unit}): {c.long_name}" for c, _ in stored_columns(about.snapshot, about.teachers).values()
        )
    )
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.name,
        "version": about.version,
        "description": f"{about.description} {what}".strip(),
        "license": about.licence or "other",
        **({"datePublished": about.committed[:10]} if about.committed else {}),
        "creator": [{"@type": "sc:Person", "name": one} for one in about.authors or [f"The authors of {about.name}"]],
        "citeAs": f"{about.name}, version {about.version}",
        "url": ".",
        "keywords": ["interatomic potentials", "machine-learned force fields", *s["elements"]],
        "distribution": [
            {
                "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name,
                "contentSize": f"{one['bytes']} B", "encodingFormat": "application/x-hdf5", "sha256": one["sha256"],
            }
            for name, one in files.items()
        ],
    }  # fmt: skip
