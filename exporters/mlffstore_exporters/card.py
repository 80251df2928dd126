"""The documents of a release: the dataset card, Croissant metadata, and how to cite it."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

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


def readme(about: About, files: Files) -> str:
    """Return the dataset card: Hugging Face front matter, then sections for people."""
    parts = [_front(about), f"# {about.name} {about.version}\n"]
    sections = (
        ("What this is", _what(about, files)),
        ("How to load it", _load(about, files)),
        ("Columns, units and signs", _columns(about)),
        ("How it was sampled", _sampling(about)),
        ("Teachers", _teachers(about)),
        ("Elements", _elements(about)),
        ("Filters", _filters(about)),
        ("Splits", _splits(about)),
        ("Validation", _validation(about)),
        *([("What changed", _since(about))] if about.since else []),
        ("Known limits", _limits(about)),
        ("Licence and citation", _licence(about)),
        ("Files", _files()),
    )
    parts += [f"## {title}\n\n{text.strip()}\n" for title, text in sections]
    return "\n".join(parts)


def _t(text: object) -> str:
    """Return text of a store as Markdown shows it: no control characters, markup, or end of a table's cell."""
    return re.sub(r"([\\`\[\]<>|&])", lambda match: f"&#{ord(match[1])};", printable(text))


def _code(text: object) -> str:
    """Return text of a store for a code span of Markdown."""
    return printable(text).replace("`", "'")


def _mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object of a store's log, where anybody may have written anything else."""
    return value if isinstance(value, dict) else {}


def _front(about: About) -> str:
    import yaml

    n = about.statistics["samples"]
    document = {
        "pretty_name": f"{about.name} {about.version}",
        "license": about.licence.lower() or "other",
        "tags": ["chemistry", "materials science", "interatomic potentials", "machine-learned force fields"],
        "size_categories": [next((word for limit, word in _SIZES if n < limit), "1M<n<10M")],
    }
    return f"---\n{yaml.safe_dump(document, sort_keys=False)}---\n"


def _what(about: About, files: Files) -> str:
    s = about.statistics
    size, nbytes = s["n_atoms"], sum(one["bytes"] for one in files.values())
    labels = "; ".join(f"by `{teacher_name}` with {_given(about, teacher_name)}" for teacher_name in about.teachers)
    text = f"{about.description}\n\n" if about.description else ""
    return f"""{text}{s["samples"]:,} structures ({s["periodic"]:,} of them periodic) with {s["atoms"]:,} atoms of
{len(s["elements"])} elements, {size["min"]:.0f} to {size["max"]:.0f} atoms each, labelled {labels}. The files have
{human_bytes(nbytes)} of HDF5.
Cut from version {about.snapshot.version} of the store {about.snapshot.store_uuid}, which was
committed {about.committed}.{_chosen(about)}"""


def _chosen(about: About) -> str:
    """Return what was selected, if the release was made from a selection."""
    selection = about.snapshot.selected()
    if selection is None:
        return ""
    kept = "".join(f" {_t(name.replace('_', ' '))}: {_t(value)}." for name, value in selection.report.items())
    return f"""

It was made from a selection: {len(selection):,} of {len(selection.snapshot):,} samples, chosen so:

- {_t(selection.question)}

{kept.strip()}""".rstrip()


def _given(about: About, teacher: str) -> str:
    """Return which labels of a teacher there are, counted."""
    one = about.statistics["teachers"][teacher]
    counts = (
        ("energies of {:,} samples", one["energy_eV_per_atom"]["n"]),
        ("forces on {:,} atoms", one["force_eV_per_angstrom"]["n"]),
        ("stress of {:,} samples", one["stress_eV_per_angstrom3"].get("xx", {}).get("n", 0)),
    )
    return ", ".join(words.format(n) for words, n in counts if n) or "nothing"


def _load(about: About, files: Files) -> str:
    first = next(iter(files))
    head = "" if len(about.teachers) == 1 else f".{about.teachers[0]}"
    teacher_option = "" if len(about.teachers) == 1 else f', teacher="{about.teachers[0]}"'
    split = next(split for split in SPLITS if len(about.splits[split]))
    columns = stored_columns(about.snapshot, about.teachers)
    labels = [name for name in ("energy", "forces") if f"{name}{head}" in columns]
    last = "".join(f', group["{name}{head}"][{"atoms" if name == "forces" else "i"}]' for name in labels)
    read = {"energy": f'float(group["energy{head}"][0])', "forces": f'group["forces{head}"][atoms]'}
    results = ", ".join(f"{name}={read[name]}" for name in labels)
    shards = "" if len(files) == 1 else f"The data are in {len(files)} files of one layout; each has all splits.\n\n"
    return f"""{shards}With h5py and NumPy alone, from this folder:

```python
import h5py
import numpy as np

with h5py.File("{first}") as file:
    group = file["{split}"]
    n_atoms = group["n_atoms"][:]
    ends = np.cumsum(n_atoms)
    i = len(n_atoms) - 1
    atoms = slice(ends[i] - n_atoms[i], ends[i])
    print(group["numbers"][atoms], group["positions"][atoms]{last})
```

With xarray, lazily:

```python
import xarray as xr

ds = xr.open_dataset("{first}", group="{split}", engine="h5netcdf", chunks={{}})
print(ds)
```

With ASE:

```python
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

with h5py.File("{first}") as file:
    group = file["{split}"]
    atoms = slice(0, int(group["n_atoms"][0]))
    frame = Atoms(group["numbers"][atoms], group["positions"][atoms], cell=group["cell"][0], pbc=group["pbc"][0])
    frame.info.update(charge=int(group["charge"][0]), multiplicity=int(group["multiplicity"][0]))
    frame.calc = SinglePointCalculator(frame, {results})
print(frame)
```

With PyTorch, shuffled batches at the speed of memory (`pip install 'mlffstore[torch]'`):

```python
import mlffstore as ml

data = ml.TorchDataset("{first if len(files) == 1 else "."}", split="{split}"{teacher_option})
for batch in data.loader(batch_size=32, shuffle=True):
    print(batch["positions"].shape, batch["energy"].shape)
    break
```

`mlffstore verify .` checks checksums, schema, splits and statistics of this folder."""


