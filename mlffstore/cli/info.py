"""`mlffstore info`: what is in a store, at a glance."""

from __future__ import annotations

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, grid, out, pairs, print_json
from mlffstore.store.describe import describe, lines


def info(store: StorePath, as_json: AsJson = False) -> None:
    """Say what is in STORE: samples, atoms, elements, teachers, bytes, versions, last commits."""
    about = describe(ml.open(store))
    if as_json:
        print_json(about)
        return
    out.print(pairs(lines(about), title=about["url"]))
    rows = [
        [str(c["version"]), c["time"], c["operation"], f"{c['samples']:,}", c["key"] or ""]
        for c in about["last_commits"]
    ]
    out.print()
    out.print(grid(["version", "time", "operation", "samples", "key"], rows, title="last commits"))
