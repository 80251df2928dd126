"""`mlffstore info`: what is in a store, at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlffstore as ml
from mlffstore.cli.output import AsJson, ShowAll, Tag, Version, print_grid, print_json, print_pairs, say
from mlffstore.cli.sources import SourcePath, Where, open_samples

if TYPE_CHECKING:
    from mlffstore.store.samples import Samples


def info(
    store: SourcePath,
    where: Where = None,
    version: Version = None,
    tag: Tag = None,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """Say what is in STORE, at a glance.

    It lists samples, atoms, elements, teachers, splits, bytes, tags and the last commits.
    """
    from mlffstore.release import is_release
    from mlffstore.store.describe import describe, lines

    if is_release(store) or where is not None or version is not None or tag is not None:
        _about_samples(open_samples(store, version, tag, where), show_all, as_json)
        return
    handle = ml.open(store)
    about = describe(handle)
    counts = _samples_by_split(handle.snapshot(about["version"]))
    about["samples_by_split"] = counts if isinstance(counts, dict) else None
    if as_json:
        print_json(about)
        return
    rows = [row for row in lines(about, show_all=show_all) if row[0] != "splits"]
    print_pairs([*rows, ("splits", _splits(counts, about["splits"]))], title=about["url"])
    commits = [
        [str(c["version"]), c["time"], c["operation"], f"{c['samples']:,}", c["key"] or ""]
        for c in about["last_commits"]
    ]
    say()
    print_grid(["version", "time", "operation", "samples", "key"], commits, title="last commits")


def _about_samples(samples: Samples, show_all: bool, as_json: bool) -> None:
    """Say what is in a version, a selection or a release."""
    from mlffstore.store.describe import human_bytes

    about, counts, chosen = samples.summary(), _samples_by_split(samples), samples.selected()
    about["samples_by_split"] = counts if isinstance(counts, dict) else None
    about["selection"] = None if chosen is None else chosen.to_json()
    if as_json:
        print_json(about)
        return
    elements = sorted(about["elements"], key=lambda symbol: -about["elements"][symbol])
    shown, more = (elements, 0) if show_all else (elements[:24], max(len(elements) - 24, 0))
    rows = [
        ("samples", f"{about['samples']:,}" + ("" if chosen is None else f" of {len(chosen.snapshot):,}")),
        *([] if chosen is None else [("chosen", chosen.question)]),
        ("atoms", f"{about['atoms']:,}, {about['n_atoms_min']:,} to {about['n_atoms_max']:,} per sample"),
        ("periodic", f"{about['periodic']:,}"),
        ("elements", f"{len(elements)}: {' '.join(shown)}" + (f" and {more} more" if more else "")),
        ("teachers", ", ".join(f"{name} ({n:,})" for name, n in about["teachers"].items()) or "none"),
        ("uncompressed", human_bytes(about["nbytes_raw"])),
        ("precision", about["precision"]),
        ("version", str(about["version"])),
        ("splits", _splits(counts, samples.settings["splits"])),
    ]
    print_pairs(rows, title=about["url"])


def _samples_by_split(snapshot: Samples) -> dict[str, int] | str:
    """Return the samples of each split, for which the roots of all samples are read, or why they cannot be read."""
    import numpy as np

    from mlffstore.data.splits import SPLITS
    from mlffstore.errors import StoreError

    try:
        counts = np.bincount(snapshot.split_codes(), minlength=len(SPLITS))
    except StoreError as error:  # the rest of what there is to say comes from the log
        return str(error)
    return {split: int(n) for split, n in zip(SPLITS, counts, strict=False)}


def _splits(counts: dict[str, int] | str, wanted: dict[str, float]) -> str:
    """Return in words what the splits hold, and what was asked for."""
    if isinstance(counts, str):
        return f"cannot be counted: {counts}; 'mlffstore verify STORE --full' lists all damage"
    asked = ", ".join(f"{name} {share:.4g}" for name, share in ((name, 100 * wanted.get(name, 0)) for name in counts))
    total = sum(counts.values())
    if not total:
        return f"none yet; wanted, in %: {asked}"
    shares = ", ".join(f"{name} {n:,} ({n / total:.1%})" for name, n in counts.items())
    empty = " and ".join(name for name, n in counts.items() if not n and wanted.get(name))
    return f"{shares}; wanted, in %: {asked}" + (f"; EMPTY: {empty}" if empty else "")