def _columns(about: About) -> str:
    lines = ["| column | dtype | unit | rows | meaning |", "|---|---|---|---|---|"]
    for name, (column, key) in stored_columns(about.snapshot, about.teachers).items():
        dtype = column.dtype.replace("bool", "uint8")
        whose = f" ({name.partition('.')[2]})" if column.quantity is not None and name != key else ""
        lines.append(f"| `{name}` | {dtype} | {_t(column.unit)} | {column.axis} | {_t(column.long_name)}{whose} |")
    rounding = ""
    if about.rounding:
        which = ", ".join(f"{name} to steps of at most {step:g}" for name, step in about.rounding.items())
        rounding = f"\nLossy: {which} (attribute `rounding_step`)."
    return f"""One group for each split. Atoms of all samples lie one after another, `n_atoms` says how many belong to each
(CF contiguous ragged arrays). Rows of `cell` are lattice vectors. Stress is xx yy zz yz xz xy, positive under tension (the
sign of ASE). Energies are total energies with the zero of their teacher: never mix those of two teachers. A label that a
teacher does not give is NaN, and so is a missing value of a column of real numbers. Of integers and booleans, the column
that the attribute `ancillary_variables` names says where there is a value.

{chr(10).join(lines)}
{rounding}"""


def _sampling(about: About) -> str:
    recipe = next((one for one in reversed(about.provenance) if "recipe" in one), None)
    counts = ", ".join(f"{_t(k)} {v:,}" for k, v in about.statistics["samplers"].items()) or _UNKNOWN
    text = f"Samples by sampler: {counts}.\n"
    if recipe is not None:
        text += "\nThe recipe, with which the same structures can be made again:\n\n"
        text += f"```json\n{json.dumps(recipe['recipe'], indent=1)}\n```\n"
        for name, one in _mapping(recipe.get("generators")).items():
            text += f"\nThe generator `{_code(name)}`, with all options, sources and licences of its seeds:\n\n"
            text += f"```json\n{json.dumps(one, indent=1)}\n```\n"
    sources: list[dict[str, Any]] = []
    for one in about.provenance:
        what = {k: v for k, v in one.items() if k not in ("version", "time")}
        if "recipe" not in what and "part" not in what and what not in sources:  # a recipe's tasks say nothing new
            sources.append(what)
    if sources:
        more = f"\n... and {len(sources) - 20} more; all are in the root attribute `provenance` of the HDF5 files.\n"
        text += f"\nThe store's log says:\n\n```json\n{json.dumps(sources[:20], indent=1)}\n```\n"
        text += more if len(sources) > 20 else ""
    if recipe is None and not sources:
        text += "\nThe store has no record of how the structures were made.\n"
    return text


def _teachers(about: About) -> str:
    lines = []
    for teacher_name in about.teachers:
        info = about.snapshot.teacher_info(teacher_name)
        given = _given(about, teacher_name)
        if not info:
            lines.append(f"- `{teacher_name}`: {given}; labels were imported, nothing more is recorded.")
            continue
        software = ", ".join(f"{_t(k)} {_t(v)}" for k, v in _mapping(info.get("software")).items())
        gradient: dict[Any, str] = {True: "are the gradient of the energy", False: "are NOT the gradient of the energy"}
        forces = gradient.get(info.get("conservative"), "may or may not be the gradient of the energy: not recorded")
        lines.append(
            f"- `{teacher_name}`: {given}; licence of the weights or parameters {_t(info.get('licence', _UNKNOWN))}; forces "
            f"{forces}; computed in {_t(info.get('precision', _UNKNOWN))}; "
            f"fingerprint `{_code(info.get('fingerprint', _UNKNOWN))}`; {software}."
        )
    return "\n".join(lines)


def _elements(about: About) -> str:
    elements = about.statistics["elements"]
    lines = ["| element | atoms | samples |", "|---|---|---|"]
    lines += [f"| {symbol} | {one['atoms']:,} | {one['samples']:,} |" for symbol, one in elements.items()]
    return "\n".join(lines)


def _filters(about: About) -> str:
    snapshot = about.snapshot
    selection = snapshot.selected()
    base = snapshot if selection is None else selection.snapshot
    lines = []
    if isinstance(base, Snapshot) and base.n_quarantined:
        reasons = Counter(reason.split(":")[0].split("(")[0].strip() for reason in base.quarantine.reasons())
        lines = [f"- {count:,} rejected: {_t(reason)}" for reason, count in reasons.most_common(20)]
    skipped: Counter[str] = Counter()
    for one in about.provenance:
        skipped.update({str(k): v for k, v in _mapping(one.get("skipped")).items() if isinstance(v, int)})
    lines += [f"- {count:,} seeds skipped: {_t(reason)}" for reason, count in skipped.most_common(20)]
    left = len(snapshot) - about.statistics["samples"]
    if left:
        lines.append(
            f"- {left:,} samples of the store are not in this release: another teacher's, or beyond the counts"
        )
    checks = next(
        (_mapping(one["recipe"]).get("checks") for one in reversed(about.provenance) if "recipe" in one), None
    )
    limits = f"Every sample keeps these limits: `{json.dumps(checks)}`.\n\n" if checks else ""
    return limits + ("\n".join(lines) or "Nothing was rejected.")


def _splits(about: About) -> str:
    settings = about.snapshot.settings
    rows = "\n".join(f"| {split} | {len(about.splits[split]):,} |" for split in SPLITS)
    fractions = ", ".join(f"{k} {v:g}" for k, v in settings["splits"].items())
    exact = " Exact counts were taken in the order of the roots' hashes." if about.exact else ""
    return f"""| split | samples |
|---|---|
{rows}

All samples that descend from one seed structure (its root) are in one split: it follows from a hash of the root, with the
seed {settings["split_seed"]} and the fractions {fractions}.{exact} A later release of the same store never moves a
sample to another split."""


def _validation(about: About) -> str:
    verdict = about.validation
    rows = [f"| {line.quantity} | {line.target} | {line.figure} | {line.mark} |" for line in verdict.acceptance]
    findings = [f"- {one.severity}: {one.check}, {one.n_samples:,} samples" for one in verdict.findings]
    findings += [f"- {one.severity}: {one.check}: {one.text}" for one in verdict.problems]
    text = "The dataset passes." if verdict.ok else "**The dataset does NOT pass; it was published all the same.**"
    table = "\n".join(["| quantity | target | found | |", "|---|---|---|---|", *rows])
    return f"{text}\n\n{table}\n\n" + "\n".join(findings)


def _since(about: About) -> str:
    assert about.since is not None
    lines = "\n".join(f"- {line}" for line in about.since.lines())
    return f"Samples since {about.since.name} {about.since.version}:\n\n{lines}"


def _limits(about: About) -> str:
    s = about.statistics
    lines = [
        "- Labels are those of models, not of experiment or of the reference method that the models were trained on.",
        f"- Structures have {s['n_atoms']['min']:.0f} to {s['n_atoms']['max']:.0f} atoms; a student has seen nothing else.",
    ]
    for teacher_name in about.teachers:
        info = about.snapshot.teacher_info(teacher_name)
        if info.get("conservative") is False:
            lines.append(
                f"- Forces of `{teacher_name}` are not the gradient of its energy: do not take Hessians or run NVE on them."
            )
    empty = [split for split in SPLITS if not len(about.splits[split])]
    if empty:
        lines.append(
            f"- {' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} EMPTY: too few roots for all splits."
        )
    for teacher_name in about.teachers:
        if teacher_name not in s["normalisation"]:
            lines.append(f"- The split train has no energy of `{teacher_name}`.")
            continue
        trained = s["normalisation"][teacher_name]["element_counts"]
        lacking = [symbol for symbol in s["elements"] if symbol not in trained]
        if lacking:
            lines.append(f"- The split train has no sample with {', '.join(lacking)} that `{teacher_name}` labelled.")
    rare = [symbol for symbol, one in s["elements"].items() if one["samples"] < 10]
    if rare:
        lines.append(f"- Fewer than 10 samples have {', '.join(rare)}.")
    if not about.validation.ok:
        lines.append("- It does not pass its validation policy; see above.")
    return "\n".join(lines)


def _licence(about: About) -> str:
    which = about.licence or "not chosen by the publisher; mind those of the seeds and the teachers above"
    return f"Licence of the dataset: {which}. How to cite it is in `CITATION.cff`."


def _files() -> str:
    return """- `*.h5`: the data
- `statistics.yaml`: counts, moments, quantiles; under `normalisation` energies of the elements, shift and scale from the
  split train, under the names of MACE, NequIP, SevenNet and SchNetPack
- `validation.json`: the verdict in full
- `croissant.json`: this card for machines
- `MANIFEST.json`: SHA-256 and size of every file, identity of store, recipe, teachers and software
- `SHA256SUMS`: SHA-256 of all of these, for `sha256sum -c SHA256SUMS`"""


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
        "date-released": about.committed[:10],
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
        "datePublished": about.committed[:10],
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
